"""The auditor at work, in a small fleet on the doubles: verdicts, waiting, withdrawing, and nothing lost in between."""

from __future__ import annotations

from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Event, Missed
from cronkeeper_manager.audit import GAP_MS, LISTED_MOST, RETURN_MS
from cronkeeper_manager.audit_review import NOWHERE
from tests.unit.manager_town import NOON_MS, Manager, Town

MINUTE_MS = 60_000


def rows_of(town: Town) -> list[Missed]:
    return town.store.audit.missed_page(NOWHERE, limit=100_000)


def found(town: Town, job: Job) -> list[tuple[float, str]]:
    """The job's missed fires, oldest first: minutes after noon, and the reason."""
    items = reversed(town.store.audit.missed_of(job.id, limit=10_000))
    return [((item.fire.fire_ms - NOON_MS) / MINUTE_MS, item.reason) for item in items]


def kinds(town: Town, *wanted: str) -> list[str]:
    return [event.kind for event in reversed(town.store.events.latest(limit=1000)) if event.kind in wanted]


def ran(town: Town, job: Job, minute: float, *, state: RunState = RunState.SUCCEEDED, **fields: Any) -> None:
    fire_ms = NOON_MS + round(minute * MINUTE_MS)
    key = RunKey(TaskId(job.id, fields.pop("shard", 0)), fire_ms, 1)
    town.store.runs.record([Run(key, Trigger.TIMER, state, "w1", nonce=f"n{key}", claimed_ms=fire_ms, **fields)])


def live(town: Town, seconds: float) -> None:
    """Let everybody live for so long, in steps that are long, and short enough for leases to stay fresh."""
    while seconds > 0:
        step_s = min(seconds, 10.0)
        town.clock.advance_ms(round(step_s * 1000))
        town.step()
        seconds -= step_s


def settled(*workers: str) -> Town:
    """A fleet with a leader that has heard its workers for two minutes."""
    town = Town(*workers)
    live(town, 120)
    return town


def test_a_fire_with_a_row_is_fine_and_one_without_is_missed() -> None:
    town = settled("w1")
    job = town.create("*/5 * * * *", grace_s=60)
    live(town, 4 * 60)
    ran(town, job, 5)
    live(town, 6 * 60 - 10)
    assert found(town, job) == [], "12:10 may still run, and the news of it may be on its way"
    live(town, 20)
    assert found(town, job) == [(10, "unknown")]
    (event,) = town.store.events.latest(limit=9, kind="fire.missed")
    assert event.subject == f"{job.id}/0" and event.detail.startswith("2026-03-01T12:10:00Z: unknown: worker w1 had")


def test_a_task_that_nobody_may_take_is_told_with_the_planner_s_words() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=5, selector="zone=mars", shards=2)
    live(town, 3 * 60 + 30)
    assert found(town, job) == [(3, "no_worker_fits")] * 2 + [(4, "no_worker_fits")] * 2
    assert "zone=mars" in town.store.audit.missed_of(job.id, limit=1)[0].detail


def test_a_paused_job_has_nothing_to_miss() -> None:
    town = settled("w1")
    job = town.edit(town.create("* * * * *", grace_s=0), JobState.PAUSED)
    live(town, 5 * 60)
    assert found(town, job) == []
    town.edit(job, JobState.ACTIVE)
    live(town, 2 * 60 + 30)
    assert [minute for minute, _ in found(town, job)] == [8]


def test_a_worker_that_is_cut_from_mysql_is_waited_for_and_its_journal_believed() -> None:
    town = settled("w1", "w2")
    job = town.create("*/5 * * * *", grace_s=0)
    live(town, 5)
    owner = town.nodes[town.homes()[TaskId(job.id, 0)]]
    # It keeps its session, and cannot beat: MySQL is what it is cut from.
    owner.beat = lambda: None  # type: ignore[method-assign]
    live(town, 20 * 60)
    held = [item for item in rows_of(town) if item.held]
    assert len(held) == 4 and {item.reason for item in held} == {"isolated"}
    assert found(town, job) == [] and kinds(town, "fire.missed") == []
    del owner.beat
    live(town, 10)
    for minute in (5, 10, 15):
        ran(town, job, minute)
    live(town, 30)
    assert len(rows_of(town)) == 1, "what came home is settled at once"
    live(town, 2 * 60)
    assert found(town, job) == [(20, "unknown")]


def test_a_dead_worker_without_a_successor_is_named() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    town.run(10)
    town.nodes["w1"].die()
    town.run(3 * 60)
    assert found(town, job)[0] == (3, "worker_lost")
    assert "w1" in town.store.audit.missed_of(job.id, limit=1)[0].detail


def test_a_silent_cron_is_named() -> None:
    town = settled("w1")
    job = town.create("*/5 * * * *", grace_s=0)
    town.store.events.add(
        [
            Event(NOON_MS + 6 * MINUTE_MS, "cron.silent", "w1", "dead"),
            Event(NOON_MS + 9 * MINUTE_MS, "cron.back", "w1", "calls again"),
        ]
    )
    live(town, 10 * 60)
    assert found(town, job) == [(5, "cron_silent"), (10, "unknown")]


def test_a_verdict_is_withdrawn_when_the_truth_arrives() -> None:
    town = settled("w1")
    job = town.create("*/5 * * * *", grace_s=0)
    live(town, 5 * 60)
    assert found(town, job) == [(5, "unknown")]
    ran(town, job, 5)
    assert found(town, job) == [], "at once, as far as people see"
    live(town, 10)
    assert rows_of(town) == []
    (event,) = town.store.events.latest(limit=9, kind="fire.withdrawn")
    assert event.subject == f"{job.id}/0" and "unknown" in event.detail and "succeeded" in event.detail


