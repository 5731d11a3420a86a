"""Jobs as a crontab that works without us, and what `apply` says it does."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from cronkeeper_cli.crontab_export import export_crontab
from cronkeeper_cli.crontab_text import Fate, Settings, read_crontab
from cronkeeper_cli.declare import by_namespace, change_lines

JOB: dict[str, Any] = {
    "id": "7",
    "name": "backup",
    "status": "scheduled",
    "type": "command",
    "executable": "date +%F >>log",
    "schedule": "5 3 * * 1-5",
    "timezone": "UTC",
    "shards": 1,
}


def lines(user: str | None = None, **changes: Any) -> list[str]:
    return export_crontab([{**JOB, **changes}], timezone="UTC", user=user).splitlines()


def test_a_plain_job_is_a_plain_line() -> None:
    assert lines()[-2:] == ["# job 7, backup", r"5 3 * * 1-5 date +\%F >>log"]


def test_a_system_crontab_names_the_user() -> None:
    assert lines(user="root")[-1].startswith("5 3 * * 1-5 root ")
    assert lines(user="root", run_as="app")[-1].startswith("5 3 * * 1-5 app ")


def test_variables_and_arguments_travel_quoted() -> None:
    made = lines(executable="tool", args=["a b"], env={"X": "1 2"})[-1]
    assert made == """5 3 * * 1-5 X='1 2' /bin/sh -c 'tool '"'"'a b'"'"''"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "@every 90s"}, "cron cannot say @every 90s"),
        ({"schedule": "0 */5 * * * *"}, "cron cannot say"),
        ({"timezone": "Asia/Tokyo"}, "by the clock of Asia/Tokyo"),
        ({"type": "script", "executable": "s3://b/x"}, "in the object store"),
        ({"shards": 3}, "3 shards"),
        ({"status": "paused"}, "it is paused"),
        ({"executable": "x" * 2000}, "longer than"),
    ],
)
def test_what_a_crontab_cannot_say_stands_in_it_as_a_comment(changes: dict[str, Any], said: str) -> None:
    made = lines(**changes)
    assert made[-1].startswith("# not exported: ")
    assert said in made[-1]


def test_what_is_exported_can_be_imported_and_fires_the_same() -> None:
    text = export_crontab([JOB, {**JOB, "id": "8", "schedule": "@daily"}], timezone="UTC", user=None)
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    read = read_crontab(text, Settings("x"), now=now)
    assert [(line.fate, line.job and line.job["schedule"]) for line in read] == [
        (Fate.IMPORTED, "5 3 * * 1-5"),
        (Fate.IMPORTED, "@daily"),
    ]


def test_jobs_are_applied_namespace_by_namespace() -> None:
    jobs = [{"name": "a"}, {"name": "b", "namespace": "x"}, {"name": "c"}]
    assert by_namespace(jobs, "default") == {"default": [jobs[0], jobs[2]], "x": [jobs[1]]}


def test_a_change_shows_its_fields_and_next_fires() -> None:
    answer = {
        "dry_run": True,
        "created": [{"name": "new", "id": None, "next_before": [], "next_after": ["2026-01-01T00:00:00Z"]}],
        "changed": [{"name": "old", "id": "1", "fields": {"schedule": {"from": "@daily", "to": "@hourly"}}}],
        "unchanged": [{"name": "same", "id": "2"}],
        "pruned": [{"name": "gone", "id": "3"}],
    }
    assert change_lines(answer) == [
        "+ new: would be created",
        "    next after: 2026-01-01T00:00:00Z",
        "~ old: would be changed",
        "    schedule: @daily -> @hourly",
        "- gone: would be pruned",
        "1 unchanged",
    ]
