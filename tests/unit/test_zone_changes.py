"""Every zone of the database, over both clock changes, for every rule: exactly the fires that the rule says.

The evaluator here shares nothing with the product: it looks at the clock once for each minute around the change, and
only then asks which instants a time on the clock's face stands for.
"""

from __future__ import annotations

import itertools
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest

from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339
from cronkeeper.domain.schedule import Dst, Fold, Gap, clock_changes, parse_schedule

NOW = parse_rfc3339("2026-11-21T00:00:00Z")
MINUTE_MS = 60_000
_MINUTE = timedelta(minutes=1)
#: What is looked at around a change, and the margin that the evaluator needs on both sides.
AROUND_MS, MARGIN_MS = 4 * 3_600_000, 2 * 3_600_000
WILD = "*/10 * * * *"
FIXED = "0,10,20,30,40,50 0-23 * * *"
RULES = [(text, Dst(gap, fold)) for text in (WILD, FIXED) for gap in (None, *Gap) for fold in (None, *Fold)]
SHARDS = 8


@dataclass(frozen=True)
class Face:
    """The clock's face over some hours around a change: for each minute, which instants show it."""

    start_ms: int
    end_ms: int
    shown: dict[datetime, list[int]]

    def fires(self, text: str, dst: Dst) -> list[int]:
        """Return the instants of all times on the face that are multiples of ten minutes, by the rule."""
        wild = text.startswith("*")
        gap = dst.gap or (Gap.SKIP if wild else Gap.RUN_AFTER)
        fold = dst.fold or (Fold.BOTH if wild else Fold.FIRST)
        times = sorted(self.shown)
        found: set[int] = set()
        for local, later in itertools.pairwise(times):
            if local.minute % 10 == 0:
                instants = self.shown[local]
                found |= {Fold.FIRST: {instants[0]}, Fold.SECOND: {instants[-1]}, Fold.BOTH: set(instants)}[fold]
            # The end of the gap is the first instant that shows a later time.
            if (
                gap is Gap.RUN_AFTER
                and later - local > _MINUTE
                and any((local + _MINUTE * step).minute % 10 == 0 for step in range(1, (later - local) // _MINUTE))
            ):
                found.add(self.shown[later][0])
        return sorted(ms for ms in found if self.start_ms < ms <= self.end_ms)


def face_of(zone: str, change_ms: int) -> Face:
    start_ms, end_ms = change_ms - AROUND_MS, change_ms + AROUND_MS
    shown: dict[datetime, list[int]] = {}
    for ms in range(start_ms - MARGIN_MS, end_ms + MARGIN_MS, MINUTE_MS):
        local = from_ms(ms).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        shown.setdefault(local, []).append(ms)
    return Face(start_ms, end_ms, shown)


@cache
def zones() -> list[str]:
    return sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})


@cache
def changes_of(zone: str) -> list[tuple[int, int, int]]:
    """Return the next changes; for a zone that gave up on them, those of 2011."""
    found = clock_changes(zone, NOW) or clock_changes(zone, parse_rfc3339("2011-01-01T00:00:00Z"))
    return [(at, before, after) for at, before, after in found if after - before <= 3 * 3600]


@cache
def expected(zone: str, change_ms: int) -> list[list[int]]:
    face = face_of(zone, change_ms)
    return [face.fires(text, dst) for text, dst in RULES]


def test_there_are_zones_enough() -> None:
    assert len(zones()) >= 400
    assert sum(len(changes_of(zone)) for zone in zones()) >= 400


@pytest.mark.parametrize("shard", range(SHARDS))
def test_each_rule_gives_exactly_the_fires_that_it_says(shard: int) -> None:
    alike: dict[tuple[int, int, int], str] = {}
    for zone in zones()[shard::SHARDS]:
        for change in changes_of(zone):
            # Faces are the same where the same clock is changed alike; our search is asked about every zone.
            fires = expected(alike.setdefault(change, zone), change[0])
            low, high = change[0] - AROUND_MS, change[0] + AROUND_MS
            for (text, dst), wanted in zip(RULES, fires, strict=True):
                found = parse_schedule(text, zone, dst).fire_times(low, high, limit=1000)
                assert found == wanted, f"{zone} {rfc3339(change[0])} {text} {dst}"


@pytest.mark.parametrize("minutes", [-25, 0, 25])
def test_a_search_may_start_anywhere_around_a_change(minutes: int) -> None:
    alike: dict[tuple[int, int, int], str] = {}
    for zone in zones():
        for change in changes_of(zone):
            if alike.setdefault(change, zone) != zone:
                continue
            low, middle, high = change[0] - AROUND_MS, change[0] + minutes * MINUTE_MS, change[0] + AROUND_MS
            for text, dst in RULES:
                schedule = parse_schedule(text, zone, dst)
                parts = schedule.fire_times(low, middle) + schedule.fire_times(middle, high)
                assert parts == schedule.fire_times(low, high), f"{zone} {rfc3339(change[0])} {text} {dst}"


APIA = [
    (
        "cron takes the lost day for a clock that was set",
        "0 9 * * *",
        Dst(),
        ["2011-12-28", "2011-12-29", "2011-12-31"],
    ),
    (
        "by rule, at its end",
        "0 9 * * *",
        Dst(gap=Gap.RUN_AFTER),
        ["2011-12-28", "2011-12-29", "2011-12-31", "2011-12-31"],
    ),
    ("by rule, not at all", "0 9 * * *", Dst(gap=Gap.SKIP), ["2011-12-28", "2011-12-29", "2011-12-31"]),
    ("six fields follow the clock", "0 0 9 * * *", Dst(), ["2011-12-28", "2011-12-29", "2011-12-31"]),
]


@pytest.mark.parametrize(("case", "text", "dst", "expected"), APIA, ids=[row[0] for row in APIA])
def test_apias_lost_day(case: str, text: str, dst: Dst, expected: list[str]) -> None:
    start, end = (datetime(2011, 12, day, 12, tzinfo=UTC) for day in (28, 31))
    found = parse_schedule(text, "Pacific/Apia", dst).fire_times(
        int(start.timestamp() * 1000), int(end.timestamp() * 1000)
    )
    local = [from_ms(ms).astimezone(ZoneInfo("Pacific/Apia")) for ms in found]
    assert [at.date().isoformat() for at in local if at.date().isoformat() < "2012-01-01"] == expected
