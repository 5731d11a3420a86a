"""The forecast of the fleet: every fire counted once, load by past durations, crowds named, quiet minutes found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.errors import ValidationFailedError
from cronkeeper_manager.service.outlook import HOUR_MS, MINUTE_MS, By, FleetForecast, Part, expect

NOON = parse_rfc3339("2026-03-01T12:00:00Z")


def part(schedule: str, *, tasks: int = 1, took_s: float | None = 0.0, **spec: Any) -> Part:
    fields = {"executable": "true", "type": JobType.COMMAND, **spec}
    return Part(JobSpec(schedule=schedule, **fields), tasks, None if took_s is None else round(took_s * 1000))


def seen(*parts: Part, minutes: int = 60, start: int = NOON, by: By = By.MINUTE) -> FleetForecast:
    return expect(parts, from_ms=start, to_ms=start + minutes * MINUTE_MS, by=by)


def fires(found: FleetForecast) -> list[float]:
    return [bucket.fires for bucket in found.buckets]


def loads(found: FleetForecast) -> list[float]:
    return [bucket.load for bucket in found.buckets]


def test_each_minute_has_the_fires_of_all_shards() -> None:
    found = seen(part("*/2 * * * *", tasks=3), part("1 * * * *"), part("*/20 2 * * * *"), minutes=5)
    assert fires(found) == [3, 1, 6, 0, 3]
    assert (found.jobs, found.tasks) == (3, 5)


def test_the_range_is_widened_to_whole_minutes_and_its_end_is_not_in_it() -> None:
    found = expect([part("* * * * *")], from_ms=NOON + 5, to_ms=NOON + 2 * MINUTE_MS - 5, by=By.MINUTE)
    assert (found.from_ms, found.to_ms, fires(found)) == (NOON, NOON + 2 * MINUTE_MS, [1, 1])


def test_hours_are_those_of_the_clock_and_may_be_cut() -> None:
    found = seen(part("*/10 * * * *"), minutes=90, start=NOON + 30 * MINUTE_MS, by=By.HOUR)
    assert [(bucket.at_ms - NOON, bucket.fires) for bucket in found.buckets] == [(30 * MINUTE_MS, 3), (HOUR_MS, 6)]


def test_load_is_the_mean_number_of_runs_in_progress() -> None:
    assert loads(seen(part("2 * * * *", took_s=15), minutes=4)) == [0, 0, 0.25, 0]
    assert loads(seen(part("1 * * * *", took_s=120, tasks=2), minutes=5)) == [0, 2, 2, 0, 0]
    assert loads(seen(part("* * * * *", took_s=180), minutes=3)) == [3, 3, 3]
    assert loads(seen(part("59 11 * * *", took_s=180), minutes=4)) == [1, 1, 0, 0]
    assert loads(seen(part("0 12 * * *", took_s=1800), minutes=60, by=By.HOUR)) == [0.5]


def test_a_job_that_never_ran_adds_fires_and_no_load() -> None:
    found = seen(part("* * * * *", took_s=None, tasks=4), part("* * * * *", took_s=30), minutes=1)
    assert (found.buckets[0].fires, found.buckets[0].load, found.unmeasured) == (5, 0.5, 4)


def test_jitter_spreads_the_starts() -> None:
    assert fires(seen(part("1 * * * *", jitter_s=180, tasks=3), minutes=5)) == [0, 1, 1, 1, 0]
    assert fires(seen(part("1 * * * *", jitter_s=90, tasks=3), minutes=4)) == [0, 2, 1, 0]
    assert fires(seen(part("59 11 * * *", jitter_s=120, tasks=2), minutes=2)) == [1, 0]


def test_a_job_s_window_calendar_and_zone_count() -> None:
    assert fires(
        seen(part("* * * * *", starts_at_ms=NOON + MINUTE_MS, ends_at_ms=NOON + 2 * MINUTE_MS), minutes=3)
    ) == [
        0,
        1,
        0,
    ]
    assert fires(seen(part("0 13 * * *", timezone="Europe/Berlin"), minutes=2)) == [1, 0]


def test_a_crowded_minute_is_named_with_what_makes_it() -> None:
    crowd = [part("30 * * * *", tasks=40), part("30 12 * * *", tasks=20, timezone="UTC"), part("* * * * *")]
    (herd,) = seen(*crowd).herds
    assert (herd.at_ms, herd.fires) == (NOON + 30 * MINUTE_MS, 61)
    assert herd.schedules == (("30 * * * *", "UTC", 40), ("30 12 * * *", "UTC", 20), ("* * * * *", "UTC", 1))
    assert seen(part("* * * * *", tasks=1000)).herds == ()
    assert seen(part("30 * * * *", tasks=9)).herds == ()


def test_the_quietest_are_those_with_the_fewest_starts_then_the_least_load() -> None:
    found = seen(part("0-56 * * * *"), part("57 * * * *", took_s=3600), minutes=60)
    assert [(bucket.at_ms - NOON) // MINUTE_MS for bucket in found.quietest] == [58, 59, 0, 1, 2]
    assert found.quiet_minutes == (58, 59, 0, 1, 2)


@pytest.mark.parametrize(
    ("minutes", "by", "said"),
    [
        (0, By.MINUTE, "not after"),
        (2 * 1440 + 1, By.MINUTE, "2 days"),
        (7 * 1440 + 1, By.HOUR, "7 days"),
    ],
)
def test_a_range_without_sense_is_refused(minutes: int, by: By, said: str) -> None:
    with pytest.raises(ValidationFailedError, match=said):
        seen(minutes=minutes, by=by)


def test_what_would_take_too_long_is_refused() -> None:
    some = [part("* * * * * *", timezone=zone) for zone in ("UTC", "Asia/Tokyo")]
    span = {"from_ms": NOON, "to_ms": NOON + 10 * MINUTE_MS, "by": By.MINUTE}
    assert sum(fires(expect(some, **span, most=1200))) == 1200  # type: ignore[arg-type]
    with pytest.raises(ValidationFailedError, match="more than 1199 fires"):
        expect(some, **span, most=1199)  # type: ignore[arg-type]


TEXTS = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "H * * * *",
        "H H/3 * * *",
        "5,50 */2 * * *",
        "@every 90s",
        "*/20 * * * * *",
        "0 9 * * 1-5",
    ]
)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    return part(
        draw(TEXTS),
        tasks=draw(st.integers(1, 3)),
        took_s=draw(st.sampled_from([None, 0.0, 20.0, 60.0, 600.0])),
        name=f"job-{draw(st.integers(0, 5))}",
        timezone=draw(st.sampled_from(["UTC", "Europe/Berlin"])),
    )


@given(st.lists(parts(), max_size=8), st.integers(0, 300), st.integers(1, 300))
def test_it_equals_the_sum_of_the_jobs_one_by_one(some: list[Part], shift: int, minutes: int) -> None:
    """Against a count that knows of no groups: each job's own fires, and each run's minutes, one after the other."""
    start = parse_rfc3339("2026-03-29T00:00:00Z") + shift * MINUTE_MS
    found = seen(*some, minutes=minutes, start=start)
    starts, busy_s = [0] * minutes, [0.0] * minutes
    for one in some:
        took = (one.took_ms or 0) // MINUTE_MS
        times = one.spec.parsed_schedule().fire_times(
            start - took * MINUTE_MS - 1, start + minutes * MINUTE_MS - 1, limit=100_000
        )
        for minute in ((fire_ms - start) // MINUTE_MS for fire_ms in times):
            if minute >= 0:
                starts[minute] += one.tasks
                busy_s[minute] += 0 if took else one.tasks * (one.took_ms or 0) / 1000
            for later in range(max(minute, 0), min(minute + took, minutes)):
                busy_s[later] += 60 * one.tasks
    assert fires(found) == starts
    assert loads(found) == pytest.approx([seconds / 60 for seconds in busy_s], abs=0.011)
    assert sum(fires(seen(*some, minutes=minutes, start=start, by=By.HOUR))) == sum(starts)
