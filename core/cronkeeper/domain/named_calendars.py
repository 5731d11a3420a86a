"""Named calendars: days that several jobs share by a name. A job holds a copy of the days of those that it names.

Days are written as texts: `2026-12-24`, or `2026-12-24/2027-01-02` for all days from the first to the last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

#: How many calendars a job may name.
MAX_NAMED = 3
#: How many texts a calendar may hold, and how many days they may stand for.
MAX_SPANS = 1000
MAX_DAYS = 4000
#: What a calendar takes at most of the room that a job has: so many texts, with quotes and commas.
MAX_CALENDAR_BYTES = MAX_SPANS * 24
FIRST_YEAR, LAST_YEAR = 1970, 2199

_SPAN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(/[0-9]{4}-[0-9]{2}-[0-9]{2})?", re.ASCII)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
#: From so many days in a row on, they are written as a range.
_RANGE_DAYS = 3


@dataclass(frozen=True, slots=True)
class Dates:
    """The days of a calendar, in canonical texts: ascending, apart from each other, ranges where there are any."""

    exclude: tuple[str, ...] = ()
    #: Days that are allowed although something excludes them.
    include: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Return a short text that is the same for the same days only."""
        text = f"{','.join(self.exclude)};{','.join(self.include)}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class NamedCalendar:
    """A calendar as the store holds it. Instants are epoch milliseconds, UTC."""

    namespace: str
    name: str
    description: str
    dates: Dates
    #: Grows with every change.
    generation: int
    created_ms: int
    updated_ms: int


def parse_span(text: str) -> range:
    """Return the days of one text, counted from 1970-01-01. Raises ValueError, in words."""
    if not _SPAN.fullmatch(text):
        raise ValueError("is not a day; write it as 2026-12-24, or several as 2026-12-24/2027-01-02")
    first, _, last = text.partition("/")
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        raise ValueError("is not a day; write it as 2026-12-24, or several as 2026-12-24/2027-01-02") from None
    if not (FIRST_YEAR <= begin.year <= LAST_YEAR and FIRST_YEAR <= end.year <= LAST_YEAR):
        raise ValueError(f"is out of range; use days from {FIRST_YEAR} to {LAST_YEAR}")
    if end < begin:
        raise ValueError("runs backwards; write the first day first")
    return range(begin.toordinal() - _EPOCH_DAY, end.toordinal() - _EPOCH_DAY + 1)


def spans_of(days: Iterable[int]) -> tuple[str, ...]:
    """Return the canonical texts of days that are counted from 1970-01-01."""
    runs: list[tuple[int, int]] = []
    for day in sorted(set(days)):
        if runs and day == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    found: list[str] = []
    for first, last in runs:
        if last - first + 1 >= _RANGE_DAYS:
            found.append(f"{_text(first)}/{_text(last)}")
        else:
            found += [_text(day) for day in range(first, last + 1)]
    return tuple(found)


@lru_cache(maxsize=1024)
def days_of(spans: tuple[str, ...]) -> frozenset[int]:
    """Return the days of canonical texts, counted from 1970-01-01. Many jobs share them: so does the memory."""
    return frozenset(day for text in spans for day in parse_span(text))


def dates_to_dict(copies: Mapping[str, Dates]) -> dict[str, Any]:
    """Return a job's copies in their JSON shape, by the calendar's name."""
    return {name: {"exclude": list(one.exclude), "include": list(one.include)} for name, one in copies.items()}


def dates_from_dict(data: Mapping[str, Any]) -> dict[str, Dates]:
    """Read what `dates_to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    return {str(name): _shared(tuple(one["exclude"]), tuple(one["include"])) for name, one in data.items()}


@lru_cache(maxsize=1024)
def _shared(exclude: tuple[str, ...], include: tuple[str, ...]) -> Dates:
    """Return one and the same value for the same texts, checked once."""
    for spans in (exclude, include):
        days_of(spans)
    return Dates(exclude, include)


def _text(day: int) -> str:
    return date.fromordinal(day + _EPOCH_DAY).isoformat()
