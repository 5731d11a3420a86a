"""Our evaluator beside three libraries that share nothing with it, over generated expressions.

Where they differ from Debian's cron, the difference is in a table below with its decision (docs/decisions/
0014-golden-cron.md): each row is shown to be true, and its class of expressions is then left out of the comparison.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cronkeeper.domain.cronfields import ScheduleError
from cronkeeper.domain.schedule import clock_changes, parse_schedule
from tests.golden.codec import minute_text, parse_minute
from tests.unit.schedule_peers import PEERS, Fields

_DAY_S = 86_400
_FIRES = 60


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What a library sees differently for a class of expressions: one of them, and when each side fires it."""

    peer: str
    what: str
    applies: Callable[[Fields], bool]
    example: Fields
    start: str
    until: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


def _one_value_range(fields: Fields) -> bool:
    terms = itertools.chain(*(field.split(",") for field in fields.all))
    ranges = (term.partition("/")[0].split("-") for term in terms)
    return any(len(ends) == 2 and ends[0] == ends[1] for ends in ranges)


def _steps_to_seven(fields: Fields) -> bool:
    return any("-7/" in term for term in tuple(fields.all)[-1].split(","))


#: All by the rule: Debian's cron is right, as the golden file shows.
DISAGREEMENTS = (
    Disagreement(
        "croniter",
        "a day field such as */2 counts as set: either day field may match, where cron asks for both",
        lambda fields: fields.both_days and fields.day_star,
        Fields("0", "0", "*/2", "*", "1"),
        "2023-12-31T23:00Z",
        "2024-01-08T00:00Z",
        ("2024-01-01T00:00Z", "2024-01-03T00:00Z", "2024-01-05T00:00Z", "2024-01-07T00:00Z", "2024-01-08T00:00Z"),
        ("2024-01-01T00:00Z",),
    ),
    Disagreement(
        "croniter",
        "a range from a value to itself goes once round: 9-9 is every hour",
        _one_value_range,
        Fields("0", "9-9", "*", "*", "*"),
        "2024-01-01T06:30Z",
        "2024-01-01T11:30Z",
        tuple(f"2024-01-01T{hour:02}:00Z" for hour in range(7, 12)),
        ("2024-01-01T09:00Z",),
    ),
    *(
        Disagreement(
            peer,
            "with both day fields set, both must match, where cron is content with either",
            lambda fields: fields.both_days and not fields.day_star,
            Fields("0", "0", "13", "*", "5"),
            "2024-09-10T00:00Z",
            "2024-09-20T00:00Z",
            ("2024-09-13T00:00Z",),
            ("2024-09-13T00:00Z", "2024-09-20T00:00Z"),
        )
        for peer in ("cron-converter", "APScheduler")
    ),
    Disagreement(
        "cron-converter",
        "a range of weekdays with a step loses the Sunday that it ends on",
        _steps_to_seven,
        Fields("0", "12", "*", "*", "1-7/2"),
        "2024-01-05T00:00Z",
        "2024-01-09T00:00Z",
        ("2024-01-05T12:00Z", "2024-01-08T12:00Z"),
        ("2024-01-05T12:00Z", "2024-01-07T12:00Z", "2024-01-08T12:00Z"),
    ),
)

_SPRING = ("2024-03-30T23:30Z", "2024-03-31T02:00Z")
_AUTUMN = ("2024-10-26T23:30Z", "2024-10-27T02:00Z")


@dataclass(frozen=True, slots=True)
class AtChange:
    """What each library makes of one expression at a clock change in Berlin; hours and minutes in UTC."""

    expression: str
    start: str
    until: str
    cron: tuple[str, ...]
    croniter: tuple[str, ...]
    cron_converter: tuple[str, ...]
    apscheduler: tuple[str, ...]


#: No library does here what cron does; ours must. Some go back in time (a list that does not ascend).
AT_CHANGES = (
    AtChange("30 2 * * *", *_SPRING, ("01:00",), ("01:00",), ("01:30",), ("01:30",)),
    AtChange("30 2 * * *", *_AUTUMN, ("00:30",), ("00:30", "01:30"), ("00:30",), ("00:30", "01:30")),
    AtChange("15,45 2 * * *", *_SPRING, ("01:00",), ("01:00",), ("01:15", "01:45"), ("01:15",)),
    AtChange("*/30 2 * * *", *_SPRING, (), ("01:00",), ("01:00", "01:30"), ("01:00",)),
    AtChange(
        "*/30 2 * * *",
        *_AUTUMN,
        ("00:00", "00:30", "01:00", "01:30"),
        ("00:00", "00:30", "01:00", "01:30"),
        ("00:00", "00:30"),
        ("00:00", "00:30", "01:00", "01:30"),
    ),
    AtChange(
        "30 * * * *", *_SPRING, ("00:30", "01:30"), ("00:30", "01:30"), ("00:30", "01:30", "01:30"), ("00:30", "01:30")
    ),
)

