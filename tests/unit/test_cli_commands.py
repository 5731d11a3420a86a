"""The commands that need no server: help, explain, and what is wrong before anything is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cronkeeper.domain.instants import parse_rfc3339, rfc3339
from cronkeeper.domain.job import JobSpec, JobType, next_fire
from cronkeeper_cli import doctor
from cronkeeper_cli.main import cli
from cronkeeper_cli.offline import fire_table

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"sqlalchemy", "flask", "kazoo", "boto3", "pydantic", "urllib3", "alembic", "rich", "yaml", "cronsim"}


def run(*argv: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(argv), input=stdin, prog_name="cronkeeper")


def all_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        found.append(path)
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, (*path, name))

    walk(cli, ())
    return found


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_command_has_help_and_examples(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    is_group = path in {("db",), ("secrets",), ("namespaces",), ("token",), ("import",), ("calendars",), ("key",)}
    assert is_group or "Examples:" in result.output
    assert f"cronkeeper {' '.join(path)}".strip() in result.output


def test_the_help_lists_what_was_promised() -> None:
    services = {"standalone", "api", "manager", "worker", "db", "doctor"}
    jobs = {"create", "edit", "list", "show", "delete", "pause", "resume", "run", "next", "validate", "explain"}
    jobs |= {"apply", "diff", "export", "import", "calendars"}
    admin = {
        "secrets",
        "key",
        "resign",
        "workers",
        "reassign",
        "cordon",
        "uncordon",
        "drain",
        "namespaces",
        "token",
        "audit",
        "forecast",
    }
    runs = {"runs", "logs", "cancel", "backfill", "why", "missed", "events"}
    assert services | jobs | runs | admin == set(cli.commands)


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom cronkeeper_cli.main import cli\n"
        "try:\n    cli(['--help'], prog_name='cronkeeper')\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    path = ":".join(str(ROOT / folder) for folder in ("core", "api", "manager", "worker", "cli"))
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "click" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "argv",
    [
        ("bogus",),
        ("create",),
        ("create", "--schedule", "@daily", "--command", "a", "--script", "b"),
        ("reassign", "--to", "w"),
        ("reassign", "1", "--from", "a", "--to", "b"),
        ("list", "-o", "xml"),
        ("list", "-l", "novalue"),
        ("run", "1", "--wait", "--timeout", "soon"),
        ("cancel", "not-a-run"),
        ("explain", "61 * * * *"),
        ("explain", "5 * * * *", "--timezone", "Europe/Berlyn"),
        ("explain", "5 * * * *", "--after", "tomorrow"),
        ("standalone", "--ephemeral", "--data-dir", "/nowhere", "--port", "1"),
        ("standalone", "--port", "0"),
        ("--url", "nonsense", "list"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_2(argv: tuple[str, ...]) -> None:
    result = run(*argv)
    assert result.exit_code == 2, result.output
    assert result.output.strip()


def test_explain_says_it_in_words_and_shows_the_clock_change() -> None:
    argv = ["explain", "30 2 * * *", "--timezone", "America/New_York", "--after", "2027-03-13T00:00:00Z"]
    result = run(*argv, "--count", "3")
    assert result.exit_code == 0
    assert result.output.startswith("At 02:30 every day (America/New_York)\n")
    assert "Sun 2027-03-14 03:00:00  Sun 2027-03-14 07:00:00" in result.output
    assert "goes forward by 1 hour at 2027-03-14T07:00:00Z" in result.output


def test_explain_as_json_has_the_shape_of_next() -> None:
    result = run("explain", "@every 90s", "--after", "2027-01-01T00:00:00Z", "--count", "2", "-o", "json")
    said = json.loads(result.output)
    assert said["next"] == ["2027-01-01T00:01:30Z", "2027-01-01T00:03:00Z"]
    assert said["words"].startswith("Every 1 minute 30 seconds")


def test_explain_resolves_h_for_a_job_s_name() -> None:
    asked = ["explain", "H H(0-7) * * *", "--after", "2027-01-01T00:00:00Z", "--count", "1", "-o", "json"]
    said = {who: json.loads(run(*asked, *who.split()).stdout) for who in ("", "--name a-1", "--name a-1 -n other")}
    times = {who: one["next"] for who, one in said.items()}
    job = JobSpec("true", "H H(0-7) * * *", JobType.COMMAND, name="a-1")
    assert times["--name a-1"] == [rfc3339(next_fire(job, parse_rfc3339("2027-01-01T00:00:00Z")) or 0)]
    assert times["--name a-1 -n other"] != times["--name a-1"]
    assert [any("--name" in note for note in one["notes"]) for one in said.values()] == [True, False, False]


def test_explain_points_at_the_fault() -> None:
    result = run("explain", "5 61 * * *")
    assert "  5 61 * * *\n    ^\n" in result.output


def test_the_table_of_fires_has_no_column_twice() -> None:
    titles = fire_table([0], "UTC", "UTC").splitlines()[0].split()
    assert titles == ["UTC"]
    three = fire_table([0], "Asia/Tokyo", "Europe/Berlin").splitlines()
    assert three[0].split() == ["Asia/Tokyo", "UTC", "Europe/Berlin", "(here)"]
    assert three[1].split() == [
        *("Thu", "1970-01-01", "09:00:00"),
        *("Thu", "1970-01-01", "00:00:00"),
        *("Thu", "1970-01-01", "01:00:00"),
    ]


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (doctor.cron_finding(frozenset({"bash", "cron"})), "ok     cron          cron is running"),
        (doctor.clock_finding(True, 0.012), "ok     clock         kept right, off by at most 12 ms"),
        (doctor.Finding("x", "gone\naway", fault=True, mend="mend it"), "FAULT  x             gone away; mend it"),
    ],
)
def test_the_doctor_says_one_line_each(finding: doctor.Finding, line: str) -> None:
    assert finding.line() == line


def test_the_doctor_judges() -> None:
    assert doctor.cron_finding(frozenset({"bash"})).mend
    assert doctor.groups_finding("no cgroup v2 is mounted here").mend
    assert not doctor.groups_finding("").mend
    assert doctor.clock_finding(False, 0.0).mend
    assert doctor.clock_finding(True, 5.0).mend
