"""Why, missed and events over HTTP, on the doubles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import AuditMark, Event, Fire, Missed, Role
from tests.harness.api import NOON_MS, World, fields_of

MINUTE_MS = 60_000
#: The first fire of a job that is created at noon: five past.
FIVE_PAST_MS = NOON_MS + 5 * MINUTE_MS


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    found.post_job(grace_s=60)
    yield found
    found.close()


def why(world: World, at: str | None = None, job_id: int = 1) -> dict[str, Any]:
    query = {} if at is None else {"at": at}
    answer = world.call("GET", f"/jobs/{job_id}/why", role=Role.VIEWER, query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def brief(found: dict[str, Any]) -> tuple[str, bool, str, str | None]:
    return found["fire_time"], found["due"], found["decision"], found["reason"]


def at(minutes: int) -> str:
    return f"2026-03-01T{12 + minutes // 60:02}:{minutes % 60:02}:00Z"


def record(world: World, state: RunState, fire_ms: int = FIVE_PAST_MS, *, shard: int = 0, **fields: Any) -> Run:
    key = RunKey(TaskId(1, shard), fire_ms, fields.pop("attempt", 1))
    values: dict[str, Any] = {"worker": "node-3", "nonce": f"n{key}", "claimed_ms": fire_ms + 4} | fields
    run = Run(key, values.pop("trigger", Trigger.TIMER), state, **values)
    world.store.runs.record([run])
    return run


def audited(world: World, *missed: Missed, minutes: int, **mark: Any) -> None:
    """The auditor has come so far (minutes after noon), and found these."""
    term = world.store.terms.take("m1")
    decided_ms = NOON_MS + minutes * MINUTE_MS
    world.store.audit.save(
        AuditMark(decided_ms=decided_ms, beat_ms=decided_ms, **mark), missed=missed, withdrawn=(), events=(), term=term
    )
    world.clock.advance_ms(decided_ms - world.clock.now_ms())


def missed_fire(shard: int = 0, *, reason: str = "no_worker_fits", held: bool = False) -> Missed:
    return Missed(Fire(TaskId(1, shard), FIVE_PAST_MS), reason, "nobody has zone=mars", NOON_MS, held)


def test_a_fire_that_ran_has_the_contract_s_shape(world: World) -> None:
    run = record(world, RunState.SUCCEEDED, exit_code=0)
    world.clock.advance_ms(10 * MINUTE_MS)
    found = why(world, at(5))
    assert brief(found) == (at(5), True, "run", None)
    assert [item["id"] for item in found["runs"]] == [run.id]
    assert found["words"] == "It ran on node-3: succeeded, exit code 0."
    assert (found["previous_fire"], found["next_fire"]) == (None, at(65))


def test_a_skip_has_its_reason_and_a_mend(world: World) -> None:
    record(world, RunState.SKIPPED, reason=Reason.SUPERSEDED)
    found = why(world, at(5))
    assert brief(found) == (at(5), True, "skipped", "late")
    assert "superseded" in found["words"] and "grace_s" in found["words"]


def test_a_fire_that_failed_and_whose_retry_was_skipped_has_run(world: World) -> None:
    record(world, RunState.FAILED, exit_code=3)
    record(world, RunState.SKIPPED, attempt=2, trigger=Trigger.RETRY, reason=Reason.PAUSED, claimed_ms=None)
    found = why(world, at(5))
    assert brief(found) == (at(5), True, "run", None)
    assert found["words"].endswith("It ran on node-3: failed, exit code 3. Attempt 2 was skipped (reason: paused)."), (
        found["words"]
    )


def test_a_missed_fire_has_its_verdict_until_its_row_arrives(world: World) -> None:
    audited(world, missed_fire(), minutes=9)
    found = why(world, at(5))
    assert brief(found) == (at(5), True, "missed", "no_worker_fits")
    assert "nobody has zone=mars" in found["words"] and "selector" in found["words"]
    assert [item["reason"] for item in world.call("GET", "/jobs/1/missed").get_json()] == ["no_worker_fits"]
    record(world, RunState.SUCCEEDED)
    assert brief(why(world, at(5))) == (at(5), True, "run", None)
    assert world.call("GET", "/jobs/1/missed").get_json() == []


def test_a_held_fire_is_pending(world: World) -> None:
    audited(world, missed_fire(reason="isolated", held=True), minutes=9)
    assert brief(why(world, at(5))) == (at(5), True, "pending", "isolated")
    assert world.call("GET", "/jobs/1/missed").get_json() == []


def test_a_fire_of_the_future_and_one_within_its_grace_are_pending(world: World) -> None:
    assert brief(why(world, at(5))) == (at(5), True, "pending", None)
    assert "future" in why(world, at(65))["words"]
    world.clock.advance_ms(5 * MINUTE_MS + 30_000)
    found = why(world, at(5))
    assert found["decision"] == "pending" and "may still run" in found["words"]


def test_the_auditor_s_lag_is_told(world: World) -> None:
    audited(world, minutes=6)
    world.clock.advance_ms(4 * MINUTE_MS)
    found = why(world, at(5))
    assert found["decision"] == "pending" and "240 s behind" in found["words"]


def test_what_was_not_listed_is_missed_all_the_same(world: World) -> None:
    audited(world, minutes=10)
    assert brief(why(world, at(5))) == (at(5), True, "missed", "unknown")
    audited(world, minutes=10, gaps=((NOON_MS, FIVE_PAST_MS + 1),))
    assert brief(why(world, at(5))) == (at(5), True, "missed", "platform_down")
    audited(world, minutes=10, known_from_ms=FIVE_PAST_MS + 1)
    assert brief(why(world, at(5))) == (at(5), True, "pending", "unknown")


def test_between_two_fires_the_one_before_is_spoken_of(world: World) -> None:
    record(world, RunState.FAILED, exit_code=3)
    world.clock.advance_ms(40 * MINUTE_MS)
    found = why(world)
    assert brief(found) == (at(5), False, "run", None)
    assert at(65) in found["words"] and "failed, exit code 3" in found["words"]
    assert len(found["runs"]) == 1


def test_before_the_first_fire_the_next_one_is_named(world: World) -> None:
    world.clock.advance_ms(MINUTE_MS)
    found = why(world, at(1))
    assert brief(found) == (at(1), False, "pending", None)
    assert found["next_fire"] == at(5) and at(5) in found["words"]


def test_before_it_was_created_a_job_was_not_yet_started(world: World) -> None:
    assert brief(why(world, "2026-03-01T11:05:00Z")) == ("2026-03-01T11:05:00Z", False, "skipped", "not_yet_started")


def test_paused_resumed_and_finished_are_told_for_their_time(world: World) -> None:
    world.clock.advance_ms(10 * MINUTE_MS)
    world.call("POST", "/jobs/1/pause")
    world.clock.advance_ms(60 * MINUTE_MS)
    world.call("POST", "/jobs/1/resume")
    world.clock.advance_ms(60 * MINUTE_MS)
    world.call("DELETE", "/jobs/1")
    world.clock.advance_ms(60 * MINUTE_MS)
    paused = why(world, at(65))
    assert brief(paused) == (at(65), False, "skipped", "paused")
    assert f"from {at(10)} until {at(70)}" in paused["words"] and "Resume" in paused["words"]
    assert why(world, at(125))["due"]
    assert brief(why(world, at(185))) == (at(185), False, "skipped", "ended")
    assert why(world, at(5))["due"], "before the pause it was due"


def test_a_window_is_told(world: World) -> None:
    world.post_job(starts_at=at(60), ends_at=at(120))
    assert brief(why(world, at(5), 2))[1:] == (False, "skipped", "not_yet_started")
    assert why(world, at(65), 2)["due"]
    assert brief(why(world, at(125), 2))[1:] == (False, "skipped", "ended")


def test_a_blackout_is_told(world: World) -> None:
    world.post_job(schedule="5 * * * *", blackouts=[{"from": at(60), "to": at(120)}])
    found = why(world, at(65), 2)
    assert brief(found) == (at(65), False, "skipped", "calendar")
    assert at(125) in found["words"] and "blackout" in found["words"]
    assert why(world, at(125), 2)["due"]


def test_of_several_shards_the_worst_is_told(world: World) -> None:
    world.call("PATCH", "/jobs/1", json={"shards": 3})
    record(world, RunState.SUCCEEDED, shard=0)
    record(world, RunState.SKIPPED, shard=1, reason=Reason.OVERLAP)
    audited(world, missed_fire(shard=2), minutes=9)
    found = why(world, at(5))
    assert brief(found) == (at(5), True, "missed", "no_worker_fits")
    assert found["words"].startswith("1 of its 3 shards (shard 2): It was missed")
    assert [run["shard"] for run in found["runs"]] == [0, 1]


def test_a_claim_without_a_start_is_no_run_yet(world: World) -> None:
    record(world, RunState.CLAIMED)
    world.clock.advance_ms(5 * MINUTE_MS + 10_000)
    assert brief(why(world, at(5))) == (at(5), True, "pending", None)
    audited(world, missed_fire(reason="worker_lost"), minutes=20)
    assert brief(why(world, at(5))) == (at(5), True, "missed", "worker_lost")


def test_a_run_on_demand_is_called_so(world: World) -> None:
    fire_ms = NOON_MS + 1001
    record(world, RunState.SUCCEEDED, fire_ms, trigger=Trigger.MANUAL)
    found = why(world, "2026-03-01T12:00:01.001Z")
    assert brief(found) == ("2026-03-01T12:00:01.001Z", False, "run", None)
    assert "on demand" in found["words"] and len(found["runs"]) == 1


def test_unknown_jobs_and_bad_instants_are_refused(world: World) -> None:
    assert world.call("GET", "/jobs/99/why").status_code == 404
    assert world.call("GET", "/jobs/99/missed").status_code == 404
    assert fields_of(world.call("GET", "/jobs/1/why?at=noon")) == {"at"}


def test_missed_fires_have_the_contract_s_shape(world: World) -> None:
    audited(world, missed_fire(), minutes=9)
    (item,) = world.call("GET", "/jobs/1/missed?limit=5", role=Role.VIEWER).get_json()
    assert item == {
        "job_id": "1",
        "shard": 0,
        "fire_time": at(5),
        "reason": "no_worker_fits",
        "detail": "nobody has zone=mars",
        "noted_at": at(0),
    }


def test_events_are_read_by_kind_and_subject(world: World) -> None:
    told = [Event(NOON_MS, "fire.missed", "1/0", "a"), Event(NOON_MS + 1, "worker.lost", "w1", "b")]
    world.store.events.add(told)
    every = world.call("GET", "/events", role=Role.VIEWER).get_json()
    assert [event["kind"] for event in every] == ["worker.lost", "fire.missed"]
    assert every[1] == {"at": at(0), "kind": "fire.missed", "subject": "1/0", "detail": "a"}
    assert [event["subject"] for event in world.call("GET", "/events?kind=worker.lost").get_json()] == ["w1"]
    assert [event["detail"] for event in world.call("GET", "/events?subject=1/0").get_json()] == ["a"]
    assert len(world.call("GET", "/events?limit=1").get_json()) == 1
    assert world.call("GET", "/events", role=None).status_code == 401
