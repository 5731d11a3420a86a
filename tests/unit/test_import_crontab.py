"""Crontabs become jobs that fire as cron would have fired them, and whatever cannot be kept is said."""

from __future__ import annotations

import datetime
import json
import shlex
import subprocess
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.instants import to_ms
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper_cli import vixie
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


# ------------------------------------------------------------------------------------------------ what cron reads


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("1#2 * * * *", "1 * * * *"),
        ("1.5 * * * *", "1 * * * *"),
        ("*foo * * * *", "* * * * *"),
        ("5-10-20 * * * *", "5-10 * * * *"),
        ("*/5/2 * * * *", "*/5 * * * *"),
        ("*/99 3 * * *", "0 3 * * *"),
        ("0 0 * * 1,7", "0 0 * * 0,1"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * jan,MAR mon-fri", "0 0 * 1,3 1-5"),
        ("@hourly", "0 * * * *"),
        ("0~59 * * * *", "0 * * * *"),
        ("4294967296 * * * *", "0 * * * *"),
        ("\t5\t\t4 * *  *", "5 4 * * *"),
    ],
)
def test_cron_drops_garbage_and_wraps_sunday(said: str, meant: str) -> None:
    assert vixie.read(said).text == meant


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ("A=b", ("A", "b")),
        (" A = b c \t\r", ("A", "b c")),
        ("A='b c '  ", ("A", "b c ")),
        ('"A b"="c"', ("A b", "c")),
        ('A=b "c"', ("A", 'b "c"')),
        ("A=b=c#d", ("A", "b=c#d")),
        ('A"B=c', ('A"B', "c")),
        ("A=''", ("A", "")),
        ("=b", ("", "b")),
        ("A=" + "x" * 1500, ("A", "x" * 996)),
        ("A=", None),
        ("A = \t", None),
        ('A="b" c', None),
        ('A="b', None),
        ('"x=y"=z', None),
        ("a b=c", None),
        ("0 5 * * * A=b c", None),
        ("@daily A=b c", None),
    ],
)
def test_a_variable_is_what_cron_makes_of_it(line: str, variable: tuple[str, str] | None) -> None:
    assert vixie.variable(line) == variable


@pytest.mark.parametrize(
    ("said", "command", "given"),
    [
        (r"a\%b", "a%b", ""),
        (r"grep '\\.txt$'", r"grep '\.txt$'", ""),
        (r"a\\%b", "a\\", "b\n"),
        (r"a\\\%b", r"a\%b", ""),
        ("a%", "a", ""),
        ("a%%", "a", "\n"),
        ("a %  b %c%", "a ", "  b \nc\n"),
        (r"a%b\\%c\d", "a", "b\\%c\\d\n"),
        ("a\\", "a\\", ""),
    ],
)
def test_backslashes_and_percent_signs_are_what_cron_makes_of_them(said: str, command: str, given: str) -> None:
    assert vixie.split_input(said) == (command, given)


@given(st.text(alphabet="\\\\%a ", max_size=12))
def test_a_command_survives_the_way_into_a_crontab_and_back(command: str) -> None:
    assert vixie.split_input(vixie.as_command(command)) == (command, "")


@pytest.mark.parametrize(
    "said", ["L * * * *", "? * * * *", "1/20 * * * *", "1,,2 * * * *", "0 24 * * *", "* * * *", "0\u00a00 * * *"]
)
def test_what_cron_refuses_is_refused(said: str) -> None:
    with pytest.raises(vixie.VixieError):
        vixie.read(said)


_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "Asia/Kathmandu")


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    span = st.tuples(value, value).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(2, (high - low) // 2).map(lambda number: f"*/{number}")
    return st.one_of(st.just("*"), value.map(str), st.lists(value, min_size=2, max_size=3).map(_comma), span, step)


def _comma(values: list[int]) -> str:
    return ",".join(map(str, values))


@given(
    fields=st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 6)),
    zone=st.sampled_from(_ZONES),
    start_s=st.integers(1_560_000_000, 1_860_000_000),
)
@settings(max_examples=60, deadline=None)
def test_our_fires_are_those_of_cron(fields: tuple[str, ...], zone: str, start_s: int) -> None:
    start = datetime.datetime.fromtimestamp(start_s, datetime.UTC)
    text = " ".join(fields)
    theirs = [to_ms(instant) for instant in vixie.read(text).fires(start, ZoneInfo(zone), 200)]
    ours = parse_schedule(text, zone).fire_times(to_ms(start), theirs[-1] if theirs else to_ms(start), limit=400)
    assert ours == theirs


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


def test_an_input_without_a_line_is_no_input() -> None:
    assert job("0 0 * * * cat %")["executable"] == "cd && cat"


def test_a_nul_ends_a_line() -> None:
    lines = read("0 0 * * * x\0# y\n0 1 * * * x\0y\n# z\0 0 2 * * * x\n")
    assert [(line.number, line.fate, line.spoils) for line in lines] == [
        (1, Fate.IMPORTED, False),
        (2, Fate.IMPORTED, False),
        (2, Fate.REFUSED, True),
    ]


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@reboot x", "@reboot"),
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
    assert "1 imported, 1 refused" in result.output
    assert "dry run" in result.output
    jobs = json.loads(run("import", "crontab", str(file), "--timezone", "UTC", "-o", "json").output)
    assert [(one["schedule"], one["executable"]) for one in jobs] == [("0 3 * * *", "cd && /opt/backup")]
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
