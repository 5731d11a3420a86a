"""The gate: one decision for every fire time, whoever calls and however late."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import Concurrency, JobSpec, JobState, JobType, Misfire
from cronkeeper.domain.run import Trigger
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper_worker.gate import MAX_CATCH_UP, ON_TIME_MS, Decision, TaskView, decide, decide_one

TASK = TaskId(17, 0)
NOON = parse_rfc3339("2026-11-21T12:00:00Z")
MINUTE = 60_000


def view(
    schedule: str = "* * * * *", *, cursor_ms: int = NOON, state: JobState = JobState.ACTIVE, **spec: object
) -> TaskView:
    base = JobSpec(executable="true", schedule=schedule, type=JobType.COMMAND)
    made = replace(base, **spec)  # type: ignore[arg-type]  # the fields' types are the tests' own business
    return TaskView(TASK, made, parse_schedule(schedule, made.timezone), state, cursor_ms)


def key(minute: int, attempt: int = 1) -> RunKey:
    return RunKey(TASK, NOON + minute * MINUTE, attempt)


def outcomes(decisions: tuple[Decision, ...]) -> list[str]:
    return [("wait" if d.wait else "run") if d.run else str(d.reason) for d in decisions]


@dataclass(frozen=True)
class Case:
    name: str
    late_ms: int
    minutes_away: int
    misfire: Misfire
    grace_s: int
    expected: list[str]
    concurrency: Concurrency = Concurrency.ALLOW


CASES = [
    Case("on time: runs", 0, 1, Misfire.LATEST, 3600, ["run"]),
    Case("cron's own second of lag is on time, even for skip", 1900, 1, Misfire.SKIP, 3600, ["run"]),
    Case("late: skip skips", 40_000, 1, Misfire.SKIP, 3600, ["late"]),
    Case("late: latest catches up", 40_000, 1, Misfire.LATEST, 3600, ["run"]),
    Case(
        "three missed, the newest on time: latest runs that one alone",
        0,
        3,
        Misfire.LATEST,
        3600,
        ["superseded"] * 2 + ["run"],
    ),
    Case(
        "three missed, all late: latest runs the newest", 40_000, 3, Misfire.LATEST, 3600, ["superseded"] * 2 + ["run"]
    ),
    Case("three missed: all runs all", 40_000, 3, Misfire.ALL, 3600, ["run"] * 3),
    Case("three missed: skip runs what is on time", 0, 3, Misfire.SKIP, 3600, ["late"] * 2 + ["run"]),
    Case("beyond the grace nothing runs", 40_000, 3, Misfire.ALL, 30, ["late"] * 3),
    Case("beyond the grace the old are late, not superseded", 40_000, 3, Misfire.LATEST, 60, ["late"] * 2 + ["run"]),
    Case(
        "all under forbid: one after the other",
        40_000,
        3,
        Misfire.ALL,
        3600,
        ["run", "wait", "wait"],
        Concurrency.FORBID,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_misfire_policy(case: Case) -> None:
    task = view(misfire=case.misfire, grace_s=case.grace_s, concurrency=case.concurrency)
    verdict = decide(task, NOON + case.minutes_away * MINUTE + case.late_ms, trigger=Trigger.TIMER)
    assert outcomes(verdict.decisions) == case.expected
    assert [d.key for d in verdict.decisions] == [key(n + 1) for n in range(case.minutes_away)]
    assert verdict.cursor_ms == NOON + case.minutes_away * MINUTE


@pytest.mark.parametrize(
    ("policy", "active", "waiting", "expected", "cancelled"),
    [
        (Concurrency.FORBID, [key(0)], [], ["overlap"], []),
        (Concurrency.FORBID, [], [key(0, 2)], ["overlap"], []),
        (Concurrency.ALLOW, [key(0)], [], ["run"], []),
        (Concurrency.QUEUE, [key(0)], [], ["wait"], []),
        (Concurrency.QUEUE, [], [], ["run"], []),
        (Concurrency.REPLACE, [key(0)], [], ["wait"], [key(0)]),
        (Concurrency.QUEUE, [key(0)], [key(-n) for n in range(1, MAX_CATCH_UP + 1)], ["overlap"], []),
    ],
    ids=["forbid", "forbid counts what waits", "allow", "queue", "queue when idle", "replace", "a full queue"],
)
def test_concurrency_policy(
    policy: Concurrency, active: list[RunKey], waiting: list[RunKey], expected: list[str], cancelled: list[RunKey]
) -> None:
    verdict = decide(view(concurrency=policy), NOON + MINUTE, trigger=Trigger.CRON, active=active, waiting=waiting)
    assert outcomes(verdict.decisions) == expected
    assert list(verdict.cancel) == cancelled


def test_a_second_call_decides_nothing_again() -> None:
    task = view()
    first = decide(task, NOON + MINUTE, trigger=Trigger.TIMER)
    again = decide(replace(task, cursor_ms=first.cursor_ms), NOON + MINUTE + 1500, trigger=Trigger.CRON)
    assert (len(first.decisions), again.decisions, again.cursor_ms) == (1, (), first.cursor_ms)


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    verdict = decide(view(cursor_ms=NOON + 10 * MINUTE), NOON + 3 * MINUTE, trigger=Trigger.TIMER)
    assert (verdict.decisions, verdict.cursor_ms) == ((), NOON + 10 * MINUTE)


def test_an_edit_never_fires_backwards() -> None:
    # The old schedule fired last at 11:00; the new one would have fired at 11:30: it was not in force then.
    verdict = decide(view("30 * * * *", cursor_ms=NOON), NOON + MINUTE, trigger=Trigger.TIMER)
    assert (verdict.decisions, verdict.next_ms) == ((), NOON + 30 * MINUTE)


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.FINISHED])
def test_a_job_that_is_not_active_is_never_due(state: JobState) -> None:
    verdict = decide(view(state=state), NOON + 5 * MINUTE, trigger=Trigger.TIMER)
    assert (verdict.decisions, verdict.next_ms) == ((), None)


def test_the_window_bounds_what_is_due() -> None:
    task = view(
        starts_at_ms=NOON + 2 * MINUTE, ends_at_ms=NOON + 4 * MINUTE, misfire=Misfire.ALL, concurrency=Concurrency.ALLOW
    )
    verdict = decide(task, NOON + 9 * MINUTE, trigger=Trigger.TIMER)
    assert [d.key for d in verdict.decisions] == [key(2), key(3)]
    assert verdict.next_ms is None


def test_jitter_delays_the_start_and_keeps_the_fire_time() -> None:
    task = view("0 * * * *", jitter_s=600)
    fire_ms = NOON + 60 * MINUTE
    start_ms = fire_ms + task.spec.jitter_ms(TASK, fire_ms)
    assert fire_ms < start_ms < fire_ms + 600_000
    assert decide(task, start_ms - 1, trigger=Trigger.TIMER).decisions == ()
    assert decide(task, start_ms - 1, trigger=Trigger.TIMER).next_ms == start_ms
    assert decide(task, start_ms, trigger=Trigger.TIMER).decisions[0].key.fire_ms == fire_ms


def test_a_retry_waits_for_a_run_in_progress_instead_of_being_refused() -> None:
    decision, cancel = decide_one(view(), key(0, 2), trigger=Trigger.RETRY, active=[key(1)])
    assert (decision.run, decision.wait, cancel) == (True, True, ())


@settings(max_examples=300, deadline=None)
@given(
    schedule=st.sampled_from(
        ["* * * * *", "*/7 * * * *", "15,45 3 * * *", "@every 90s", "0 0 * * *", "*/10 * * * * *"]
    ),
    misfire=st.sampled_from(list(Misfire)),
    concurrency=st.sampled_from(list(Concurrency)),
    grace_s=st.integers(0, 7200),
    jitter_s=st.sampled_from([0, 5, 300]),
    steps=st.lists(st.integers(-120_000, 4_000_000), min_size=1, max_size=12),
)
def test_every_fire_gets_exactly_one_decision_however_it_is_called(
    schedule: str, misfire: Misfire, concurrency: Concurrency, grace_s: int, jitter_s: int, steps: list[int]
) -> None:
    """I1 and I15, for any series of calls at any instants, backwards steps of the clock included."""
    task = view(schedule, misfire=misfire, concurrency=concurrency, grace_s=grace_s, jitter_s=jitter_s)
    now_ms, seen, dropped = NOON, [], 0
    for step in steps:
        now_ms += step
        verdict = decide(task, now_ms, trigger=Trigger.TIMER)
        assert verdict.cursor_ms >= task.cursor_ms
        assert all(d.key.fire_ms <= now_ms for d in verdict.decisions)
        assert all(d.run or d.reason is not None for d in verdict.decisions)
        seen += [d.key.fire_ms for d in verdict.decisions]
        dropped += verdict.dropped
        task = replace(task, cursor_ms=verdict.cursor_ms)
    due = task.schedule.fire_times(NOON, task.cursor_ms, limit=50_000)
    assert len(seen) == len(set(seen))
    assert len(seen) + dropped == len(due)
    assert set(seen) <= set(due)


@settings(max_examples=200, deadline=None)
@given(late_ms=st.integers(0, 10_000_000), grace_s=st.integers(0, 3600), misfire=st.sampled_from(list(Misfire)))
def test_nothing_starts_beyond_its_grace(late_ms: int, grace_s: int, misfire: Misfire) -> None:
    task = view("0 * * * *", grace_s=grace_s, misfire=misfire)
    for decision in decide(task, NOON + 60 * MINUTE + late_ms, trigger=Trigger.TIMER).decisions:
        age_ms = NOON + 60 * MINUTE + late_ms - decision.key.fire_ms
        assert not decision.run or age_ms <= grace_s * 1000
        if misfire is Misfire.SKIP and decision.run:
            assert age_ms <= ON_TIME_MS


def test_several_fires_at_one_look_run_one_after_the_other_if_all_are_wanted() -> None:
    task = view("* * * * * *", misfire=Misfire.ALL, concurrency=Concurrency.FORBID)
    verdict = decide(task, NOON + 5_000, trigger=Trigger.TIMER)
    assert outcomes(verdict.decisions) == ["run", "wait", "wait", "wait", "wait"]
    alone = decide(task, NOON + 1_000, trigger=Trigger.TIMER, active=[key(-1)])
    assert outcomes(alone.decisions) == ["overlap"]
