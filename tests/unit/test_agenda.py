"""A walk over many jobs: it may rest anywhere, and its mark never runs ahead of it."""

from __future__ import annotations

import pytest

from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.ports import Fire, JobVersion
from cronkeeper_manager.agenda import STEP_MS, Walk
from cronkeeper_manager.auditor import Span, settle_delay_ms, spans

NOON_MS = 1_772_366_400_000
MINUTE_MS = 60_000
SPEC = JobSpec("true", "*/5 * * * *", JobType.COMMAND, grace_s=0)
DELAY_MS = settle_delay_ms(SPEC)


def town(count: int, **spec: object) -> dict[int, list[Span]]:
    return {
        job_id: spans([JobVersion(job_id, 1, JobState.ACTIVE, NOON_MS, NOON_MS, SPEC.evolve(**spec))])
        for job_id in range(1, count + 1)
    }


def walk_over(known: dict[int, list[Span]]) -> Walk:
    walk = Walk(settle_delay_ms)
    for job_id, of_job in known.items():
        walk.put(job_id, of_job, NOON_MS)
    return walk


def test_a_rest_inside_a_step_neither_moves_the_mark_nor_forgets_a_job() -> None:
    known = town(450)
    walk, met, mark_ms = walk_over(known), list[Fire](), NOON_MS
    end_ms = NOON_MS + 10 * MINUTE_MS + DELAY_MS
    turns = 0
    while mark_ms < end_ms:
        turns += 1
        mark_ms = walk.go(mark_ms, end_ms, known, met.extend, lambda: False)
        behind = sum(NOON_MS + minute * MINUTE_MS + DELAY_MS <= mark_ms for minute in (5, 10))
        assert len(met) >= behind * 450
        assert not walk.rests or mark_ms < end_ms
    assert len(met) == len(set(met)) == 2 * 450
    assert turns >= 6, "two hundred jobs a turn, twice"


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    known = town(450)
    walk, met = walk_over(known), list[Fire]()
    due_ms = NOON_MS + 5 * MINUTE_MS + DELAY_MS
    mark_ms = walk.go(due_ms - 1, due_ms, known, met.extend, lambda: False)
    assert walk.rests and mark_ms == due_ms - 1
    assert walk.go(mark_ms, due_ms - 10_000, known, met.extend, lambda: True) == due_ms
    assert len(met) == 450


def test_a_job_that_was_put_again_is_met_by_what_it_is_now() -> None:
    known = town(1)
    walk, met = walk_over(known), list[Fire]()
    known |= town(1, schedule="7 * * * *")
    walk.put(1, known[1], NOON_MS)
    walk.go(NOON_MS, NOON_MS + 12 * MINUTE_MS, known, met.extend, lambda: True)
    assert [fire.fire_ms for fire in met] == [NOON_MS + 7 * MINUTE_MS]


def test_a_job_that_is_gone_is_not_met() -> None:
    known = town(2)
    walk, met = walk_over(known), list[Fire]()
    del known[1]
    walk.go(NOON_MS, NOON_MS + 8 * MINUTE_MS, known, met.extend, lambda: True)
    assert {fire.task.job_id for fire in met} == {2}


def test_a_schedule_that_cannot_be_read_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    known = town(1) | {2: spans([JobVersion(2, 1, JobState.ACTIVE, NOON_MS, NOON_MS, SPEC.evolve(schedule="61 * *"))])}
    met = list[Fire]()
    walk_over(known).go(NOON_MS, NOON_MS + 8 * MINUTE_MS, known, met.extend, lambda: True)
    assert {fire.task.job_id for fire in met} == {1}
    assert "cannot be audited" in caplog.text


def test_every_second_is_met_in_a_step() -> None:
    known = town(1, schedule="@every 1s")
    met = list[Fire]()
    walk_over(known).go(NOON_MS + DELAY_MS, NOON_MS + DELAY_MS + 3 * STEP_MS, known, met.extend, lambda: True)
    assert len(met) == len(set(met)) == 180
