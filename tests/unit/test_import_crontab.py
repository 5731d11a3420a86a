"""Crontabs become jobs that fire as cron would have fired them, and whatever cannot be kept is said."""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from cronkeeper_cli.crontab_text import Fate, Line, Settings, file_notes, mail_notes, read_crontab
from tests.unit.test_cli_commands import run

NOW = datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.UTC)


def read(text: str, **changes: object) -> list[Line]:
    return read_crontab(text, Settings("test", **changes), now=NOW)  # type: ignore[arg-type]


def one(text: str, **changes: object) -> Line:
    (line,) = read(f"{text}\n", **changes)
    return line


def job(text: str, **changes: object) -> dict[str, object]:
    line = one(text, **changes)
    assert line.job is not None, line.notes
    return line.job


# ------------------------------------------------------------------------------------------------- line by line


def test_a_line_keeps_its_schedule_word_for_word() -> None:
    assert job("*/5 9-17 * * mon-fri /usr/bin/true --all")["schedule"] == "*/5 9-17 * * mon-fri"


def test_a_command_begins_at_home_as_under_cron() -> None:
    assert job("5 * * * * ./backup.sh now")["executable"] == "cd && ./backup.sh now"


def test_a_percent_sign_begins_the_input(tmp_path: Path) -> None:
    executable = str(job(r"0 0 * * * cat - %first line%it's \% two")["executable"])
    done = subprocess.run(
        ["/bin/sh", "-c", executable], capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)}
    )
    assert done.stdout == "first line\nit's % two\n"


@pytest.mark.parametrize("command", ["x & pwd", "x; pwd", "x || pwd"])
def test_every_part_of_a_command_begins_at_home(command: str, tmp_path: Path) -> None:
    executable = str(job(f"0 0 * * * {command.replace('x', 'false')}")["executable"])
    done = subprocess.run(
        ["/bin/sh", "-c", executable], capture_output=True, text=True, cwd="/", env={"HOME": str(tmp_path)}, check=True
    )
    assert done.stdout == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("[ -x /opt/a ] && if [ ! -d /run/b ]; then /opt/a; fi", "a"),
        ("nice -n 19 ionice -c2 -n7 /usr/bin/restic backup", "restic"),
        ("PASS='s e c' X=1 borg create", "borg"),
        ('[ "$(date +%d)" = 01 ] && /opt/first', "first"),
        ("cd /srv && make >/dev/null 2>&1", "make"),
        ("for i in a b; do ping $i; done", "ping"),
    ],
)
def test_a_job_is_named_after_its_program(command: str, name: str) -> None:
    assert str(job(f"0 0 * * * {command}")["name"]).rsplit("-", 1)[0] == name


def test_an_input_without_a_line_is_no_input() -> None:
    assert job("0 0 * * * cat %")["executable"] == "cd && cat"


def test_a_nul_ends_a_line() -> None:
    lines = read("0 0 * * * x\0# y\n0 1 * * * x\0y\n# z\0 0 2 * * * x\n")
    assert [(line.number, line.fate, line.spoils) for line in lines] == [
        (1, Fate.IMPORTED, False),
        (2, Fate.IMPORTED, False),
        (2, Fate.REFUSED, True),
    ]
    assert [line.spoils for line in read("0 0 * * * x\0\0\n")] == [False, True]


def test_only_a_line_feed_ends_a_line() -> None:
    (line,) = read("0 0 * * * echo a\x0bb\x85c\u2028d\n")
    assert line.job is not None
    assert line.job["executable"] == "cd && echo a\x0bb\x85c\u2028d"


def test_a_carriage_return_at_the_end_is_left_out_and_told() -> None:
    (line,) = read('A="b"\r\n0 0 * * * x -y\r\n')
    assert line.fate is Fate.CHANGED
    assert line.job is not None
    assert (line.job["executable"], line.job["env"]) == ("cd && x -y", {"A": "b"})
    assert "carriage return" in line.notes[0]


