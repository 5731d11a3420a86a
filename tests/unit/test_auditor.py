"""The auditor's judgement, as a pure function: what was due, and the one reason for each fire that did not run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Concurrency, JobSpec, JobState, JobType
from cronkeeper.domain.placement import Assignment, Lease, MoveReason
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.ports import Fate, Fire, JobVersion
from cronkeeper_manager.auditor import (
    HEARD_MS,
    NEWS_MS,
    SETTLE_MS,
    STUCK_MS,
    Expected,
    Facts,
    MissReason,
    Outcome,
    due_within,
    expected_at,
    is_unexpected,
    judge,
    next_due_ms,
    overdue_delay_ms,
    reason_of_skip,
    settle_delay_ms,
    spans,
)

#: 2026-03-01T12:00:00Z
NOON_MS = 1_772_366_400_000
MINUTE_MS = 60_000
TASK = TaskId(1, 0)
FIRE = Fire(TASK, NOON_MS + 5 * MINUTE_MS)
SPEC = JobSpec("true", "*/5 * * * *", JobType.COMMAND, grace_s=60)


def version(generation: int = 1, since_ms: int = NOON_MS, state: JobState = JobState.ACTIVE, **spec: Any) -> JobVersion:
    return JobVersion(1, generation, state, since_ms, since_ms, SPEC.evolve(**spec))


def fate(state: RunState, **fields: Any) -> Fate:
    values: dict[str, Any] = {"reason": None, "claimed_ms": FIRE.fire_ms + 5} | fields
    return Fate(FIRE, 1, state, Trigger.TIMER, "w1", 1, **values)


def assignment(**fields: Any) -> Assignment:
    values: dict[str, Any] = {"worker": "w1", "assigned_ms": NOON_MS, "reason": MoveReason.NEW} | fields
    return Assignment(TASK, generation=1, epoch=1, **values)


def lease(*, lost: bool = False, age_ms: int = 500) -> Lease:
    return Lease("w1", "epoch", age_ms, lost, 0)


NOW_MS = FIRE.fire_ms + 60_000 + SETTLE_MS
HEARD = Facts(NOW_MS, {TASK: assignment()}, {"w1": lease()}, {"w1": NOW_MS - HEARD_MS})
NEVER_PAUSED = (version(),)


def verdict(
    facts: Facts = HEARD, found: Fate | None = None, versions: tuple[JobVersion, ...] = NEVER_PAUSED
) -> tuple[Outcome, MissReason | None]:
    of_job = spans(versions)
    due = expected_at(of_job, FIRE)
    assert due is not None
    said = judge(Expected(FIRE, due), found, of_job, facts)
    assert said.detail or said.outcome in (Outcome.RUN, Outcome.SKIPPED), "a verdict says what it goes by"
    return said.outcome, said.reason


# ---------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("state", [state for state in RunState if state not in ("pending", "claimed", "skipped")])
def test_whatever_was_started_is_a_run(state: RunState) -> None:
    assert verdict(found=fate(state)) == (Outcome.RUN, None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Reason.OVERLAP, "overlap"),
        (Reason.LATE, "late"),
        (Reason.SUPERSEDED, "late"),
        (Reason.PAUSED, "paused"),
        (Reason.FENCE_REFUSED, "fence_refused"),
        (Reason.ISOLATED, "isolated"),
        (Reason.ARTIFACT_MISSING, "artifact_missing"),
        (Reason.WORKER_LOST, "worker_lost"),
        (Reason.USER_REFUSED, "unknown"),
        (None, "unknown"),
    ],
)
def test_a_skip_has_a_reason_of_the_closed_list(given: Reason | None, told: str) -> None:
    assert verdict(found=fate(RunState.SKIPPED, reason=given)) == (Outcome.SKIPPED, MissReason(told))


def test_a_fire_that_ran_and_whose_retry_was_skipped_is_a_run() -> None:
    retry = replace(fate(RunState.SKIPPED, reason=Reason.PAUSED), attempt=2, trigger=Trigger.RETRY)
    assert verdict(found=retry) == (Outcome.RUN, None)
    rerun_of_a_lost_one = replace(retry, trigger=Trigger.CATCH_UP)
    assert verdict(found=rerun_of_a_lost_one) == (Outcome.SKIPPED, MissReason.PAUSED)


def test_every_reason_of_a_skip_has_a_word() -> None:
    assert all(isinstance(reason_of_skip(reason), MissReason) for reason in Reason)


MISSES: dict[str, tuple[MissReason, Facts, tuple[JobVersion, ...]]] = {
    "its worker is heard and recorded nothing": (MissReason.UNKNOWN, HEARD, NEVER_PAUSED),
    "its worker is lost": (MissReason.WORKER_LOST, replace(HEARD, leases={"w1": lease(lost=True)}), NEVER_PAUSED),
    "it was taken over from a lost worker after the fire": (
        MissReason.WORKER_LOST,
        replace(HEARD, assignments={TASK: assignment(assigned_ms=NOW_MS - 1, reason=MoveReason.WORKER_LOST)}),
        NEVER_PAUSED,
    ),
    "whoever took it over is lost": (
        MissReason.WORKER_LOST,
        replace(HEARD, assignments={TASK: assignment(assigned_ms=FIRE.fire_ms + 5)}, leases={"w1": lease(lost=True)}),
        NEVER_PAUSED,
    ),
    "it was moved within its grace and not caught up with": (
        MissReason.UNKNOWN,
        replace(HEARD, assignments={TASK: assignment(assigned_ms=FIRE.fire_ms + 5, reason=MoveReason.DRAIN)}),
        NEVER_PAUSED,
    ),
    "it had no worker until its grace was over": (
        MissReason.NO_WORKER_FITS,
        replace(HEARD, assignments={TASK: assignment(assigned_ms=NOW_MS - SETTLE_MS + 1)}),
        NEVER_PAUSED,
    ),
    "no worker fits": (
        MissReason.NO_WORKER_FITS,
        replace(HEARD, assignments={}, unplaced={TASK: "no worker matches"}),
        NEVER_PAUSED,
    ),
    "it was revoked and no worker fits": (
        MissReason.NO_WORKER_FITS,
        replace(HEARD, assignments={TASK: assignment(worker="")}, unplaced={TASK: "no worker matches"}),
        NEVER_PAUSED,
    ),
    "it has no worker and nobody knows why": (MissReason.UNKNOWN, replace(HEARD, assignments={}), NEVER_PAUSED),
    "no leader worked, and it had no worker": (
        MissReason.PLATFORM_DOWN,
        replace(HEARD, assignments={}, gaps=((NOON_MS, FIRE.fire_ms),)),
        NEVER_PAUSED,
    ),
    "no leader worked, and its worker did nothing": (
        MissReason.PLATFORM_DOWN,
        replace(HEARD, gaps=((FIRE.fire_ms, NOW_MS),)),
        NEVER_PAUSED,
    ),
    "a gap at another time does not count": (
        MissReason.UNKNOWN,
        replace(HEARD, gaps=((FIRE.fire_ms + 1, NOW_MS), (NOON_MS, FIRE.fire_ms - 1))),
        NEVER_PAUSED,
    ),
    "the node's cron was silent": (
        MissReason.CRON_SILENT,
        replace(HEARD, cron_silent={"w1": [(FIRE.fire_ms + MINUTE_MS, NOW_MS)]}),
        NEVER_PAUSED,
    ),
    "cron called again before the fire": (
        MissReason.UNKNOWN,
        replace(HEARD, cron_silent={"w1": [(NOON_MS, FIRE.fire_ms - 1)]}),
        NEVER_PAUSED,
    ),
    "the job was paused within the grace": (
        MissReason.PAUSED,
        HEARD,
        (version(), version(2, FIRE.fire_ms + 100, JobState.PAUSED)),
    ),
    "the job was paused at the very instant": (
        MissReason.PAUSED,
        HEARD,
        (version(), version(2, FIRE.fire_ms, JobState.PAUSED)),
    ),
    "the job was paused after the grace": (
        MissReason.UNKNOWN,
        HEARD,
        (version(), version(2, FIRE.fire_ms + MINUTE_MS + 1, JobState.PAUSED)),
    ),
    "the job was finished within the grace": (
        MissReason.ENDED,
        HEARD,
        (version(), version(1, FIRE.fire_ms + 100, JobState.FINISHED)),
    ),
    "the job was edited within the grace": (
        MissReason.UNKNOWN,
        HEARD,
        (version(), version(2, FIRE.fire_ms + 100, schedule="0 0 * * *")),
    ),
}


@pytest.mark.parametrize("name", MISSES)
def test_a_fire_without_a_row_has_one_reason(name: str) -> None:
    reason, facts, versions = MISSES[name]
    assert verdict(facts, versions=versions) == (Outcome.MISSED, reason)


@pytest.mark.parametrize(
    "facts",
    [
        replace(HEARD, heard_ms={}),
        replace(HEARD, heard_ms={"w1": NOW_MS - HEARD_MS + 1}),
        replace(HEARD, heard_ms={}, leases={}),
        replace(HEARD, heard_ms={}, gaps=((NOON_MS, NOW_MS),)),
    ],
    ids=["stale", "heard only just now", "never heard", "whatever else is known"],
)
def test_a_worker_that_may_have_news_of_the_fire_is_waited_for(facts: Facts) -> None:
    assert verdict(facts) == (Outcome.PENDING, MissReason.ISOLATED)


def test_a_claim_is_no_sign_of_life_for_ever() -> None:
    fresh = fate(RunState.CLAIMED, claimed_ms=NOW_MS - STUCK_MS + 1)
    assert verdict(found=fresh) == (Outcome.PENDING, None)
    stuck = fate(RunState.CLAIMED, claimed_ms=NOW_MS - STUCK_MS)
    assert verdict(found=stuck) == (Outcome.MISSED, MissReason.UNKNOWN)
    assert verdict(replace(HEARD, leases={"w1": lease(lost=True)}), stuck) == (Outcome.MISSED, MissReason.WORKER_LOST)
    assert verdict(replace(HEARD, heard_ms={}), stuck) == (Outcome.PENDING, MissReason.ISOLATED)
    assert verdict(found=fate(RunState.PENDING, claimed_ms=None)) == (Outcome.MISSED, MissReason.UNKNOWN)


# ------------------------------------------------------------------------------------------------------- what was due


def minutes(versions: tuple[JobVersion, ...], after: int, until: int) -> list[float]:
    """The minutes after noon at which fires had to be known, told by their fire times."""
    found = due_within(
        spans(versions), NOON_MS + after * MINUTE_MS, NOON_MS + until * MINUTE_MS, settle_delay_ms, limit=500
    )
    return [(item.fire.fire_ms - NOON_MS) / MINUTE_MS for item in found]


def test_a_version_answers_for_the_fires_of_its_own_time() -> None:
    edited = (version(), version(2, NOON_MS + 10 * MINUTE_MS, schedule="2-59/10 * * * *"))
    assert minutes(edited, -60, 60) == [5, 10, 12, 22, 32, 42, 52]


def test_nothing_is_due_while_paused_or_finished_and_again_after_resuming() -> None:
    stopped = (
        version(),
        version(2, NOON_MS + 7 * MINUTE_MS, JobState.PAUSED),
        version(3, NOON_MS + 22 * MINUTE_MS),
        version(3, NOON_MS + 31 * MINUTE_MS, JobState.FINISHED),
    )
    assert minutes(stopped, -60, 90) == [5, 25, 30]


def test_the_job_s_window_counts() -> None:
    inside = (version(starts_at_ms=NOON_MS + 10 * MINUTE_MS, ends_at_ms=NOON_MS + 20 * MINUTE_MS),)
    assert minutes(inside, -60, 90) == [10, 15]


def test_every_shard_is_due() -> None:
    found = due_within(spans((version(shards=3),)), NOON_MS, NOON_MS + 8 * MINUTE_MS, settle_delay_ms, limit=9)
    assert [str(item.fire.task) for item in found] == ["1/0", "1/1", "1/2"]
    assert expected_at(spans((version(shards=3),)), Fire(TaskId(1, 3), FIRE.fire_ms)) is None


def test_fires_are_decided_about_once_their_grace_jitter_and_some_time_are_over() -> None:
    assert settle_delay_ms(SPEC.evolve(jitter_s=30)) == 90_000 + SETTLE_MS
    of_job = spans((version(jitter_s=30),))
    due_ms = FIRE.fire_ms + 90_000 + SETTLE_MS
    assert next_due_ms(of_job, NOON_MS, settle_delay_ms) == due_ms
    assert due_within(of_job, due_ms - 1, due_ms, settle_delay_ms, limit=9)[0].fire == FIRE
    assert due_within(of_job, due_ms, due_ms + 1, settle_delay_ms, limit=9) == []


def test_people_hear_of_a_fire_with_a_long_grace_before_it_is_over() -> None:
    assert overdue_delay_ms(SPEC.evolve(grace_s=3600, jitter_s=10)) == 130_000
    assert overdue_delay_ms(SPEC) is None, "the verdict is as quick"
    assert overdue_delay_ms(SPEC.evolve(grace_s=3600, concurrency=Concurrency.QUEUE)) is None, "it may be waiting"


def test_a_row_that_no_version_asked_for_is_unexpected() -> None:
    edited = spans((version(), version(2, NOON_MS + 10 * MINUTE_MS, schedule="2-59/10 * * * *")))
    at = {minute: is_unexpected(edited, Fire(TASK, NOON_MS + minute * MINUTE_MS)) for minute in (-5, 3, 5, 12, 15)}
    assert at == {-5: True, 3: True, 5: False, 12: False, 15: True}


def test_a_worker_hears_of_a_change_a_little_later() -> None:
    def paused(before_ms: int) -> bool:
        of_job = spans((version(), version(2, FIRE.fire_ms - before_ms, JobState.PAUSED)))
        return is_unexpected(of_job, FIRE)

    assert not paused(NEWS_MS)
    assert paused(NEWS_MS + 1)


def test_what_was_before_the_first_known_version_cannot_be_called_unexpected() -> None:
    of_job = spans((version(4, FIRE.fire_ms + 1),))
    assert not is_unexpected(of_job, FIRE)
    assert not is_unexpected([], FIRE)
