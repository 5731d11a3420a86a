"""Schedules: from a text and an IANA zone to fire times.

The plain five fields mean what Debian's cron means by them, both clock changes included (cronsim mimics it bit by bit):
a fixed time in the gap runs when the gap ends, and runs once in the fold; a wildcard minute or hour follows the clock.
`Dst` replaces that default by an explicit rule.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from cronkeeper.domain.cronfields import CronFields, ScheduleError, parse_fields
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339, to_ms

#: How far ahead the next fire is searched: the longest wait of a sound expression is a 29 February on a given weekday.
HORIZON = timedelta(days=366 * 28)
MIN_EVERY_S, MAX_EVERY_S = 1, 366 * 86_400

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = re.compile(r"(?=\d)((?P<d>\d{1,4})d)?((?P<h>\d{1,5})h)?((?P<m>\d{1,6})m)?((?P<s>\d{1,8})s)?", re.ASCII)


class Gap(StrEnum):
    """What becomes of a local time that the clock jumps over."""

    RUN_AFTER = "run_after"
    SKIP = "skip"


class Fold(StrEnum):
    """Which of two equal local times counts when the clock is set back."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Dst:
    """A job's rule for clock changes; None leaves that side to Debian cron's way."""

    gap: Gap | None = None
    fold: Fold | None = None