@pytest.mark.parametrize(
    ("column", "spoils"), [("0 0 * * * root", True), ("0 0 * * * root ", False), ("@daily x", True)]
)
def test_a_system_entry_needs_a_command(column: str, spoils: bool) -> None:
    line = one(column, user_column=True)
    assert (line.fate, line.spoils) == (Fate.REFUSED, spoils)
    assert "it has no command" in line.notes[0]


@pytest.mark.parametrize("line", ["0 0 12 * * ? /opt/x", "0 0 * * * root /opt/x", "0 0 * * * * x"])
def test_a_sixth_field_or_a_user_out_of_place_is_told(line: str) -> None:
    assert "its command begins with" in one(line).notes[-1]


def test_another_shell_is_kept() -> None:
    lines = read("SHELL=/bin/bash\n0 0 * * * [[ 1 == 1 ]] && echo 'a b'\n")
    assert lines[0].job is not None
    assert shlex.split(str(lines[0].job["executable"]))[2:] == ["/bin/bash", "-c", "[[ 1 == 1 ]] && echo 'a b'"]


def test_variables_hold_for_the_lines_below_them() -> None:
    first, second = read('0 0 * * * a\nPATH = /opt/bin\nMSG="two words"\nMAILTO=me\n0 0 * * * b\n')
    assert first.job is not None
    assert second.job is not None
    assert "env" not in first.job
    assert second.job["env"] == {"PATH": "/opt/bin", "MSG": "two words"}


def test_a_system_crontab_names_its_users() -> None:
    made = job("17 * * * * root cd / && run-parts --report /etc/cron.hourly", user_column=True)
    assert made["run_as"] == "root"
    assert str(made["name"]).startswith("run-parts-")


def test_a_users_crontab_runs_as_that_user() -> None:
    assert job("0 0 * * * x", user="alice")["run_as"] == "alice"


def test_what_cron_misreads_is_imported_as_cron_reads_it() -> None:
    line = one("15 4 * * 1#2 x")
    assert (line.fate, line.job and line.job["schedule"]) == (Fate.CHANGED, "15 4 * * 1")
    assert "cron reads '15 4 * * 1#2' as '15 4 * * 1'" in line.notes[0]


def test_what_runs_when_the_machine_starts_is_told_to_run_on_every_node_that_fits() -> None:
    line = one("@reboot x")
    assert line.fate is Fate.CHANGED
    assert line.job is not None
    assert (line.job["schedule"], line.job["executable"], "timezone" in line.job) == ("@reboot", "cd && x", False)
    assert "selector" in line.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@reboot", "it has no command"),
        ("0 0 30 2 * x", "never fires"),
        ("5-1 * * * * x", "never fires"),
        ("L * * * * x", "refuses it"),
        ("0 0 * * *", "it has no command"),
        ("0 0 * * *  ", "it has no command"),
        ("@Daily x", "in small letters only: @daily"),
        ("@every_minute x", "for other crons"),
        ("-*/15 * * * * x", "keeps other crons from logging"),
        ("export A=b", "no shell script"),
        ("A=", 'write A=""'),
        ("0 0 * * * " + "x" * 999, "longer than the 998 bytes"),
        ("\r", "not blank to cron"),
        ("\f0 0 * * * x", "'\\x0c0' is not a value"),
        ("\ufeff0 0 * * * x", "byte order mark"),
        ("hello world", "neither an entry nor a variable"),
    ],
)
def test_what_is_not_imported_says_why(text: str, said: str) -> None:
    line = one(text)
    assert line.fate is Fate.REFUSED
    assert line.job is None
    assert any(said in note for note in line.notes), line.notes


def test_a_disabled_entry_is_named_and_a_comment_is_not() -> None:
    lines = read(
        "# m h dom mon dow command\n#0 5 * * 1 tar -zcf /var/backups/home.tgz /home/\n# just words here\n"
        "# * * * * * user-name command to be executed\n# * * * * * <command>\n"
    )
    assert [(line.number, line.fate) for line in lines] == [(2, Fate.DISABLED)]


