"""The search for fire times of an expression: first the times on the clock's face, then the instants they stand for.

Times on a zone's clock ("local") are whole seconds counted from 1970-01-01T00:00 as that clock shows it; instants are
whole seconds of the epoch, UTC. Nothing here is slower for a schedule that rarely fires: months are looked up whole.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from cronkeeper.domain.calendars import EPOCH_DAY, Closures
from cronkeeper.domain.cronfields import CronFields, month_days

_DAY_S = 86_400
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# A clock's face has no zone.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
#: So far ahead the clock is looked at once for all times in between: no zone has two changes within that.
_STRIDE_S = 6 * 3600
#: Debian's cron takes a greater jump for a clock that was set, and forgets what lay in between: it catches up on 180
#: minutes, the one that the clock lands on among them.
CRON_GAP_S = 3 * 3600 - 60


def local_times(fields: CronFields, start_s: int, end_s: int, closures: Closures | None) -> Iterator[int]:
    """Yield the local times in [start, end) that match, ascending."""
    first, last = start_s // _DAY_S, end_s // _DAY_S
    if closures is None:
        days = _days(fields, first, last)
    else:
        days = closures.moved(_days(fields, first - closures.reach, last + closures.reach))
    seconds = (0,) if fields.second is None else fields.second.ordered
    minutes = fields.minute.ordered
    for day in days:
        if day < first:
            continue
        at_day = day * _DAY_S
        hours = fields.hour.ordered
        if day == first:
            hours = hours[bisect_left(hours, (start_s - at_day) // 3600) :]
        for hour in hours:
            at_hour = at_day + hour * 3600
            chosen = minutes if start_s <= at_hour else minutes[bisect_left(minutes, (start_s - at_hour) // 60) :]
            for minute in chosen:
                for second in seconds:
                    at = at_hour + minute * 60 + second
                    if at >= start_s:
                        if at >= end_s:
                            return
                        yield at


def instants(
    times: Iterable[int], zone: ZoneInfo, *, skip_gap: bool, first: bool, second: bool, longest_gap_s: int
) -> Iterator[int]:
    """Yield the instants of these local times (ascending), ascending; one instant may come twice.

    A time that the clock jumps over is skipped, or stands for the end of the gap unless the gap is longer than
    `longest_gap_s`. One that comes twice stands for its `first` instant, its `second`, or both.
    """
    # Second passes come after the first-pass times that are still to be walked over: they are held back.
    held: list[int] = []
    low = high = offset = 0
    stride = 0
    for local in times:
        if not low <= local < high:
            before, after = _offset(zone, local, 0), _offset(zone, local, 1)
            if before == after:
                # Who asks for one time only shall not pay for the look ahead.
                later = local + stride
                steady = not stride or _offset(zone, later, 0) == before == _offset(zone, later, 1)
                low, high, offset, stride = local, later if steady else local, before, _STRIDE_S
            else:
                if before > after:
                    held += [local - before] if first else []
                    held += [local - after] if second else []
                elif not skip_gap and after - before <= longest_gap_s:
                    held.append(_change(zone, local - after, local - before))
                heapq.heapify(held)
                while held and held[0] <= local - before:
                    yield heapq.heappop(held)
                continue
        while held and held[0] <= local - offset:
            yield heapq.heappop(held)
        yield local - offset
    yield from sorted(held)


def first_local(zone: ZoneInfo, after_s: int) -> int:
    """Return the local time from which on a walk finds every instant after that one (and perhaps some before)."""
    # In the first pass of a fold, the second pass of times that lie behind is still to come.
    return after_s + min(offset_at(zone, after_s), offset_at(zone, after_s + _DAY_S))


def offset_at(zone: ZoneInfo, instant_s: int) -> int:
    """Return the zone's offset from UTC at an instant, in seconds."""
    found = datetime.fromtimestamp(instant_s, zone).utcoffset()
    assert found is not None
    return found.days * _DAY_S + found.seconds


def _offset(zone: ZoneInfo, local: int, fold: int) -> int:
    moment = _EPOCH + timedelta(seconds=local)
    found = zone.utcoffset(moment.replace(fold=1) if fold else moment)
    assert found is not None
    return found.days * _DAY_S + found.seconds


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """Return the instant of the clock change in (low, high]."""
    before = offset_at(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def _days(fields: CronFields, first: int, last: int) -> Iterator[int]:
    """Yield the days in [first, last] that match, counted from 1970-01-01."""
    if fields.every_day:
        yield from range(first, last + 1)
        return
    start = date.fromordinal(first + EPOCH_DAY)
    year, month = start.year, start.month
    begin = first - start.day + 1
    while begin <= last:
        length = _february(year) if month == 2 else _LENGTHS[month - 1]
        if month in fields.month.values:
            for day in month_days(fields.day, fields.weekday, length, (begin + 4) % 7):
                if first <= begin + day - 1 <= last:
                    yield begin + day - 1
        begin += length
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def _february(year: int) -> int:
    return 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
