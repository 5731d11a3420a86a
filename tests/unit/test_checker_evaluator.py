"""The checker's evaluator against tables measured with cron, and against the product's schedules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.schedule import Dst, Fold, Gap, parse_schedule
from tests.faults.checker.evaluator import EvaluatorError, Rules, due, fire_times

SPRING, AUTUMN = "2026-03-29", "2026-10-25"
#: What Debian's cron did in Europe/Berlin: (schedule, runs on the day of the gap, runs on the day of the fold), as UTC.
GOLDEN = [
    ("30 2 * * *", ["01:00"], ["00:30"]),
    ("15,45 2 * * *", ["01:00"], ["00:15", "00:45"]),
    ("*/15 2 * * *", [], ["00:00", "00:15", "00:30", "00:45", "01:00", "01:15", "01:30", "01:45"]),
]
#: Days around clock changes of many kinds: an hour, half an hour, three hours, a day, at midnight, and none.
CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("America/Havana", "2026-03-08T05:00"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
    ("Antarctica/Troll", "2026-03-29T01:00"),
    ("Antarctica/Troll", "2026-10-25T01:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),
    ("Asia/Kolkata", "2026-06-01T00:00"),
    ("UTC", "2026-12-31T23:00"),
]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def clock(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%H:%M}"


@pytest.mark.parametrize(("schedule", "spring", "autumn"), GOLDEN)
def test_is_due_when_cron_was(schedule: str, spring: list[str], autumn: list[str]) -> None:
    for day, expected in ((SPRING, spring), (AUTUMN, autumn)):
        # The day as Berlin has it begins at 23:00 UTC in winter and at 22:00 in summer.
        start_s = seconds(f"{day}T00:00") - (3600 if day == SPRING else 7200)
        found = fire_times(schedule, "Europe/Berlin", Rules(), start_s, seconds(f"{day}T12:00"))
        assert [clock(at) for at in found] == expected


@pytest.mark.parametrize(
    ("gap", "fold", "spring", "autumn"),
    [
        ("skip", "first", [], ["00:30"]),
        ("run_after", "second", ["01:00"], ["01:30"]),
        ("skip", "both", [], ["00:30", "01:30"]),
    ],
)
def test_explicit_rules_replace_those_of_cron(gap: str, fold: str, spring: list[str], autumn: list[str]) -> None:
    for day, expected in ((SPRING, spring), (AUTUMN, autumn)):
        found = fire_times(
            "30 2 * * *", "Europe/Berlin", Rules(gap, fold), seconds(f"{day}T00:00"), seconds(f"{day}T12:00")
        )
        assert [clock(at) for at in found] == expected


def test_other_forms() -> None:
    start_s = seconds("2026-11-21T00:00")
    assert fire_times("@every 1m30s", "UTC", Rules(), start_s, start_s + 181) == [
        start_s * 1000,
        start_s * 1000 + 90_000,
        start_s * 1000 + 180_000,
    ]
    assert fire_times("@at 2026-11-21T00:00:05Z", "UTC", Rules(), start_s, start_s + 6) == [start_s * 1000 + 5000]
    assert fire_times("@at 2026-11-21T00:00:05Z", "UTC", Rules(), start_s, start_s + 5) == []
    assert fire_times("5-6 * * * * *", "UTC", Rules(), start_s, start_s + 60) == [
        start_s * 1000 + 5000,
        start_s * 1000 + 6000,
    ]
    assert fire_times("@hourly", "Asia/Kolkata", Rules(), start_s, start_s + 3600) == [start_s * 1000 + 1_800_000]
    window = {"starts_at": "2026-11-21T00:00:20Z", "ends_at": "2026-11-21T00:00:40Z", "timezone": "UTC"}
    assert due({"schedule": "*/20 * * * * *; @every 30s", **window}, start_s, start_s + 60) == [
        start_s * 1000 + 20_000,
        start_s * 1000 + 30_000,
    ]


@pytest.mark.parametrize(
    "text", ["H * * * *", "0 0 L * *", "0 0 * * 1#2", "* * * *", "60 * * * *", "@every 3x", "1/2 * * * *"]
)
def test_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(EvaluatorError):
        fire_times(text, "UTC", Rules(), 0, 60)


def field(low: int, high: int, *, step: bool = True) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 15)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    one = st.one_of(number.map(str), span, *([stepped] if step else []))
    return st.one_of(st.just("*"), st.lists(one, min_size=1, max_size=3).map(",".join))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    fields = [field(0, 59), field(0, 5), field(1, 31), field(1, 12), field(0, 7, step=False)]
    if draw(st.booleans()):
        fields.insert(0, st.sampled_from(["0", "*/20", "7,31"]))
    # Most days and months, or nothing would ever be due.
    return " ".join(
        draw(one) if index < len(fields) - 3 or draw(st.integers(0, 3)) == 0 else "*"
        for index, one in enumerate(fields)
    )


@settings(max_examples=40, deadline=None)
@given(
    text=expressions(),
    change=st.sampled_from(CHANGES),
    gap=st.sampled_from([None, *Gap]),
    fold=st.sampled_from([None, *Fold]),
)
def test_agrees_with_the_product(text: str, change: tuple[str, str], gap: Gap | None, fold: Fold | None) -> None:
    zone, at = change
    start_s, end_s = seconds(at) - 4 * 3600, seconds(at) + 5 * 3600
    try:
        schedule = parse_schedule(text, zone, Dst(gap, fold))
    except ValueError:
        return  # it could never fire
    expected = schedule.fire_times(start_s * 1000 - 1, end_s * 1000 - 1, limit=100_000)
    assert fire_times(text, zone, Rules(gap, fold), start_s, end_s) == expected
