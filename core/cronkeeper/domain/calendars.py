"""Days on which a job does not fire, and what becomes of its fires then; and blackouts, in which nothing fires at all.

All dates are in the spec, those of holidays too: they were copied from the library when the job was saved, so that
every node sees the same days, and no upgrade of a library moves a job.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339
from cronkeeper.domain.named_calendars import Dates, days_of

MAX_DATES = 1000
MAX_REGIONS = 10
MAX_BLACKOUTS = 100
#: A fire that finds no allowed day within so many days is dropped.
MAX_MOVE_DAYS = 31
#: The ordinal of 1970-01-01: days are counted from there.
EPOCH_DAY = date(1970, 1, 1).toordinal()


class Weekday(StrEnum):
    SUN = "sun"
    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"


class OnExcluded(StrEnum):
    """What becomes of a fire on an excluded day: it is dropped, or it moves, at its own time of day."""

    SKIP = "skip"
    NEXT = "next"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days on which a job does not fire, in its own zone.

    The job's own `include` wins over everything else, its own `exclude` over all that named calendars include, and
    what they include over all that is left.
    """

    #: Countries and regions whose public holidays are excluded, such as `DE-BY`.
    holidays: tuple[str, ...] = ()
    exclude: tuple[date, ...] = ()
    exclude_weekdays: tuple[Weekday, ...] = ()
    include: tuple[date, ...] = ()
    on_excluded: OnExcluded = OnExcluded.SKIP
    #: Calendars of the job's namespace, by name.
    named: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Blackout:
    """A time in which no fire is due: [from, to), epoch milliseconds, UTC."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Closures:
    """A calendar and blackouts as the search needs them. Days are counted from 1970-01-01."""

    days: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    included: frozenset[int] = frozenset()
    on_excluded: OnExcluded = OnExcluded.SKIP
    #: Ordered and apart from each other.
    blackouts: tuple[tuple[int, int], ...] = ()

    def allows(self, day: int) -> bool:
        """Say whether jobs may fire on that day."""
        # 1970-01-01 was a Thursday.
        return day in self.included or not (day in self.days or (day + 4) % 7 in self.weekdays)

    def moved(self, days: Iterator[int]) -> Iterator[int]:
        """Yield what is left of these days (ascending): without the excluded ones, or with others in their place."""
        last = None
        for day in days:
            found = self._target(day)
            if found is not None and found != last:
                last = found
                yield found

    def blackout_end_ms(self, fire_ms: int) -> int | None:
        """Return the end of the blackout in which the instant lies, None outside of all."""
        index = bisect_right(self.blackouts, (fire_ms, 1 << 62)) - 1
        return self.blackouts[index][1] if index >= 0 and fire_ms < self.blackouts[index][1] else None

    @property
    def reach(self) -> int:
        """How many days a fire may be away from where the schedule alone would have it."""
        return 0 if self.on_excluded is OnExcluded.SKIP else MAX_MOVE_DAYS

    def _target(self, day: int) -> int | None:
        if self.allows(day):
            return day
        if self.on_excluded is OnExcluded.SKIP:
            return None
        way = 1 if self.on_excluded is OnExcluded.NEXT else -1
        near = (day + way * distance for distance in range(1, MAX_MOVE_DAYS + 1))
        return next((other for other in near if self.allows(other)), None)


def closures(
    calendar: Calendar | None,
    holiday_dates: Mapping[str, Sequence[date]],
    blackouts: Sequence[Blackout],
    named_dates: Mapping[str, Dates],
) -> Closures | None:
    """Return what the search needs, None when nothing is closed. What was not copied closes nothing."""
    windows = _apart(blackouts)
    if calendar is None:
        return Closures(blackouts=windows) if windows else None
    holidays = (found for region in calendar.holidays for found in holiday_dates.get(region, ()))
    named = [named_dates[name] for name in calendar.named if name in named_dates]
    own, order = _days(calendar.exclude), list(Weekday)
    return Closures(
        own.union(_days(holidays), *(days_of(one.exclude) for one in named)),
        frozenset(order.index(weekday) for weekday in calendar.exclude_weekdays),
        _days(calendar.include).union(*(days_of(one.include) - own for one in named)),
        calendar.on_excluded,
        windows,
    )


def why_closed(
    calendar: Calendar, holiday_dates: Mapping[str, Sequence[date]], named_dates: Mapping[str, Dates], day: date
) -> str:
    """Say in words why the calendar excludes a day; an empty text for one that it allows."""
    number, own = day.toordinal() - EPOCH_DAY, day in calendar.exclude
    named = {name: named_dates[name] for name in calendar.named if name in named_dates}
    if day in calendar.include or (not own and any(number in days_of(one.include) for one in named.values())):
        return ""
    regions = [region for region in calendar.holidays if day in holiday_dates.get(region, ())]
    if regions:
        return f"{day} is a holiday of {', '.join(regions)}"
    if own:
        return f"{day} is excluded by the job's calendar"
    if names := [name for name, one in named.items() if number in days_of(one.exclude)]:
        return f"{day} is excluded by the calendar {', '.join(names)}"
    weekday = list(Weekday)[day.isoweekday() % 7]
    return f"{day} is a {day:%A}, which the job's calendar excludes" if weekday in calendar.exclude_weekdays else ""


def known_until(holiday_dates: Mapping[str, Sequence[date]]) -> date | None:
    """Return the last day for which the holidays of all regions are known; None without any."""
    ends = [date(max(dates).year, 12, 31) for dates in holiday_dates.values() if dates]
    return min(ends, default=None)


def ends_within(holiday_dates: Mapping[str, Sequence[date]], months: int, *, now_ms: int) -> bool:
    """Say whether the holidays of any region are known for less than so many months. No, where there are none."""
    until, now = known_until(holiday_dates), from_ms(now_ms).date()
    return until is not None and (until.year - now.year) * 12 + until.month - now.month < months


def calendar_to_dict(calendar: Calendar) -> dict[str, Any]:
    """Return the calendar in its JSON shape, defaults included."""
    return {
        "holidays": list(calendar.holidays),
        "exclude": [found.isoformat() for found in calendar.exclude],
        "exclude_weekdays": [weekday.value for weekday in calendar.exclude_weekdays],
        "include": [found.isoformat() for found in calendar.include],
        "on_excluded": calendar.on_excluded.value,
        "named": list(calendar.named),
    }


def calendar_from_dict(data: Mapping[str, Any]) -> Calendar:
    """Read what `calendar_to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    return Calendar(
        tuple(str(region) for region in data["holidays"]),
        tuple(date.fromisoformat(text) for text in data["exclude"]),
        tuple(Weekday(text) for text in data["exclude_weekdays"]),
        tuple(date.fromisoformat(text) for text in data["include"]),
        OnExcluded(data["on_excluded"]),
        tuple(str(name) for name in data.get("named", ())),
    )


def blackout_to_dict(blackout: Blackout) -> dict[str, str]:
    """Return the blackout in its JSON shape."""
    return {"from": rfc3339(blackout.from_ms), "to": rfc3339(blackout.to_ms)}


def blackout_from_dict(data: Mapping[str, Any]) -> Blackout:
    """Read what `blackout_to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    return Blackout(parse_rfc3339(data["from"]), parse_rfc3339(data["to"]))


def _days(dates: Iterable[date]) -> frozenset[int]:
    return frozenset(found.toordinal() - EPOCH_DAY for found in dates)


def _apart(blackouts: Sequence[Blackout]) -> tuple[tuple[int, int], ...]:
    """Return the windows in order, those that meet made one."""
    found: list[tuple[int, int]] = []
    for window in sorted(blackouts, key=lambda one: one.from_ms):
        if found and window.from_ms <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], window.to_ms))
        elif window.to_ms > window.from_ms:
            found.append((window.from_ms, window.to_ms))
    return tuple(found)
