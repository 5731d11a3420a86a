"""`cronkeeper backfill` and `cronkeeper forecast` against the real API over HTTP, with SQLite behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from tests.integration.served_api import FIELDS, Api, serve

RANGE = ["--from", "2026-03-01T08:00:00Z", "--to", "2026-03-01T12:00:00Z"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


def test_the_past_is_made_up_for_once_by_name(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "listing")
    api.join("node-1")
    api.give("node-1", "1")
    shown = api.json("backfill", "listing", *RANGE, "--dry-run")
    assert [run["fire_time"][11:16] for run in shown] == ["08:05", "09:05", "10:05", "11:05"]
    assert api.json("runs", "listing") == []
    assert "4 created, 0 existing, 0 left to the schedule" in api.ok("backfill", "listing", *RANGE)
    assert "0 created, 4 existing" in api.ok("backfill", "listing", *RANGE)
    assert [run["id"] for run in api.json("runs", "listing")] == [run["id"] for run in reversed(shown)]


def test_the_store_shows_a_worker_one_after_the_other(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "listing")
    ids = [run["id"] for run in api.json("backfill", "listing", *RANGE)]
    task = TaskId(1, 0)
    for run_id in ids:
        (pending,) = api.store.runs.pending([task])
        assert str(pending.key) == run_id
        mine = Run(pending.key, Trigger.MANUAL, RunState.CLAIMED, "node-1", "n", 1, 40, claimed_ms=1)
        assert api.store.runs.claim_pending(mine)
        assert api.store.runs.pending([task]) == []
        api.store.runs.record([mine.evolve(state=RunState.SUCCEEDED, started_ms=2, ended_ms=3, exit_code=0)])
    assert api.store.runs.pending([task]) == []
    assert {run["state"] for run in api.json("runs", "listing")} == {"succeeded"}
    assert api.store.runs.get(RunKey.parse(ids[0])).fence == 40


def test_a_wrong_wish_ends_with_the_status_of_its_kind(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "listing")
    assert api.run("backfill", "nobody", *RANGE).exit_code == 3
    refused = api.run("backfill", "listing", *RANGE, "--max-parallel", "2")
    assert refused.exit_code != 0 and "max_parallel" in refused.output


def test_the_forecast_is_for_people_and_for_programs(api: Api) -> None:
    for number in range(12):
        api.ok("create", *FIELDS, "--name", f"listing-{number}")
    hour = ["--from", "2026-12-01T08:00:00Z", "--to", "2026-12-01T09:00:00Z"]
    shown = api.ok("forecast", *hour)
    assert shown.splitlines()[1].split() == ["2026-12-01T08:00:00Z", "12", "0"]
    assert "crowded: 2026-12-01T08:05:00Z 12 fires: 5 * * * * UTC (12)" in shown
    assert "quietest minutes of the hour: 0 1 2 3 4" in shown
    assert api.json("forecast", *hour, "--by", "minute")["buckets"][5]["fires"] == 12
    assert api.run("forecast", "--from", "2026-12-01T08:00:00Z", "--to", "2026-12-01T07:00:00Z").exit_code != 0