def test_cron_tz_counts_only_when_told() -> None:
    text = "CRON_TZ=Asia/Tokyo\n0 9 * * * x\n"
    (plain,) = read(text)
    (heeded,) = read(text, heed_cron_tz=True)
    assert plain.job is not None
    assert heeded.job is not None
    assert "timezone" not in plain.job
    assert "CRON_TZ" in plain.notes[0]
    assert heeded.job["timezone"] == "Asia/Tokyo"


def test_a_name_stays_when_the_line_moves_or_its_schedule_changes() -> None:
    first = job("0 0 * * * /opt/backup --full")["name"]
    assert job("30 4 * * * /opt/backup --full")["name"] == first
    assert job("0 0 * * * /opt/backup --incremental")["name"] != first
    names = [line.job["name"] for line in read("0 0 * * * same\n0 1 * * * same\n") if line.job]
    assert names == [names[0], f"{names[0]}-2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0 * * * x", "it does not end with a line end"),
        ("0 0 * * * x\nA=b", "it does not end with a line end"),
        ("0 0 * * * x\n# c", ""),
        ("0 0 * * * x\n \t", ""),
        ("0 0 * * * x\nMAILTO=\n", "see line 2"),
        ("0 0 * * * x\n61 0 * * * x", "see line 2"),
        ("@reboot x\n0 0 30 2 * x\n0 0 * * *\n", ""),
    ],
)
def test_it_is_told_once_that_cron_ignores_the_whole_file(text: str, said: str) -> None:
    notes = file_notes(text, read(text))
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [("MAILTO=\n0 0 * * * x\n", []), ("MAILTO=a@b\n", ["to a@b"]), ("0 0 * * * x\n", ["to the owner"])],
)
def test_who_got_mail_is_told(text: str, said: list[str]) -> None:
    notes = mail_notes(text)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


# --------------------------------------------------------------------------------------------------- the command


def test_the_command_reports_and_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tab"
    file.write_text("0 3 * * * /opt/backup\n@reboot x\n")
    result = run("import", "crontab", str(file), "--timezone", "Europe/Berlin")
    assert result.exit_code == 0, result.output
    assert "1 imported, 1 changed" in result.output
    assert "dry run" in result.output
    jobs = json.loads(run("import", "crontab", str(file), "--timezone", "UTC", "-o", "json").output)
    found = [(one["schedule"], one["executable"]) for one in jobs]
    assert found == [("0 3 * * *", "cd && /opt/backup"), ("@reboot", "cd && x")]
    assert jobs[0]["labels"] == {"imported-from": "tab"}


def test_bytes_that_are_no_text_matter_in_entries_only(tmp_path: Path) -> None:
    file = tmp_path / "tab"
    file.write_bytes(b"# caf\xe9\n0 3 * * * /opt/caf\xe9\n0 4 * * * /opt/tea\r\n")
    result = run("import", "crontab", str(file))
    assert result.exit_code == 0, result.output
    assert "1 changed, 1 refused" in result.output
    assert "/opt/caf\\xe9" in result.output
    assert "it is not UTF-8 text" in result.output


def test_one_entry_that_the_api_would_refuse_does_not_stop_the_others(tmp_path: Path) -> None:
    file = tmp_path / "tab"
    file.write_text("0 3 * * * no/such/account x\n0 4 * * * root x\n")
    result = run("import", "crontab", str(file), "--system")
    assert result.exit_code == 0, result.output
    assert "1 imported, 1 refused" in result.output
    assert "run_as" in result.output


def test_the_jobs_of_an_import_are_sound_for_the_api(tmp_path: Path) -> None:
    file = tmp_path / "tab"
    file.write_text("0 3 * * * /opt/backup %in\n")
    (tmp_path / "jobs.yaml").write_text(run("import", "crontab", str(file), "-o", "yaml").output)
    assert run("validate", "-f", str(tmp_path / "jobs.yaml")).exit_code == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "name a FILE"),
        (("tab", "-u", "root"), "name a FILE"),
        (("/nonexistent/tab",), "cannot read"),
        (("-", "--timezone", "Mars/Base"), "not a zone"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(argv: tuple[str, ...], said: str) -> None:
    result = run("import", "crontab", *argv, stdin="")
    assert result.exit_code == 2
    assert said in result.output
