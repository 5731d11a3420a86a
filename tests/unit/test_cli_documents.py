"""Jobs in files and flags."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cronkeeper_cli.documents import editable, parse_job, parse_jobs
from cronkeeper_cli.edit import job_from_flags, with_comments, without_comments
from cronkeeper_cli.failures import CommandError
from cronkeeper_cli.session import parse_duration_s, parse_pairs


def test_json_and_yaml_and_several_documents() -> None:
    assert parse_job('{"schedule": "5 * * * *"}', "x.json") == {"schedule": "5 * * * *"}
    assert parse_job("schedule: 5 * * * *\n", "x.yaml") == {"schedule": "5 * * * *"}
    assert parse_jobs("- name: a\n- name: b\n", "x") == [{"name": "a"}, {"name": "b"}]
    assert parse_jobs("name: a\n---\nname: b\n---\n", "x") == [{"name": "a"}, {"name": "b"}]
    assert parse_jobs("{name: a}", "x.yaml") == [{"name": "a"}]


def test_yaml_keeps_its_hands_off_dates_and_switches() -> None:
    job = parse_job("starts_at: 2027-01-01T00:00:00Z\nname: on\nowner: no\nx: true\nschedule: 0 0 * * *\n", "x")
    assert job == {
        "starts_at": "2027-01-01T00:00:00Z",
        "name": "on",
        "owner": "no",
        "x": True,
        "schedule": "0 0 * * *",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "a", "name": "b"}', "twice"),
        ("name: a\nname: b\n", "twice"),
        ("", "holds no job"),
        ("just text", "a mapping of fields, found a text"),
        ("- 5\n", "found a number"),
        ("a: [", "x.json"),
        ("!!python/object/apply:os.system [id]", "x.json"),
        ("5: a\n", "a mapping of fields"),
    ],
)
def test_what_cannot_be_a_job_is_refused(text: str, said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        parse_jobs(text, "x.json")
    assert caught.value.exit_code == 2


def test_where_one_job_is_expected_two_are_refused() -> None:
    with pytest.raises(CommandError, match="2 jobs"):
        parse_job("- name: a\n- name: b\n", "x")


def test_only_what_the_user_may_change_is_edited() -> None:
    job = {"id": "1", "generation": 3, "status": "scheduled", "schedule": "5 * * * *", "name": None, "shards": 1}
    assert editable(job) == {"schedule": "5 * * * *", "shards": 1}


def test_a_job_from_flags() -> None:
    flags: dict[str, Any] = {
        "schedule": "@hourly",
        "command": "ls -la",
        "name": "listing",
        "env": ("A=1", "B=x=y"),
        "labels": ("team=core",),
        "timeout_s": 90.0,
        "retries": 2,
        "args": (),
        "run_as": None,
    }
    assert job_from_flags({}, flags) == {
        "type": "command",
        "executable": "ls -la",
        "schedule": "@hourly",
        "name": "listing",
        "env": {"A": "1", "B": "x=y"},
        "labels": {"team": "core"},
        "timeout_s": 90,
        "retry": {"limit": 2},
    }


def test_flags_win_over_the_file() -> None:
    base = {"schedule": "5 * * * *", "executable": "ls", "type": "command", "env": {"A": "1"}}
    assert job_from_flags(base, {"schedule": "@daily", "env": ("A=2",)}) == {
        "schedule": "@daily",
        "executable": "ls",
        "type": "command",
        "env": {"A": "2"},
    }


def test_a_script_is_sent_with_its_name(tmp_path: Path) -> None:
    script = tmp_path / "report.sh"
    script.write_bytes(b"#!/bin/sh\necho hi\n\xff")
    job = job_from_flags({}, {"schedule": "@daily", "script": str(script)})
    assert job["type"] == "script"
    assert job["filename"] == "report.sh"
    assert base64.b64decode(job["executable"]) == script.read_bytes()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"command": "a", "script": "b"}, "exclude each other"),
        ({"command": "a"}, "--schedule"),
        ({"schedule": "@daily"}, "--command"),
        ({"schedule": "@daily", "command": "a", "env": ("A",)}, "KEY=VALUE"),
        ({"schedule": "@daily", "binary": "/does/not/exist"}, "cannot read"),
    ],
)
def test_flags_that_do_not_add_up(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        job_from_flags({}, flags)
    assert caught.value.exit_code == 2


def test_faults_come_back_as_comments_and_leave_again() -> None:
    text = "# mine\nschedule: 61 * * * *\n"
    shown = with_comments(text, "The job is invalid\n  schedule: 61 is too much\x1b[2J")
    assert shown.startswith("#! Not saved:\n#! The job is invalid\n#!   schedule: 61 is too much\\x1b[2J\n")
    assert without_comments(shown) == text


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("0.5s", 0.5)])
def test_durations(text: str, expected: float) -> None:
    assert parse_duration_s(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-5s", "0", "1d2", "nan", "inf", "9999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - float's own words differ
        parse_duration_s(text)


def test_pairs() -> None:
    assert parse_pairs(("a=b", "c=", "d=e=f"), "--env") == {"a": "b", "c": "", "d": "e=f"}