ZONES = st.sampled_from(
    ["UTC", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"]
)


@st.composite
def fields_of(draw: st.DrawFn, low: int, high: int) -> str:
    """A field as cron's manual allows it: stars, values, ranges, steps, lists of them."""

    def term() -> str:
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        kinds = ["value", "range", "star step"] + (["range step"] if last > first else [])
        match draw(st.sampled_from(kinds)):
            case "value":
                return str(first)
            case "range":
                return f"{first}-{last}"
            case "range step":
                return f"{first}-{last}/{draw(st.integers(1, last - first))}"
            case _:
                return f"*/{draw(st.integers(1, high - low))}"

    if draw(st.integers(0, 2)) == 0:
        return "*"
    return ",".join(term() for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))))


EXPRESSIONS = st.builds(Fields, fields_of(0, 59), fields_of(0, 23), fields_of(1, 31), fields_of(1, 12), fields_of(0, 7))


def ours(expression: str, zone: str, start_s: int, until_s: int, limit: int = 5000) -> list[int]:
    schedule = parse_schedule(expression, zone)
    return [ms // 1000 for ms in schedule.fire_times(start_s * 1000, until_s * 1000, limit=limit)]


@pytest.mark.parametrize("peer", PEERS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(fields=EXPRESSIONS, zone=ZONES, day=st.integers(0, 1500))
def test_equals_the_peer_but_for_what_is_decided(peer: str, fields: Fields, zone: str, day: int) -> None:
    # Over a change of half an hour it loses that half hour, days after, too.
    assume((peer, zone) != ("APScheduler", "Australia/Lord_Howe"))
    assume(not any(known.applies(fields) for known in DISAGREEMENTS if known.peer == peer))
    assume(can_fire(fields))
    start_s = parse_minute("2022-01-01T00:00Z") + day * _DAY_S
    first = ours(str(fields), zone, start_s, start_s + 60 * _DAY_S, limit=_FIRES)
    until_s = first[-1] if len(first) > _FIRES else start_s + 60 * _DAY_S
    near = [
        range(at_ms // 1000 - 3 * 3600, at_ms // 1000 + 3 * 3600)
        for at_ms, _, _ in clock_changes(zone, (start_s - _DAY_S) * 1000, days=63)
    ]
    theirs = PEERS[peer].fires(fields, ZoneInfo(zone), start_s, until_s)
    assert [at for at in first if not any(at in stretch for stretch in near)] == [
        at for at in theirs if not any(at in stretch for stretch in near)
    ]


def can_fire(fields: Fields) -> bool:
    """Whether we read it: of what cron's manual allows, we may refuse only what names no day of any month."""
    try:
        parse_schedule(str(fields))
    except ScheduleError as exc:
        if "never fires" not in exc.message:
            raise
        return False
    return True


@pytest.mark.parametrize("known", DISAGREEMENTS, ids=lambda known: f"{known.peer}: {known.what}")
def test_a_known_disagreement_is_one(known: Disagreement) -> None:
    start_s, until_s = parse_minute(known.start), parse_minute(known.until)
    assert known.applies(known.example)
    theirs = PEERS[known.peer].fires(known.example, ZoneInfo("UTC"), start_s, until_s)
    assert tuple(map(minute_text, theirs)) == known.theirs
    assert tuple(map(minute_text, ours(str(known.example), "UTC", start_s, until_s))) == known.ours
    assert known.theirs != known.ours


@pytest.mark.parametrize("row", AT_CHANGES, ids=lambda row: f"{row.expression} {row.start}")
def test_at_a_clock_change_we_do_what_cron_does(row: AtChange) -> None:
    zone, start_s, until_s = "Europe/Berlin", parse_minute(row.start), parse_minute(row.until)

    def hours(fires: list[int]) -> tuple[str, ...]:
        return tuple(minute_text(at)[11:16] for at in fires)

    fields = Fields(*row.expression.split())
    found = {name: hours(peer.fires(fields, ZoneInfo(zone), start_s, until_s)) for name, peer in PEERS.items()}
    assert found == {
        "croniter": row.croniter,
        "cron-converter": row.cron_converter,
        "APScheduler": row.apscheduler,
    }
    assert hours(ours(row.expression, zone, start_s, until_s)) == row.cron
    assert any(theirs != row.cron for theirs in found.values())
