"""`cronkeeper calendars`, against the real API over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.served_api import FIELDS, Api, serve


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


def test_a_calendar_goes_from_a_file_into_jobs_and_back(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "bank.yaml"
    file.write_text("description: Banks\nexclude:\n- 2126-12-24/2126-12-26\ninclude: []\n")
    made = api.json("calendars", "set", "bank", "-f", str(file))
    assert (made["created"], made["changed"], made["calendar"]["exclude"]) == (True, 0, ["2126-12-24/2126-12-26"])
    job = tmp_path / "job.yaml"
    job.write_text('{name: a, executable: "true", schedule: "0 9 24 12 *", type: command, calendar: {named: [bank]}}')
    api.ok("apply", "-f", str(job))
    api.ok("diff", "--exit-code", "-f", str(job))
    exported = tmp_path / "exported.yaml"
    exported.write_text(api.ok("export"))
    assert "named_dates" not in exported.read_text()
    api.ok("diff", "--exit-code", "-f", str(exported))
    api.ok("validate", "-f", str(exported))
    shown = tmp_path / "shown.json"
    shown.write_text(api.ok("calendars", "show", "bank", "-o", "json"))
    assert api.json("calendars", "set", "bank", "-f", str(shown))["calendar"]["generation"] == 1
    file.write_text("exclude: [2126-12-25]\n")
    told = api.ok("calendars", "set", "bank", "-f", str(file), "--dry-run")
    assert "1 job would be changed" in told
    assert api.json("show", "a")["generation"] == 1
    assert "1 job changed" in api.ok("calendars", "set", "bank", "-f", str(file))
    assert api.json("show", "a")["named_dates"] == {"bank": {"exclude": ["2126-12-25"], "include": []}}
    assert api.ok("calendars", "list", "-o", "name").split() == ["bank"]
    assert api.json("calendars", "refresh")["looked"] == 1
    refused = api.run("calendars", "delete", "bank")
    assert (refused.exit_code, "the jobs a" in refused.output) == (4, True)
    api.ok("delete", "a", "--purge")
    api.ok("calendars", "delete", "bank")
    assert api.run("calendars", "show", "bank").exit_code == 3


def test_what_is_wrong_in_a_file_is_named(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "bank.yaml"
    file.write_text("exclude: [2026-02-30]\nexcluded: []\n")
    refused = api.run("calendars", "set", "bank", "-f", str(file))
    assert refused.exit_code == 2
    assert "excluded" in refused.output
    file.write_text("exclude: [2026-02-30]\n")
    assert "exclude[0]" in api.run("calendars", "set", "bank", "-f", str(file)).output
    refused = api.run("create", *FIELDS, "--name", "x", "-f", str(_job(tmp_path)))
    assert "calendar.named[0]" in refused.output


def _job(folder: Path) -> Path:
    path = folder / "job.json"
    path.write_text('{"calendar": {"named": ["nowhere"]}}')
    return path