class Kind(StrEnum):
    CRON = "cron"
    EVERY = "every"
    AT = "at"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due: a value, made by `parse_schedule`. All instants in and out are epoch milliseconds, UTC."""

    text: str
    timezone: str
    kind: Kind
    dst: Dst = Dst()
    #: For cron expressions.
    fields: CronFields | None = None
    #: For `@every`: the interval in seconds, counted from 1970-01-01T00:00:00Z: no restart or failover shifts it.
    every_s: int = 0
    #: For `@at`.
    at_ms: int = 0

    def fire_times(self, after_ms: int, until_ms: int, *, limit: int = 100) -> list[int]:
        """Return the fire times in (after, until], oldest first.

        At most `limit` + 1 come back, so a caller that sees more than `limit` knows that there are too many.
        """
        found: list[int] = []
        for fire_ms in self._after(after_ms):
            if fire_ms > until_ms or len(found) > limit:
                break
            found.append(fire_ms)
        return found

    def next_fire(self, after_ms: int) -> int | None:
        """Return the first fire time after `after_ms`, or None when there is none in the next 28 years."""
        return next(self._after(after_ms), None)

    def latest_fires(self, after_ms: int, until_ms: int, *, keep: int, budget: int = 20_000) -> tuple[list[int], int]:
        """Return the newest `keep` fire times in (after, until], and how many older ones there were in all.

        For catching up after an absence of any length: the work is bounded by `budget` fire times, counted back from
        `until` where `@every` allows it and forward from `after` otherwise.
        """
        times = self.fire_times(after_ms, until_ms, limit=budget)
        if len(times) > budget:
            # So long away that even counting is too much: start over from as late as surely holds `keep` fires or all.
            return self.latest_fires(after_ms + (until_ms - after_ms) // 2, until_ms, keep=keep, budget=budget)
        return times[-keep:], max(0, len(times) - keep)

    def words(self) -> str:
        """Say in English when it fires, e.g. `At 09:00 on Monday through Friday`."""
        match self.kind:
            case Kind.AT:
                return f"Once, at {rfc3339(self.at_ms)}"
            case Kind.EVERY:
                return f"Every {_duration(self.every_s)}, counted from midnight UTC on 1 January 1970"
            case Kind.CRON:
                assert self.fields is not None
                zone = "" if self.timezone == "UTC" else f" ({self.timezone})"
                return CronSim(self.fields.text, datetime(2000, 1, 1, tzinfo=UTC)).explain() + zone

    def _after(self, after_ms: int) -> Iterator[int]:
        match self.kind:
            case Kind.AT:
                if self.at_ms > after_ms:
                    yield self.at_ms
            case Kind.EVERY:
                step = self.every_s * 1000
                fire_ms = (after_ms // step + 1) * step
                while True:
                    yield fire_ms
                    fire_ms += step
            case Kind.CRON:
                yield from self._cron_after(after_ms)

    def _cron_after(self, after_ms: int) -> Iterator[int]:
        assert self.fields is not None
        zone = load_zone(self.timezone)
        start = from_ms(after_ms)
        stop_ms = to_ms(min(start + HORIZON, datetime(8990, 1, 1, tzinfo=UTC)))
        ruled = self.dst != Dst() and self.timezone != "UTC"
        instants = (
            _by_rule(self.fields.text, zone, start, self.dst) if ruled else _as_cron(self.fields.text, zone, start)
        )
        last_ms = after_ms
        for instant in instants:
            fire_ms = to_ms(instant)
            if fire_ms > stop_ms:
                return
            # Several local times of a gap meet at its end, and a search that starts inside a fold sees its first pass
            # again: one instant fires once, and never backwards.
            if fire_ms > last_ms:
                last_ms = fire_ms
                yield fire_ms


@lru_cache(maxsize=1024)
def parse_schedule(text: str, timezone: str = "UTC", dst: Dst = Dst()) -> Schedule:
    """Read five fields, six with seconds first, `@hourly` and friends, `@every 90s` or `@at 2027-01-01T00:00:00Z`.

    Raises ScheduleError (position, message, hint) for the text; ValueError for the zone.
    """
    load_zone(timezone)
    stripped = text.strip(" \t")
    if not stripped:
        raise ScheduleError("the schedule is empty", hint="write five fields, such as '5 * * * *'")
    if not stripped.startswith("@"):
        return Schedule(stripped, timezone, Kind.CRON, dst, fields=parse_fields(text))
    word, _, rest = stripped.partition(" ")
    name = word.lower()
    if name in _NICKNAMES and not rest:
        return Schedule(name, timezone, Kind.CRON, dst, fields=parse_fields(_NICKNAMES[name]))
    if name == "@every":
        return Schedule(stripped, timezone, Kind.EVERY, dst, every_s=_every_s(rest.strip()))
    if name == "@at":
        try:
            return Schedule(stripped, timezone, Kind.AT, dst, at_ms=parse_rfc3339(rest.strip()))
        except ValueError as exc:
            raise ScheduleError(f"@at: {exc}", 4, "write @at 2027-01-01T00:00:00Z") from exc
    close = difflib.get_close_matches(name, [*_NICKNAMES, "@every", "@at"], n=1)
    raise ScheduleError(
        f"{word[:20]!r} is not a schedule",
        0,
        f"did you mean {close[0]}?" if close else f"known are {', '.join(_NICKNAMES)}, @every, @at",
    )


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo:
    """Return the IANA zone. Raises ValueError with the nearest names for one that does not exist."""
    if name not in _zone_names():
        close = difflib.get_close_matches(name[:64], _zone_names(), n=3, cutoff=0.5)
        mend = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"{name[:64]!r} is not a zone of the IANA database{mend}")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(name for name in zoneinfo.available_timezones() if name not in ("localtime", "posixrules"))


def clock_changes(timezone: str, after_ms: int, *, days: int = 400) -> list[tuple[int, int, int]]:
    """Return the zone's clock changes in the next `days` days: (instant in ms, offset in s before, and after)."""
    zone = load_zone(timezone)
    found = []
    day = 86_400_000
    low = after_ms
    for _ in range(days):
        high = low + day
        if _offset_s(zone, low) != _offset_s(zone, high):
            left, right = low, high
            while right - left > 1000:
                middle = (left + right) // 2000 * 1000
                if middle <= left:
                    break
                left, right = (middle, right) if _offset_s(zone, middle) == _offset_s(zone, low) else (left, middle)
            found.append((right // 1000 * 1000, _offset_s(zone, low), _offset_s(zone, high)))
        low = high
    return found


def notes(schedule: Schedule, after_ms: int) -> list[str]:
    """Return what a person should know about the schedule, in sentences: the next clock change, above all."""
    found = []
    if schedule.kind is Kind.CRON and schedule.timezone != "UTC":
        for instant, before, after in clock_changes(schedule.timezone, after_ms)[:2]:
            way = "forward" if after > before else "back"
            found.append(
                f"The clock in {schedule.timezone} goes {way} by {_duration(abs(after - before))} "
                f"at {rfc3339(instant)}."
            )
    if schedule.fields is not None and not (schedule.fields.day.star or schedule.fields.weekday.star):
        found.append("Both day fields are set: it fires when either the day of month or the day of week matches.")
    if schedule.next_fire(after_ms) is None:
        found.append("It has no fire in the future.")
    return found


def _as_cron(expression: str, zone: ZoneInfo, start: datetime) -> Iterator[datetime]:
    local = start if zone.key == "UTC" else start.astimezone(zone)
    for instant in CronSim(expression, local):
        yield instant.astimezone(UTC)


def _by_rule(expression: str, zone: ZoneInfo, start: datetime, dst: Dst) -> Iterator[datetime]:
    """Walk over local times without a zone, and map each by the rule to no, one or two instants."""
    gap, fold = dst.gap or Gap.RUN_AFTER, dst.fold or Fold.FIRST
    # Two days back: a local time before the start may map to an instant after it, and the caller drops what is too old.
    naive = start.astimezone(zone).replace(tzinfo=None) - timedelta(days=2)
    pending: list[datetime] = []
    for local in CronSim(expression, naive):
        pending += _instants(local, zone, gap, fold)
        pending.sort()
        # The second pass of a fold comes after first-pass times that are still to be walked over: hold it back.
        settled = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
        while pending and pending[0] <= settled:
            yield pending.pop(0)


def _instants(local: datetime, zone: ZoneInfo, gap: Gap, fold: Fold) -> list[datetime]:
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first == second:
        return [first]
    if first < second:
        return {Fold.FIRST: [first], Fold.SECOND: [second], Fold.BOTH: [first, second]}[fold]
    # A gap: fold=0 reads the time with the offset before the change, so `first` lies after the change by as much as the
    # time lies behind the gap's start. The gap ends at the change itself.
    if gap is Gap.SKIP:
        return []
    return [_change_between(second, first, zone)]


def _change_between(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant of the clock change in (low, high]."""
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _every_s(text: str) -> int:
    match = _EVERY.fullmatch(text)
    if match is None:
        raise ScheduleError(
            f"@every: {text[:20]!r} is not a duration", 7, "write @every 30s, @every 5m or @every 1h30m"
        )
    total = sum(int(match[unit] or 0) * size for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)))
    if not MIN_EVERY_S <= total <= MAX_EVERY_S:
        raise ScheduleError(f"@every: {text} is out of bounds", 7, "write a duration from 1s to 366d")
    return total


def _duration(seconds: int) -> str:
    parts = []
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts) or "0 seconds"


def _offset_s(zone: ZoneInfo, ms: int) -> int:
    offset = from_ms(ms).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0
