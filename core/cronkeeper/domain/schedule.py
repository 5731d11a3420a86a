"""Schedules: from a text and an IANA zone to fire times.

The plain five fields mean what Debian's cron means by them, both clock changes included: a fixed time in the gap runs
when the gap ends, and runs once in the fold; a wildcard minute or hour follows the clock. `Dst` replaces that default
by an explicit rule.
"""

from __future__ import annotations

import difflib
import heapq
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronkeeper.domain import walk
from cronkeeper.domain.calendars import Closures, OnExcluded
from cronkeeper.domain.cronfields import CronFields, ScheduleError, parse_fields
from cronkeeper.domain.durations import every_s
from cronkeeper.domain.instants import from_ms, parse_rfc3339, rfc3339, to_ms
from cronkeeper.domain.words import cron_words, duration_words

#: How far ahead the next fire is searched: across the year 2100, a 29 February on a given weekday is 40 years away.
HORIZON = timedelta(days=366 * 41)
#: Several schedules of one job stand in one text, with `; ` between them.
MAX_SCHEDULES = 16
MAX_SCHEDULE_LENGTH = 2000

#: Once at each start of each node that the job's selector fits: due at instants that only the node itself knows.
REBOOT = "@reboot"

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r";(?=[ \t]|$)", re.ASCII)
_LAST_MS = to_ms(datetime(8990, 1, 1, tzinfo=UTC))


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
    REBOOT = "reboot"
    SEVERAL = "several"


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
    #: For `@at`; and for `@reboot`, on a node alone: when it was started. 0 is never.
    at_ms: int = 0
    #: For several schedules in one: each of them. An instant at which two of them meet is one fire time.
    parts: tuple[Schedule, ...] = ()
    #: What keeps fires from being due.
    closures: Closures | None = None

    @property
    def single(self) -> tuple[Schedule, ...]:
        """The schedules that it consists of: its parts, or just itself."""
        return self.parts or (self,)

    @property
    def spread(self) -> bool:
        """Whether it has an `H`, so that it depends on the job's name."""
        return any(part.fields is not None and part.fields.spread for part in self.single)

    @property
    def last_ms(self) -> int | None:
        """The instant of the last fire for one that consists of `@at` only; None for all others."""
        ends = [part.at_ms for part in self.single if part.kind is Kind.AT]
        return max(ends) if len(ends) == len(self.single) else None

    def on_node(self, started_ms: int) -> Schedule:
        """Return the schedule as it is on a node that was started at that instant: there `@reboot` is due then."""
        return replace(self, at_ms=started_ms) if self.kind is Kind.REBOOT else self

    def is_past_start(self, fire_ms: int) -> bool:
        """Say whether a fire of `@reboot` belongs to an earlier start of the node: its work is the present start's."""
        return self.kind is Kind.REBOOT and fire_ms < self.at_ms

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
        """Return the first fire time after `after_ms`, or None when there is none in the next 41 years."""
        return next(self._after(after_ms), None)

    def latest_fires(self, after_ms: int, until_ms: int, *, keep: int, budget: int = 20_000) -> tuple[list[int], int]:
        """Return the newest `keep` fire times in (after, until], and how many older ones there were.

        For catching up after an absence of any length. More than `budget` fire times are not counted: the second figure
        is then only what is certain.
        """
        assert keep <= budget
        times = self.fire_times(after_ms, until_ms, limit=budget)
        if len(times) <= budget:
            return times[-keep:], max(0, len(times) - keep)
        # So long away that even counting is too much: look back from `until` only as far as `keep` fires need, which
        # is not known beforehand, since fires come in crowds and blackouts lie between them.
        low, high = after_ms, until_ms
        while len(times) > budget:
            middle = (low + high) // 2
            later = self.fire_times(middle, until_ms, limit=budget)
            if len(later) < keep:
                high = middle
            else:
                low, times = middle, later
        return times[-keep:], budget + 1 - keep

    def words(self) -> str:
        """Say in English when it fires, e.g. `At 09:00 on Monday through Friday`."""
        match self.kind:
            case Kind.AT:
                return f"Once, at {rfc3339(self.at_ms)}"
            case Kind.REBOOT:
                return "At each start of each node that fits"
            case Kind.EVERY:
                return f"Every {duration_words(self.every_s)}, counted from midnight UTC on 1 January 1970"
            case Kind.CRON:
                assert self.fields is not None
                zone = "" if self.timezone == "UTC" else f" ({self.timezone})"
                return cron_words(self.fields) + zone
            case Kind.SEVERAL:
                return "; ".join(part.words() for part in self.parts)

    def day_of(self, fire_ms: int) -> int:
        """Return the day of an instant in the schedule's zone, counted from 1970-01-01."""
        return (fire_ms // 1000 + walk.offset_at(load_zone(self.timezone), fire_ms // 1000)) // 86_400

    def _after(self, after_ms: int) -> Iterator[int]:
        """Yield the fire times after an instant, ascending, each once."""
        last_ms = after_ms
        while True:
            jump_ms = None
            for fire_ms in self._open_after(last_ms):
                if fire_ms <= last_ms:
                    continue
                last_ms = fire_ms
                if self.closures is not None and (jump_ms := self.closures.blackout_end_ms(fire_ms)) is not None:
                    break
                yield fire_ms
            if jump_ms is None:
                return
            last_ms = jump_ms - 1

    def _open_after(self, after_ms: int) -> Iterator[int]:
        """Yield fire times after an instant (and perhaps the same one twice), as if there were no blackout."""
        match self.kind:
            case Kind.AT | Kind.REBOOT:
                if self.at_ms > after_ms and self._allows(self.at_ms):
                    yield self.at_ms
            case Kind.EVERY:
                yield from self._every_after(after_ms)
            case Kind.CRON:
                yield from self._cron_after(after_ms)
            case Kind.SEVERAL:
                yield from heapq.merge(*(part._after(after_ms) for part in self.parts))

    def _every_after(self, after_ms: int) -> Iterator[int]:
        step = self.every_s * 1000
        stop_ms = _LAST_MS if self.closures is None else _stop_ms(after_ms)
        fire_ms = (after_ms // step + 1) * step
        while fire_ms <= stop_ms:
            if self._allows(fire_ms):
                yield fire_ms
                fire_ms += step
            else:
                # On with the next day: a second's interval is not counted through a closed week.
                zone = load_zone(self.timezone)
                midnight = (self.day_of(fire_ms) + 1) * 86_400
                day_ms = next(_either(midnight, zone)) * 1000
                fire_ms = max(fire_ms + step, -(-day_ms // step) * step)

    def _cron_after(self, after_ms: int) -> Iterator[int]:
        fields = self.fields
        assert fields is not None
        after_s = after_ms // 1000
        stop_s = _stop_ms(after_ms) // 1000
        if self.timezone == "UTC":
            for second in walk.local_times(fields, after_s + 1, stop_s, self.closures):
                yield second * 1000
            return
        zone = load_zone(self.timezone)
        gap, fold = self.dst.gap, self.dst.fold
        times = walk.local_times(fields, walk.first_local(zone, after_s), stop_s, self.closures)
        for second in walk.instants(
            times,
            zone,
            skip_gap=gap is Gap.SKIP or (gap is None and fields.wildcard),
            first=fold is not Fold.SECOND,
            second=fold in (Fold.SECOND, Fold.BOTH) or (fold is None and fields.wildcard),
            longest_gap_s=walk.CRON_GAP_S if gap is None else 10**9,
        ):
            yield second * 1000

    def _allows(self, fire_ms: int) -> bool:
        return self.closures is None or self.closures.allows(self.day_of(fire_ms))


def parse_schedule(
    text: str, timezone: str = "UTC", dst: Dst = Dst(), *, seed: str = "", closures: Closures | None = None
) -> Schedule:
    """Read five fields, six with seconds first, `@hourly` and friends, `@every 90s` or `@at 2027-01-01T00:00:00Z`; or
    several of these, with `; ` between them; or `@reboot` alone.

    `seed` is the name that `H` is resolved for. Raises ScheduleError (position, message, hint) for the text; ValueError
    for the zone.
    """
    return _parse_schedule(text, timezone, dst, seed if "h" in text.lower() else "", closures)


@lru_cache(maxsize=4096)
def _parse_schedule(text: str, timezone: str, dst: Dst, seed: str, closures: Closures | None) -> Schedule:
    load_zone(timezone)
    if len(text) > MAX_SCHEDULE_LENGTH:
        raise ScheduleError(f"longer than {MAX_SCHEDULE_LENGTH} characters", MAX_SCHEDULE_LENGTH)
    ends = [match.start() for match in _PART.finditer(text)]
    if not ends:
        return _parse_one(text, timezone, dst, seed, closures)
    if len(ends) >= MAX_SCHEDULES:
        raise ScheduleError(f"more than {MAX_SCHEDULES} schedules", ends[MAX_SCHEDULES - 1], "make several jobs")
    parts = []
    start = 0
    for end in [*ends, len(text)]:
        try:
            parts.append(_parse_one(text[start:end], timezone, dst, seed, closures))
        except ScheduleError as exc:
            raise ScheduleError(exc.message, start + exc.position, exc.hint) from exc
        start = end + 1
    if any(part.kind is Kind.REBOOT for part in parts):
        raise ScheduleError(f"{REBOOT} stands alone", text.lower().index(REBOOT), "make two jobs of it")
    return Schedule("; ".join(part.text for part in parts), timezone, Kind.SEVERAL, dst, parts=tuple(parts))


def _parse_one(text: str, timezone: str, dst: Dst, seed: str, closures: Closures | None) -> Schedule:
    stripped = text.strip(" \t")
    if not stripped:
        raise ScheduleError("the schedule is empty", hint="write five fields, such as '5 * * * *'")
    if not stripped.startswith("@"):
        return Schedule(stripped, timezone, Kind.CRON, dst, fields=parse_fields(text, seed), closures=closures)
    at = text.index("@")
    try:
        return _parse_named(stripped, timezone, dst, closures)
    except ScheduleError as exc:
        raise ScheduleError(exc.message, at + exc.position, exc.hint) from exc


def _parse_named(text: str, timezone: str, dst: Dst, closures: Closures | None) -> Schedule:
    word, _, rest = text.partition(" ")
    name = word.lower()
    if name in _NICKNAMES and not rest:
        return Schedule(name, timezone, Kind.CRON, dst, fields=parse_fields(_NICKNAMES[name]), closures=closures)
    if name in ("@every", "@at", REBOOT) and closures is not None and closures.on_excluded is not OnExcluded.SKIP:
        raise ScheduleError(f"{name} cannot be moved to another day by a calendar", 0, "make calendar.on_excluded skip")
    if name == "@every":
        return Schedule(text, timezone, Kind.EVERY, dst, every_s=every_s(rest.strip()), closures=closures)
    if name == "@at":
        try:
            return Schedule(text, timezone, Kind.AT, dst, at_ms=parse_rfc3339(rest.strip()), closures=closures)
        except ValueError as exc:
            raise ScheduleError(f"@at: {exc}", 4, "write @at 2027-01-01T00:00:00Z") from exc
    if name == REBOOT and not rest:
        return Schedule(name, timezone, Kind.REBOOT, dst, closures=closures)
    close = difflib.get_close_matches(name, [*_NICKNAMES, "@every", "@at", REBOOT], n=1)
    raise ScheduleError(
        f"{word[:20]!r} is not a schedule",
        0,
        f"did you mean {close[0]}?" if close else f"known are {', '.join(_NICKNAMES)}, @every, @at, @reboot",
    )


def is_reboot(text: str) -> bool:
    """Say whether the schedule is `@reboot`. For a text that need not be a schedule at all."""
    return text.strip(" \t").lower() == REBOOT


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
    crons = [part.fields for part in schedule.single if part.fields is not None]
    if crons and schedule.timezone != "UTC":
        for instant, before, after in clock_changes(schedule.timezone, after_ms)[:2]:
            way = "forward" if after > before else "back"
            found.append(
                f"The clock in {schedule.timezone} goes {way} by {duration_words(abs(after - before))} "
                f"at {rfc3339(instant)}."
            )
    if any(not (fields.day.star or fields.weekday.star) for fields in crons):
        found.append("Both day fields are set: it fires when either the day of month or the day of week matches.")
    found += [
        f"H is resolved for the job's name: {part.text!r} stands for {part.fields.text!r} here."
        for part in schedule.single
        if part.fields is not None and part.fields.spread
    ]
    if schedule.kind is Kind.REBOOT:
        found.append("It is due at each start of each node that fits: no fire time is known beforehand.")
    elif schedule.next_fire(after_ms) is None:
        found.append("It has no fire in the future.")
    return found


def _stop_ms(after_ms: int) -> int:
    return min(after_ms + HORIZON // timedelta(milliseconds=1), _LAST_MS)


def _either(local_s: int, zone: ZoneInfo) -> Iterator[int]:
    return walk.instants([local_s], zone, skip_gap=False, first=True, second=False, longest_gap_s=10**9)


def _offset_s(zone: ZoneInfo, ms: int) -> int:
    offset = from_ms(ms).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset else 0
