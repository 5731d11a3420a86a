"""Whatever the versions, rows and facts: every expected fire has exactly one outcome, and is met exactly once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.placement import Assignment, Lease, MoveReason
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.ports import Fate, Fire, JobVersion
from cronkeeper_manager.agenda import Walk
from cronkeeper_manager.auditor import (
    Expected,
    Facts,
    MissReason,
    Outcome,
    due_within,
    expected_at,
    is_unexpected,
    judge,
    settle_delay_ms,
    spans,
)

NOON_MS = 1_772_366_400_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
minute_ms = st.integers(0, 60).map(lambda minute: NOON_MS + minute * MINUTE_MS)
specs = st.builds(
    JobSpec,
    executable=st.just("true"),
    schedule=st.sampled_from(["* * * * *", "*/7 * * * *", "@every 90s", "30 12 * * *", "@at 2026-03-01T12:20:00Z"]),
    type=st.just(JobType.COMMAND),
    grace_s=st.sampled_from([0, 30, 600]),
    jitter_s=st.sampled_from([0, 20]),
    shards=st.integers(1, 2),
)


@st.composite
def histories(draw: st.DrawFn) -> list[JobVersion]:
    begins = sorted(draw(st.lists(minute_ms, min_size=1, max_size=4, unique=True)))
    return [
        JobVersion(1, number, draw(st.sampled_from(JobState)), begin, begin, draw(specs))
        for number, begin in enumerate(begins, start=1)
    ]


@st.composite
def all_facts(draw: st.DrawFn, now_ms: int) -> Facts:
    tasks = [TaskId(1, shard) for shard in range(2)]
    assignments = {
        task: Assignment(
            task, draw(st.sampled_from(["", "w1"])), 1, 1, draw(st.sampled_from(MoveReason)), draw(minute_ms)
        )
        for task in draw(st.sets(st.sampled_from(tasks)))
    }
    leases = {"w1": Lease("w1", "e", 1, draw(st.booleans()), 0)} if draw(st.booleans()) else {}
    heard_ms = {"w1": draw(minute_ms)} if draw(st.booleans()) else {}
    unplaced = dict.fromkeys(draw(st.sets(st.sampled_from(tasks))), "nobody")
    gaps = draw(st.lists(st.tuples(minute_ms, minute_ms), max_size=2))
    silent = {"w1": draw(st.lists(st.tuples(minute_ms, minute_ms), max_size=2))}
    return Facts(now_ms, assignments, leases, heard_ms, unplaced, gaps, silent)


@st.composite
def ledgers(draw: st.DrawFn, fires: list[Fire]) -> dict[Fire, Fate]:
    rows = {}
    for fire in fires:
        if draw(st.booleans()):
            reason = draw(st.sampled_from([None, *Reason]))
            claimed_ms = draw(st.sampled_from([None, fire.fire_ms]))
            rows[fire] = Fate(fire, 1, draw(st.sampled_from(RunState)), Trigger.TIMER, "w1", 1, reason, claimed_ms)
    return rows


@settings(max_examples=150, deadline=None)
@given(st.data(), histories())
def test_run_skipped_missed_and_pending_together_are_what_was_expected(
    data: st.DataObject, history: list[JobVersion]
) -> None:
    of_job = spans(history)
    now_ms = NOON_MS + 3 * HOUR_MS
    expected = due_within(of_job, NOON_MS - HOUR_MS, now_ms, settle_delay_ms, limit=200)
    ledger = data.draw(ledgers([item.fire for item in expected]))
    facts = data.draw(all_facts(now_ms))
    count = dict.fromkeys(Outcome, 0)
    for item in expected:
        said = judge(item, ledger.get(item.fire), of_job, facts)
        count[said.outcome] += 1
        if said.outcome is Outcome.MISSED:
            assert isinstance(said.reason, MissReason) and said.detail
        if item.fire not in ledger:
            assert said.outcome in (Outcome.MISSED, Outcome.PENDING), "no row: never in silence"
    assert sum(count.values()) == len(expected) == len({item.fire for item in expected})


@settings(max_examples=100, deadline=None)
@given(histories(), st.lists(st.integers(1, 50), min_size=1, max_size=8), st.randoms())
def test_a_walk_meets_every_fire_once_however_it_is_cut_into_turns(history, turns, random) -> None:  # type: ignore[no-untyped-def]
    of_job = spans(history)
    end_ms = NOON_MS + 2 * HOUR_MS
    wanted = sorted(item.fire for item in due_within(of_job, NOON_MS, end_ms, settle_delay_ms, limit=500))
    walk, met, mark_ms, now_ms = Walk(settle_delay_ms), list[Fire](), NOON_MS, NOON_MS
    walk.put(1, of_job, mark_ms)
    for turn in turns:
        now_ms += turn * MINUTE_MS
        before_ms = mark_ms
        mark_ms = walk.go(mark_ms, min(now_ms, end_ms), {1: of_job}, met.extend, lambda: random.random() < 0.7)
        assert before_ms <= mark_ms <= end_ms
        assert {fire for fire in wanted if fire.fire_ms + 660_000 + 20_000 <= mark_ms} <= set(met), "none is behind it"
    while mark_ms < end_ms:
        mark_ms = walk.go(mark_ms, end_ms, {1: of_job}, met.extend, lambda: True)
    assert sorted(met) == wanted


@settings(max_examples=100, deadline=None)
@given(histories())
def test_what_was_expected_is_never_called_unexpected(history: list[JobVersion]) -> None:
    of_job = spans(history)
    for item in due_within(of_job, NOON_MS - HOUR_MS, NOON_MS + 3 * HOUR_MS, settle_delay_ms, limit=200):
        assert expected_at(of_job, item.fire) is not None
        assert not is_unexpected(of_job, item.fire)
        assert isinstance(item, Expected)
