"""Backfill over HTTP, on the doubles: what is created, what is left alone, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import Fire, Role
from cronkeeper_manager.auditor import Outcome, known_outcome
from tests.harness.api import NOON_MS, World, fields_of

HOUR_MS = 3_600_000
PATH = "/jobs/1/backfill"
#: Four fires of `5 * * * *`, the day before: 08:05 to 11:05.
RANGE = {"from": "2026-02-28T08:00:00Z", "to": "2026-02-28T12:00:00Z"}
FIRST_MS = NOON_MS - 28 * HOUR_MS + 300_000
HOURS = ["08", "09", "10", "11"]


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def ask(world: World, **fields: Any) -> dict[str, Any]:
    answer = world.call("POST", PATH, json={**RANGE, **fields})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def hours(items: list[dict[str, Any]]) -> list[str]:
    assert all(item["fire_time"].endswith(":05:00Z") for item in items)
    return [item["fire_time"][11:13] for item in items]


def record(world: World, hour: int, state: RunState, **fields: Any) -> None:
    key = RunKey(TaskId(1, 0), FIRST_MS + hour * HOUR_MS, 1)
    world.store.runs.record([Run(key, Trigger.TIMER, state, "node-3", f"n{hour}", **fields)])


def refused(world: World, **fields: Any) -> set[str]:
    answer = world.call("POST", PATH, json={**RANGE, **fields})
    assert answer.status_code == 422, answer.get_data(as_text=True)
    return fields_of(answer)


def test_each_fire_without_a_row_gets_a_pending_run_under_its_own_fire_time(world: World) -> None:
    world.post_job()
    record(world, 1, RunState.SUCCEEDED)
    record(world, 2, RunState.SKIPPED, reason=Reason.LATE)
    found = ask(world)
    assert hours(found["created"]) == ["08", "11"]
    assert {(run["state"], run["trigger"], run["attempt"]) for run in found["created"]} == {("pending", "manual", 1)}
    assert [(item["run_id"][-1], item["state"], item["reason"]) for item in found["existing"]] == [
        ("1", "succeeded", None),
        ("1", "skipped", "late"),
    ]
    rows = [run.key.fire_ms for run in world.store.runs.history(1, limit=10)]
    assert rows == [FIRST_MS + hour * HOUR_MS for hour in (3, 2, 1, 0)]


def test_asking_twice_creates_nothing_twice(world: World) -> None:
    world.post_job()
    assert hours(ask(world)["created"]) == HOURS
    again = ask(world)
    assert again["created"] == [] and hours(again["existing"]) == HOURS
    assert len(world.store.runs.history(1, limit=100)) == 4


def test_a_dry_run_shows_the_same_and_creates_nothing(world: World) -> None:
    world.post_job()
    shown = ask(world, dry_run=True)
    assert shown["dry_run"] is True and world.store.runs.history(1, limit=10) == []
    assert [run["id"] for run in shown["created"]] == [run["id"] for run in ask(world)["created"]]


def test_skipped_fires_are_run_again_as_the_next_attempt_if_asked_for(world: World) -> None:
    world.post_job()
    record(world, 0, RunState.FAILED)
    record(world, 1, RunState.SKIPPED, reason=Reason.LATE)
    found = ask(world, rerun_skipped=True)
    assert [(run["fire_time"][11:13], run["attempt"]) for run in found["created"]] == [("09", 2), ("10", 1), ("11", 1)]
    assert hours(found["existing"]) == ["08"]
    assert ask(world, rerun_skipped=True)["created"] == []


def test_fires_whose_grace_is_not_over_are_left_to_the_schedule(world: World) -> None:
    world.post_job(grace_s=3600)
    found = ask(world, **{"from": "2026-03-01T09:00:00Z", "to": "2026-03-01T14:00:00Z"})
    assert hours(found["created"]) == ["09", "10"]
    assert [instant[11:13] for instant in found["unsettled"]] == ["11", "12", "13"]


def test_every_shard_has_its_run_and_of_each_only_so_many_are_shown_to_workers(world: World) -> None:
    world.post_job(shards=2, concurrency="allow")
    assert len(ask(world, max_parallel=3)["created"]) == 8
    assert len(world.store.runs.pending([TaskId(1, 0)])) == 3
    assert len(world.store.runs.pending([TaskId(1, 0), TaskId(1, 1)])) == 6
    assert len(world.coordinator.queued(watch=False)) == 2


def test_the_range_takes_its_beginning_and_not_its_end(world: World) -> None:
    world.post_job()
    assert hours(ask(world, **{"from": "2026-02-28T09:05:00Z", "to": "2026-02-28T11:05:00Z"})["created"]) == [
        "09",
        "10",
    ]


def test_the_job_s_own_window_and_calendar_count(world: World) -> None:
    world.post_job(starts_at="2026-02-28T09:00:00Z", blackouts=[{"from": RANGE["to"], "to": "2026-02-28T13:00:00Z"}])
    assert hours(ask(world, to="2026-02-28T14:00:00Z")["created"]) == ["09", "10", "11", "13"]


def test_too_many_runs_are_refused_with_their_number(world: World) -> None:
    world.post_job(schedule="* * * * *", shards=2)
    answer = world.call("POST", PATH, json={"from": "2026-02-20T00:00:00Z", "to": "2026-02-25T00:00:00Z"})
    assert answer.status_code == 422 and fields_of(answer) == {"to"}
    assert "14400 runs" in answer.get_json()["errors"][0]["message"]
    assert world.store.runs.history(1, limit=10) == []


def test_ten_thousand_are_not_too_many(world: World) -> None:
    world.post_job(schedule="* * * * *")
    begin, end = "2026-02-20T00:00:00Z", "2026-02-26T22:40:00Z"
    assert len(ask(world, **{"from": begin, "to": end, "dry_run": True})["created"]) == 10_000
    assert refused(world, **{"from": begin, "to": "2026-02-26T22:41:00Z"}) == {"to"}


@pytest.mark.parametrize(
    ("job", "fields", "named"),
    [
        ({}, {"to": RANGE["from"]}, {"to"}),
        ({}, {"max_parallel": 2}, {"max_parallel"}),
        ({}, {"max_parallel": 0}, {"max_parallel"}),
        ({}, {"max_parallel": 101}, {"max_parallel"}),
        ({"concurrency": "replace"}, {}, {"concurrency"}),
        ({}, {"from": "yesterday"}, {"from"}),
        ({}, {"form": "2026-02-28T08:00:00Z"}, {"form"}),
    ],
)
def test_what_makes_no_sense_is_refused(
    world: World, job: dict[str, Any], fields: dict[str, Any], named: set[str]
) -> None:
    world.post_job(**job)
    assert refused(world, **fields) == named
    assert world.store.runs.history(1, limit=10) == []


def test_a_finished_job_a_missing_one_and_a_viewer_get_nothing(world: World) -> None:
    assert world.call("POST", PATH, json=RANGE).status_code == 404
    world.post_job()
    assert world.call("POST", PATH, json=RANGE, role=Role.VIEWER).status_code == 403
    world.call("DELETE", "/jobs/1")
    assert world.call("POST", PATH, json=RANGE).status_code == 409


def test_the_auditor_expects_no_such_run_and_takes_back_what_it_called_missed(world: World) -> None:
    world.post_job()
    key = RunKey.parse(ask(world)["created"][0]["id"])
    fire = Fire(key.task, key.fire_ms)
    assert world.store.audit.recorded(Fire(TaskId(0, 0), 0), NOON_MS, limit=10) == []
    assert known_outcome(world.store.audit.fates([fire])[fire], NOON_MS) is None
    run = world.store.runs.get(key).evolve(state=RunState.CLAIMED, worker="w", nonce="n", claimed_ms=NOON_MS)
    assert world.store.runs.claim_pending(run)
    world.store.runs.record([run.evolve(state=RunState.SUCCEEDED, started_ms=1, ended_ms=2)])
    told = known_outcome(world.store.audit.fates([fire])[fire], NOON_MS)
    assert told is not None and told.outcome is Outcome.RUN
    assert world.store.audit.recorded(Fire(TaskId(0, 0), 0), NOON_MS, limit=10) == []
