"""Runs over HTTP on the doubles: on demand, history, output, live tail, cancel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import Role
from tests.harness.api import NOON_MS, World, fields_of

TASK = TaskId(1, 0)


@pytest.fixture
def world() -> Iterator[World]:
    found = World(threads=4)
    found.post_job(shards=2)
    yield found
    found.close()


def _record(world: World, fire_ms: int, state: RunState = RunState.SUCCEEDED, output: bytes = b"") -> Run:
    run = Run(
        RunKey(TASK, fire_ms, 1), Trigger.TIMER, state, worker="node-3", nonce="n", claimed_ms=fire_ms + 4,
        started_ms=fire_ms + 11, output_bytes=len(output),
    )  # fmt: skip
    world.store.runs.record([run])
    if output:
        world.store.runs.append_output(run.key, offset=0, data=output)
    return run


def test_a_run_on_demand_is_pending_in_both_stores(world: World) -> None:
    answer = world.call("POST", "/jobs/1/run", json={"shard": 1})
    assert answer.status_code == 202
    body = answer.get_json()
    assert (body["state"], body["trigger"], body["shard"], body["attempt"]) == ("pending", "manual", 1, 1)
    key = RunKey.parse(body["id"])
    assert world.store.runs.get(key).state is RunState.PENDING
    assert [item.key for item in world.coordinator.queued()] == [key]
    assert answer.headers["Location"] == f"/runs/{key}"


def test_every_shard_runs_unless_one_is_named(world: World) -> None:
    answer = world.call("POST", "/jobs/1/run")
    assert [run["shard"] for run in answer.get_json()] == [0, 1]


def test_a_run_on_demand_never_takes_a_scheduled_fire_s_place(world: World) -> None:
    # the clock stands on a whole second, as every scheduled fire does
    assert world.clock.now_ms() % 1000 == 0
    ids = [world.call("POST", "/jobs/1/run", json={"shard": 0}).get_json()["id"] for _ in range(3)]
    fires = [RunKey.parse(run_id).fire_ms for run_id in ids]
    assert all(fire_ms % 1000 for fire_ms in fires)
    assert len(set(fires)) == 3


def test_zookeeper_away_does_not_stop_a_run_on_demand(world: World) -> None:
    world.coordinator.cut()
    assert world.call("POST", "/jobs/1/run", json={"shard": 0}).status_code == 202


def test_history_is_paged_newest_first(world: World) -> None:
    for number in range(5):
        _record(world, NOON_MS + number * 1000)
    seen, path = [], "/jobs/1/runs?limit=2"
    while path:
        answer = world.call("GET", path, role=Role.VIEWER)
        seen += [run["fire_time"] for run in answer.get_json()]
        path = answer.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert seen == [f"2026-03-01T12:00:0{number}Z" for number in (4, 3, 2, 1, 0)]


def test_a_run_has_the_contract_s_shape(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING)
    body = world.call("GET", f"/runs/{run.id}").get_json()
    assert {key: body[key] for key in body if key not in ("output_bytes", "cancel_requested")} == {
        "id": run.id,
        "job_id": "1",
        "fire_time": "2026-03-01T12:00:00Z",
        "attempt": 1,
        "shard": 0,
        "trigger": "timer",
        "state": "running",
        "reason": None,
        "worker": "node-3",
        "claimed_at": "2026-03-01T12:00:00.004Z",
        "started_at": "2026-03-01T12:00:00.011Z",
        "ended_at": None,
        "exit_code": None,
        "signal": None,
        "autonomous": False,
        "output_tail": "",
    }


def test_the_log_is_the_bytes_so_far(world: World) -> None:
    run = _record(world, NOON_MS, output=b"0123456789")
    answer = world.call("GET", f"/runs/{run.id}/log", role=Role.VIEWER)
    assert (answer.data, answer.mimetype, answer.headers["X-Run-State"]) == (b"0123456789", "text/plain", "succeeded")
    assert world.call("GET", f"/runs/{run.id}/log?offset=7").data == b"789"
    assert world.call("GET", f"/runs/{run.id}/log?tail=4").data == b"6789"
    assert world.call("GET", f"/runs/{run.id}/log?tail=400").data == b"0123456789"


def test_a_live_tail_ends_with_the_run_and_misses_nothing(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING, b"begin ")
    answer = world.call("GET", f"/runs/{run.id}/log?follow=1")
    assert answer.headers["X-Run-State"] == "running"
    chunks = answer.iter_encoded()
    assert next(chunks) == b"begin "
    assert next(chunks) == b""
    world.store.runs.append_output(run.key, offset=6, data=b"middle ")
    assert next(chunks) == b"middle "
    world.store.runs.append_output(run.key, offset=13, data=b"end")
    world.store.runs.record([run.evolve(state=RunState.SUCCEEDED, ended_ms=NOON_MS + 5000, exit_code=0)])
    assert b"".join(chunks) == b"end"
    answer.close()


def test_a_live_tail_ends_when_its_time_is_over(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING)
    before = world.clock.boot_s()
    with world.call("GET", f"/runs/{run.id}/log?follow=1") as answer:
        assert answer.data == b""
    assert 3600 <= world.clock.boot_s() - before < 3602


def test_a_live_tail_ends_when_the_server_does(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING, b"x")
    world.services.stopping.set()
    assert world.call("GET", f"/runs/{run.id}/log?follow=1").data == b"x"


def test_live_tails_leave_threads_for_others(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING)
    path = f"/runs/{run.id}/log?follow=1"
    first, second = world.call("GET", path), world.call("GET", path)
    refused = world.call("GET", path)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    first.close()
    assert world.call("GET", path).status_code == 200
    second.close()


def test_a_pending_run_is_cancelled_at_once(world: World) -> None:
    run_id = world.call("POST", "/jobs/1/run", json={"shard": 0}).get_json()["id"]
    answer = world.call("POST", f"/runs/{run_id}/cancel")
    assert (answer.status_code, answer.get_json()["state"]) == (202, "cancelled")
    assert world.call("POST", f"/runs/{run_id}/cancel").status_code == 409


def test_a_run_in_progress_is_asked_to_end(world: World) -> None:
    run = _record(world, NOON_MS, RunState.RUNNING)
    body = world.call("POST", f"/runs/{run.id}/cancel").get_json()
    assert (body["state"], body["cancel_requested"]) == ("running", True)
    assert world.store.runs.cancellations("node-3") == [run.key]


@pytest.mark.parametrize(
    "path", ["/runs/x", "/runs/1-0-1772366400000-1", "/runs/1-0-1772366400000-1/log", "/jobs/9/runs"]
)
def test_what_is_not_there_is_404(path: str, world: World) -> None:
    assert world.call("GET", path).status_code == 404


def test_a_reason_is_shown(world: World) -> None:
    run = Run(RunKey(TASK, NOON_MS, 1), Trigger.CRON, RunState.SKIPPED, worker="w", nonce="n", reason=Reason.OVERLAP)
    world.store.runs.record([run])
    assert world.call("GET", f"/runs/{run.id}").get_json()["reason"] == "overlap"


def test_a_shard_that_is_not_there_is_named(world: World) -> None:
    answer = world.call("POST", "/jobs/1/run", json={"shard": 2})
    assert (answer.status_code, fields_of(answer)) == (422, {"shard"})