def test_a_new_leader_goes_on_where_the_last_one_was() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    live(town, 3 * 60)
    before = found(town, job)
    town.managers[0].die()
    town.managers = [Manager(town, "m2")]
    live(town, 4 * 60)
    assert before == found(town, job)[: len(before)]
    assert [minute for minute, _ in found(town, job)] == [3, 4, 5, 6, 7, 8]


def test_hours_without_a_leader_are_not_forgotten_and_are_called_by_name() -> None:
    town = settled("w1")
    job = town.create("*/10 * * * *", grace_s=0)
    nowhere = town.create("*/10 * * * *", grace_s=0, selector="zone=mars")
    live(town, 60)
    town.managers[0].die()
    town.managers = []
    town.nodes["w1"].die()
    town.clock.advance_ms(3 * 60 * MINUTE_MS)
    town.nodes["w1"].revive()
    town.managers = [Manager(town, "m2")]
    live(town, RETURN_MS / 1000 - 10)
    assert found(town, job) == found(town, nowhere) == [], "first, workers carry home what they have"
    live(town, 4 * 60)
    minutes = [minute for minute, _ in found(town, job)]
    assert minutes == list(range(10, 181, 10))
    assert {reason for _, reason in found(town, job)} == {"platform_down"}
    assert {reason for _, reason in found(town, nowhere)} == {"no_worker_fits"}
    assert "fire.missed" in kinds(town, "fire.missed")
    ((begin, end),) = town.store.audit.mark().gaps
    assert end - begin > GAP_MS


def test_mysql_away_stops_the_audit_and_nothing_is_forgotten() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    live(town, 60)
    town.set_mysql(False)
    live(town, 5 * 60)
    town.set_mysql(True)
    for minute in (3, 4, 5, 7):
        ran(town, job, minute)
    live(town, 4 * 60)
    assert [minute for minute, _ in found(town, job)][:3] == [6, 8, 9]


@pytest.mark.parametrize("method", ["fates", "versions", "save", "changed_versions", "missed_page", "recorded"])
@pytest.mark.parametrize("landed", [False, True])
def test_a_failure_in_the_middle_loses_no_fire(method: str, landed: bool) -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    for _ in range(12):
        town.store.fail_next(f"audit.{method}", landed=landed)
        live(town, 30)
    live(town, 60)
    minutes = [minute for minute, _ in found(town, job)]
    assert minutes[:6] == [3, 4, 5, 6, 7, 8]


def test_a_long_grace_is_warned_of_after_two_minutes() -> None:
    town = settled("w1")
    job = town.create("*/5 * * * *", grace_s=3600)
    live(town, 5 * 60 - 2)
    assert kinds(town, "fire.overdue") == []
    live(town, 5)
    (event,) = town.store.events.latest(limit=9, kind="fire.overdue")
    assert event.subject == f"{job.id}/0" and "12:05:00" in event.detail
    live(town, 3 * 60)
    ran(town, job, 10)
    live(town, 2 * 60)
    assert kinds(town, "fire.overdue") == ["fire.overdue"] and found(town, job) == []


def test_many_at_once_are_one_event_with_their_number() -> None:
    town = settled("w1")
    job = town.create("*/10 * * * *", grace_s=0, shards=30)
    live(town, 10 * 60)
    (event,) = town.store.events.latest(limit=9, kind="fire.missed")
    assert event.subject == "fleet" and event.detail.startswith("30 fires (30 unknown)")
    assert len(found(town, job)) == 30


def test_more_than_can_be_listed_are_counted() -> None:
    town = settled("w1")
    job = town.create("@every 1s", grace_s=0)
    live(town, LISTED_MOST + 60 + 100)
    assert len(found(town, job)) == LISTED_MOST
    more = town.store.events.latest(limit=99, kind="fire.missed", subject=str(job.id))
    assert sum(int(event.detail.partition(" more")[0]) for event in more) == 100


def test_rows_that_nobody_asked_for_are_told() -> None:
    town = settled("w1")
    job = town.create("*/5 * * * *", grace_s=0)
    live(town, 4 * 60 + 10)
    ran(town, job, 5)
    ran(town, job, 6)
    fire_ms = NOON_MS + 6 * MINUTE_MS + 1
    key = RunKey(TaskId(job.id, 0), fire_ms, 1)
    town.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING, nonce="m"))
    live(town, 4 * 60)
    (event,) = town.store.events.latest(limit=9, kind="fire.unexpected")
    assert event.subject == f"{job.id}/0" and event.detail.startswith("2026-03-01T12:06:00Z was not due")


def test_a_removed_job_is_not_missed() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    live(town, 30)
    town.store.jobs.delete(job.id)
    live(town, 4 * 60)
    assert rows_of(town) == [] and kinds(town, "fire.missed", "fire.unexpected") == []


def test_a_job_that_cannot_be_read_does_not_stop_the_others() -> None:
    town = settled("w1")
    town.create("61 * * * *", grace_s=0)
    job = town.create("* * * * *", grace_s=0)
    live(town, 3 * 60)
    assert [minute for minute, _ in found(town, job)] == [3, 4]


def test_every_expected_fire_is_counted_once() -> None:
    town = settled("w1")
    job = town.create("* * * * *", grace_s=0)
    for minute, state in ((3, RunState.SUCCEEDED), (4, RunState.SKIPPED), (5, RunState.SUCCEEDED)):
        live(town, 60)
        ran(town, job, minute, state=state)
    live(town, 190)
    metrics = town.managers[0].leader.reconciler._leading.metrics  # type: ignore[union-attr]
    outcomes = {
        sample.labels["outcome"]: sample.value
        for family in metrics.audited.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert outcomes == {"run": 2, "skipped": 1, "missed": 2}
