"""The fleet's forecast over HTTP, on the doubles: which jobs count, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Role
from tests.harness.api import NOON_MS, World, fields_of


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def ask(world: World, **query: str) -> dict[str, Any]:
    answer = world.call("GET", "/forecast", role=Role.VIEWER, query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def total(found: dict[str, Any]) -> float:
    return float(sum(bucket["fires"] for bucket in found["buckets"]))


def test_unless_told_it_is_the_day_from_now_by_hour(world: World) -> None:
    world.post_job(shards=2)
    found = ask(world)
    assert (found["from"], found["to"], found["by"]) == ("2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "hour")
    assert [bucket["fires"] for bucket in found["buckets"]] == [2] * 24
    assert (found["jobs"], found["tasks"], found["unmeasured"]) == (1, 2, 2)
    assert 5 not in found["quiet_minutes"]


def test_only_active_jobs_of_the_namespace_and_tasks_of_the_worker_count(world: World) -> None:
    world.post_job(shards=2)
    world.post_job(namespace="other")
    world.post_job()
    world.call("POST", "/jobs/3/pause")
    given = [
        Assignment(TaskId(1, 1), "node-1", 1, 1, MoveReason.NEW, 0),
        Assignment(TaskId(2, 0), "", 1, 1, MoveReason.NEW, 0),
    ]
    world.store.assignments.save(given, term=world.store.terms.take("m1"))
    assert total(ask(world)) == 72
    assert total(ask(world, namespace="other")) == 24
    assert total(ask(world, worker="node-1")) == 24
    assert total(ask(world, worker="node-1", namespace="other")) == total(ask(world, worker="node-2")) == 0


def test_load_comes_from_the_last_run_of_each_job(world: World) -> None:
    world.post_job()
    key = RunKey(TaskId(1, 0), NOON_MS - 3_300_000, 1)
    run = Run(key, Trigger.TIMER, RunState.SUCCEEDED, "w", "n", started_ms=1000, ended_ms=1000 + 1_800_000)
    world.store.runs.record([run])
    found = ask(world, to="2026-03-01T14:00:00Z")
    assert (found["unmeasured"], [bucket["load"] for bucket in found["buckets"]]) == (0, [0.5, 0.5])


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"by": "day"}, {"by"}),
        ({"from": "noon"}, {"from"}),
        ({"to": "2026-03-01T11:00:00Z"}, {"to"}),
        ({"to": "2026-03-09T11:00:00Z"}, {"to"}),
        ({"job": "1"}, {"job"}),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, query: dict[str, str], named: set[str]) -> None:
    answer = world.call("GET", "/forecast", query_string=query)
    assert answer.status_code in (400, 422) and fields_of(answer) == named
