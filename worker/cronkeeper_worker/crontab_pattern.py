"""From a schedule to the five numeric fields by which this node's cron wakes for all of its fires. PURE.

A schedule that this node's cron cannot express becomes a superset of its minutes. The superset is computed for the next
400 days. Whoever installs it asks again from time to time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cronkeeper.domain.instants import from_ms
from cronkeeper.domain.schedule import Dst, Kind, Schedule, clock_changes, load_zone

EVERY_MINUTE = "* * * * *"
DAY_MS = 86_400_000
_MINUTES_OF_DAY = 1440


@dataclass(frozen=True, slots=True)
class _Clock:
    """A zone's clock in the next 400 days: all its offsets from UTC in seconds, and its changes."""

    offsets: frozenset[int]
    changes: tuple[tuple[int, int, int], ...]


def pattern_for(schedule: Schedule, node_timezone: str, now_ms: int) -> str | None:
    """Return five numeric fields such that cron, in the node's zone, wakes for every fire in the next 400 days.

    For one schedule; of several, ask for each of their parts.

    A fire at a full minute is woken for in that minute (or, in the gap of a clock change, where cron catches up). One
    that has seconds is woken for in the next minute too, so that it is found due even when nobody else looks. None: an
    instant that has passed.
    """
    node = _clock(node_timezone, now_ms // DAY_MS)
    match schedule.kind:
        case Kind.AT:
            return _at(schedule, node_timezone, now_ms)
        case Kind.REBOOT:
            # Should no daemon come up, the first call after the node's start finds it due.
            return EVERY_MINUTE
        case Kind.EVERY:
            return _every(schedule.every_s, node)
        case Kind.CRON:
            return _cron(schedule, node, now_ms)
        case Kind.SEVERAL:
            raise ValueError("several schedules have no pattern in common")


def _at(schedule: Schedule, node_timezone: str, now_ms: int) -> str | None:
    # One minute late is still worth a wake-up: the daemon may have been away.
    if schedule.at_ms < now_ms - 60_000:
        return None
    zone = load_zone(node_timezone)
    moments = [from_ms(ms).astimezone(zone) for ms in (schedule.at_ms, schedule.at_ms + 59_999)]
    if _clock(node_timezone, schedule.at_ms // DAY_MS - 2).changes[:1]:
        # In the hour that comes twice, cron runs fixed hours once: wake in every hour of those days.
        hours = "*"
    else:
        hours = _list({moment.hour for moment in moments}, 0, 23)
    minutes = _list({moment.minute for moment in moments}, 0, 59)
    days = ",".join(str(day) for day in sorted({moment.day for moment in moments}))
    months = ",".join(str(month) for month in sorted({moment.month for moment in moments}))
    return f"{minutes} {hours} {days} {months} *"


def _every(every_s: int, node: _Clock) -> str:
    # Counted from the epoch, so in UTC it always falls on multiples of this; the day's pattern is the same every day.
    step_s = math.gcd(every_s, 86_400)
    if step_s < 60 or step_s % 60:
        return EVERY_MINUTE
    return _pattern({second // 60 for second in range(0, 86_400, step_s)}, node)


def _cron(schedule: Schedule, node: _Clock, now_ms: int) -> str:
    fields = schedule.fields
    assert fields is not None
    own = _clock(schedule.timezone, now_ms // DAY_MS)
    moves = schedule.closures is not None and schedule.closures.reach > 0
    plain = fields.for_cron and not moves and (schedule.dst == Dst() or not own.changes)
    if plain and own == node:
        return fields.text
    local = {hour * 60 + minute for hour in fields.hour.values for minute in fields.minute.values}
    minutes = {(minute - offset // 60) % _MINUTES_OF_DAY for minute in local for offset in own.offsets}
    minutes |= _gap_ends(local, own)
    if fields.second is not None and fields.second.values != {0}:
        minutes |= {(minute + 1) % _MINUTES_OF_DAY for minute in minutes}
    return _pattern(minutes, node)


def _gap_ends(local: set[int], own: _Clock) -> set[int]:
    """Return the minutes of the day (UTC) at which what the clock has jumped over fires."""
    found = set()
    for change_ms, before, after in own.changes:
        first = change_ms // 60_000 + before // 60
        if any(minute % _MINUTES_OF_DAY in local for minute in range(first, first + (after - before) // 60)):
            found.add(change_ms // 60_000 % _MINUTES_OF_DAY)
    return found


def _pattern(utc_minutes: Iterable[int], node: _Clock) -> str:
    """Return a pattern of every day that covers these minutes of the day (UTC) on the node's clock."""
    local = {(minute + offset // 60) % _MINUTES_OF_DAY for minute in utc_minutes for offset in node.offsets}
    minutes = _list({minute % 60 for minute in local}, 0, 59)
    # In the hour that comes twice, cron runs what has fixed hours only once; with `*` it follows the clock.
    hours = "*" if node.changes else _list({minute // 60 for minute in local}, 0, 23)
    return f"{minutes} {hours} * * *"


def _list(values: set[int], low: int, high: int) -> str:
    """Write a set of numbers as a crontab field, short: `*`, `*/15`, `0-4,30`."""
    ordered = sorted(values)
    if len(ordered) == high - low + 1:
        return "*"
    if len(ordered) > 2:
        step = ordered[1] - ordered[0]
        if ordered == list(range(low, high + 1, step)):
            return f"*/{step}"
    return ",".join(_runs(ordered))


def _runs(ordered: Sequence[int]) -> list[str]:
    runs: list[list[int]] = []
    for value in ordered:
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


@lru_cache(maxsize=1024)
def _clock(timezone: str, day: int) -> _Clock:
    """Return the zone's clock from the beginning of a day (UTC, counted from the epoch) on."""
    start_ms = day * DAY_MS
    offset = from_ms(start_ms).astimezone(load_zone(timezone)).utcoffset()
    assert offset is not None
    # Two days back: a change of yesterday may still be today in another zone.
    changes = tuple(clock_changes(timezone, start_ms - 2 * DAY_MS, days=402))
    offsets = {int(offset.total_seconds())} | {value for _, *pair in changes for value in pair}
    return _Clock(frozenset(offsets), changes)
