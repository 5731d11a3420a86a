"""A job that the leader has paused for its failures, as people see it, on the doubles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.ports import Role
from tests.harness.api import World, fields_of

REASON = "paused after 3 failures in a row, last: exit 1 at 2026-03-01T12:10:00Z"
MINUTE_MS = 60_000


@pytest.fixture
def world() -> Iterator[World]:
    """Job 1 was paused for its failures at ten past noon."""
    found = World()
    found.post_job(name="flaky", pause_after_failures=3)
    found.clock.advance_ms(10 * MINUTE_MS)
    term = found.store.terms.take("m1")
    assert found.store.failures.pause(1, generation=1, reason=REASON, term=term)
    found.clock.advance_ms(5 * MINUTE_MS)
    yield found
    found.close()


def shown(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.call("GET", "/jobs/1", role=Role.VIEWER).get_json()
    return found


def signed_state(world: World) -> JobState:
    """What the task says that workers may read."""
    task = TaskId(1, 0)
    return world.verifier.open(world.coordinator.read_tasks([task])[task], job_id=1).state


def test_show_says_why_it_is_paused(world: World) -> None:
    assert (shown(world)["status"], shown(world)["status_reason"]) == ("paused", REASON)
    assert shown(world)["pause_after_failures"] == 3
    assert shown(world)["next_fire"] is None
    (listed,) = world.call("GET", "/jobs?status=paused", role=Role.VIEWER).get_json()
    assert listed["status_reason"] == REASON


def test_why_says_it_too(world: World) -> None:
    answer = world.call("GET", "/jobs/1/why", role=Role.VIEWER, query_string={"at": "2026-03-01T12:12:00Z"}).get_json()
    assert answer["reason"] == "paused"
    assert f"It was {REASON}." in answer["words"]


def test_why_does_not_say_it_of_an_older_pause() -> None:
    world = World()
    world.post_job(pause_after_failures=3)
    for verb in ("pause", "resume"):
        world.clock.advance_ms(10 * MINUTE_MS)
        assert world.call("POST", f"/jobs/1/{verb}").status_code == 200
    world.clock.advance_ms(10 * MINUTE_MS)
    term = world.store.terms.take("m1")
    assert world.store.failures.pause(1, generation=3, reason=REASON, term=term)
    world.clock.advance_ms(10 * MINUTE_MS)
    words = {}
    for at in ("2026-03-01T12:15:00Z", "2026-03-01T12:35:00Z"):
        answer = world.call("GET", "/jobs/1/why", role=Role.VIEWER, query_string={"at": at})
        words[at] = answer.get_json()["words"]
    world.close()
    assert [REASON in text for text in words.values()] == [False, True]


def test_resume_signs_it_anew_and_forgets_the_reason(world: World) -> None:
    answer = world.call("POST", "/jobs/1/resume").get_json()
    assert (answer["status"], answer["status_reason"], answer["generation"]) == ("scheduled", None, 2)
    job = world.store.jobs.get(1)
    assert (job.withdrawn, job.effective_from_ms) == (False, world.clock.now_ms())
    assert signed_state(world) is JobState.ACTIVE


def test_an_edit_leaves_it_paused_signs_that_and_keeps_the_reason(world: World) -> None:
    answer = world.call("PATCH", "/jobs/1", json={"executable": "mended"}).get_json()
    assert (answer["status"], answer["status_reason"]) == ("paused", REASON)
    assert not world.store.jobs.get(1).withdrawn
    assert signed_state(world) is JobState.PAUSED


@pytest.mark.parametrize("path", ["/jobs/1/pause", "/jobs/1/run"])
def test_pausing_or_running_it_signs_the_pause(world: World, path: str) -> None:
    assert world.call("POST", path).status_code in (200, 202)
    job = world.store.jobs.get(1)
    assert (job.state, job.withdrawn, job.state_reason) == (JobState.PAUSED, False, REASON)
    assert signed_state(world) is JobState.PAUSED
    again = world.call("POST", path)
    assert again.status_code in (200, 202)
    assert world.store.jobs.get(1).generation == job.generation


def test_a_backfill_signs_the_pause_unless_it_is_dry(world: World) -> None:
    wish = {"from": "2026-03-01T12:00:00Z", "to": "2026-03-01T12:01:00Z"}
    assert world.call("POST", "/jobs/1/backfill", json={**wish, "dry_run": True}).status_code == 200
    assert world.store.jobs.get(1).withdrawn
    assert world.call("POST", "/jobs/1/backfill", json=wish).status_code == 200
    assert not world.store.jobs.get(1).withdrawn


def test_applying_what_is_unchanged_leaves_it_paused(world: World) -> None:
    body = {"jobs": [{"executable": "ls -la", "schedule": "5 * * * *", "type": "command", "name": "flaky"}]}
    body["jobs"][0]["pause_after_failures"] = 3  # type: ignore[assignment]
    answer = world.call("POST", "/apply", json=body).get_json()
    assert answer["unchanged"]
    assert world.store.jobs.get(1).withdrawn


@pytest.mark.parametrize("value", [0, 1001, "3", 1.5, True])
def test_nonsense_is_refused_by_name(world: World, value: object) -> None:
    answer = world.call("POST", "/preview", json={"executable": "x", "schedule": "@daily", "type": "command",
                                                  "pause_after_failures": value})  # fmt: skip
    assert answer.status_code == 422
    assert fields_of(answer) == {"pause_after_failures"}


def test_the_reason_cannot_be_sent(world: World) -> None:
    answer = world.call("PATCH", "/jobs/1", json={"status_reason": "I like it"})
    assert answer.status_code == 422
    assert fields_of(answer) == {"status_reason"}
