"""What the fleet is going to do: expected fires and expected load, where they crowd and where there is room.

PURE but for the use case at the end. Many jobs share a schedule: each distinct one is expanded once, an `H` by what it
stands for. The load is what the ledger knows cheaply: each fire is taken to last as long as the job's last run did; a
job whose last run has not ended, or that never ran, adds fires and no load. Jitter spreads a fire evenly over its time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, pairwise

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState
from cronkeeper.domain.schedule import Schedule
from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper.ports import JobQuery, Store
from cronkeeper.runtime.clock import Clock

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
#: The longest range: by minute, and by hour.
LONGEST_MS = {"minute": 2 * DAY_MS, "hour": 7 * DAY_MS}
#: So many fire times are walked over; beyond, the range is refused. Five to ten seconds of one core.
MAX_FIRES = 3_000_000
#: A run is taken to last at most so long.
_LONGEST_RUN_MINUTES = 1440
#: A minute is a herd if so many times the mean start in it, and at least so many.
_HERD_TIMES, _HERD_LEAST = 3.0, 10.0
_NAMED = 5
_PAGE = 10_000


class By(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Part:
    """What one job adds: its spec, how many of its tasks count, and how long its last run took (None: not known)."""

    spec: JobSpec
    tasks: int
    took_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """One minute or hour from `at_ms` on: expected starts, and how many runs are in progress on average."""

    at_ms: int
    fires: float
    load: float


@dataclass(frozen=True, slots=True)
class Herd:
    """A minute in which far more starts than on average, and the schedules that do it: (schedule, zone, tasks)."""

    at_ms: int
    fires: float
    schedules: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class FleetForecast:
    """What is expected from `from_ms` to `to_ms` (whole minutes, UTC)."""

    from_ms: int
    to_ms: int
    by: By
    jobs: int
    tasks: int
    #: Tasks that add no load, as nothing is known of how long their job runs.
    unmeasured: int
    buckets: tuple[Bucket, ...]
    #: The fullest minutes first.
    herds: tuple[Herd, ...]
    #: The buckets with the fewest starts, best first.
    quietest: tuple[Bucket, ...]
    #: The minutes of the hour in which the fewest start, best first: for a new job's schedule.
    quiet_minutes: tuple[int, ...]


@dataclass(slots=True)
class _Group:
    """All jobs that fire at the same instants."""

    spec: JobSpec
    schedule: Schedule
    tasks: int = 0
    texts: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Seconds of all short runs of one fire.
    short_s: float = 0.0
    #: Longer runs of one fire, by their whole minutes.
    long: Counter[int] = field(default_factory=Counter)
    #: Minutes since the beginning in which something starts, and the expected starts of each task in it.
    minutes: array[int] = field(default_factory=lambda: array("i"))
    starts: array[float] = field(default_factory=lambda: array("d"))

    def add(self, part: Part) -> None:
        self.tasks += part.tasks
        self.texts[part.spec.schedule, part.spec.timezone] += part.tasks
        if part.took_ms is None:
            return
        minutes = min(round(part.took_ms / MINUTE_MS), _LONGEST_RUN_MINUTES)
        if minutes:
            self.long[minutes] += part.tasks
        else:
            self.short_s += part.tasks * part.took_ms / 1000

    def starts_in(self, minute: int) -> float:
        index = bisect_left(self.minutes, minute)
        return self.starts[index] if index < len(self.minutes) and self.minutes[index] == minute else 0.0


def expect(parts: Iterable[Part], *, from_ms: int, to_ms: int, by: By, most: int = MAX_FIRES) -> FleetForecast:
    """Return what these jobs do in the range, widened to whole minutes.

    Raises ValidationFailedError for a range that is empty or too long, or for more than `most` fires to walk over.
    """
    begin_ms = from_ms // MINUTE_MS * MINUTE_MS
    end_ms = -(-to_ms // MINUTE_MS) * MINUTE_MS
    if end_ms <= begin_ms:
        raise ValidationFailedError(
            [FieldError("to", "is not after from", "the range is from (included) to (excluded)")]
        )
    if end_ms - begin_ms > LONGEST_MS[by]:
        days = LONGEST_MS[by] // DAY_MS
        raise ValidationFailedError([FieldError("to", f"by {by} a forecast reaches over {days} days at most")])
    jobs = list(parts)
    groups = _groups(jobs)
    count = (end_ms - begin_ms) // MINUTE_MS
    starts, busy_s = _played(groups, begin_ms, count, most)
    buckets = tuple(_buckets(starts, busy_s, begin_ms, 1 if by is By.MINUTE else 60))
    return FleetForecast(
        from_ms=begin_ms,
        to_ms=end_ms,
        by=by,
        jobs=len(jobs),
        tasks=sum(part.tasks for part in jobs),
        unmeasured=sum(part.tasks for part in jobs if part.took_ms is None),
        buckets=buckets,
        herds=tuple(_herds(groups, starts, begin_ms)),
        quietest=tuple(sorted(buckets, key=lambda one: (one.fires, one.load, one.at_ms))[:_NAMED]),
        quiet_minutes=tuple(_quiet_minutes(starts, begin_ms)),
    )


def _groups(parts: Iterable[Part]) -> list[_Group]:
    """Put together what fires at the same instants. A schedule that cannot be read fires nowhere, and is left out."""
    found: dict[object, _Group] = {}
    for part in parts:
        spec = part.spec
        key: object = (spec.timing, spec.jitter_s)
        group = found.get(key)
        if group is None:
            try:
                schedule = spec.parsed_schedule()
            except ValueError:
                continue
            if schedule.spread:
                resolved = tuple(one.fields.text if one.fields else one.text for one in schedule.single)
                key = (resolved, spec.evolve(schedule="").timing, spec.jitter_s)
            group = found.setdefault(key, _Group(spec, schedule))
        group.add(part)
    return list(found.values())


def _played(groups: Iterable[_Group], begin_ms: int, count: int, most: int) -> tuple[list[float], list[float]]:
    """Return for each minute the expected starts, and the seconds that all runs together are in progress."""
    starts = [0.0] * count
    busy_s = [0.0] * count
    #: Changes of what is in progress, in seconds of each minute.
    steps = [0.0] * (count + 1)
    left = most
    for group in groups:
        times = _fires(group, begin_ms, count, left)
        if len(times) > left:
            raise ValidationFailedError(
                [FieldError("to", f"more than {most} fires", "ask for a shorter range, one worker or one namespace")]
            )
        left -= len(times)
        _fill(group, times, begin_ms, count)
        for minute, expected in zip(group.minutes, group.starts, strict=True):
            if 0 <= minute < count:
                starts[minute] += expected * group.tasks
                busy_s[minute] += expected * group.short_s
            for length, tasks in group.long.items():
                if minute + length > 0:
                    steps[max(minute, 0)] += 60 * expected * tasks
                    steps[min(minute + length, count)] -= 60 * expected * tasks
    going = accumulate(steps[:count])
    return starts, [short + long for short, long in zip(busy_s, going, strict=True)]


def _fires(group: _Group, begin_ms: int, count: int, left: int) -> list[int]:
    """Return the group's fires, those before the beginning included whose starts or runs reach into the range."""
    before = max([*group.long, 0]) + -(-group.spec.jitter_s // 60)
    low, high = group.spec.due_between(begin_ms - before * MINUTE_MS - 1, begin_ms + count * MINUTE_MS - 1)
    return group.schedule.fire_times(low, high, limit=left) if high > low else []


def _fill(group: _Group, times: Iterable[int], begin_ms: int, count: int) -> None:
    """Note in which minutes the group starts."""
    fires = Counter((fire_ms - begin_ms) // MINUTE_MS for fire_ms in times)
    expected: dict[int, float] = _spread(fires, group.spec.jitter_s) if group.spec.jitter_s else dict(fires)
    for minute in sorted(expected):
        if minute < count:
            group.minutes.append(minute)
            group.starts.append(expected[minute])


def _spread(fires: Counter[int], jitter_s: int) -> dict[int, float]:
    """Return the starts of fires that each begin at any second of their jitter with the same chance."""
    shares = [min(60, jitter_s - second) / jitter_s for second in range(0, jitter_s, 60)]
    expected: dict[int, float] = {}
    for minute, number in fires.items():
        for offset, share in enumerate(shares):
            expected[minute + offset] = expected.get(minute + offset, 0.0) + number * share
    return expected


def _buckets(starts: Sequence[float], busy_s: Sequence[float], begin_ms: int, size: int) -> Iterator[Bucket]:
    """Sum up minutes; the first and the last hour may be cut."""
    first = begin_ms // MINUTE_MS
    cuts = [0, *(minute for minute in range(1, len(starts)) if (first + minute) % size == 0), len(starts)]
    for low, high in pairwise(cuts):
        load = sum(busy_s[low:high]) / (60 * (high - low))
        yield Bucket(begin_ms + low * MINUTE_MS, round(sum(starts[low:high]), 2), round(load, 2))


def _herds(groups: Sequence[_Group], starts: Sequence[float], begin_ms: int) -> Iterator[Herd]:
    least = max(_HERD_LEAST, _HERD_TIMES * sum(starts) / len(starts))
    fullest = sorted((minute for minute, fires in enumerate(starts) if fires >= least), key=lambda m: (-starts[m], m))
    for minute in fullest[:_NAMED]:
        texts: Counter[tuple[str, str]] = Counter()
        for group in groups:
            if group.starts_in(minute):
                texts.update(group.texts)
        named = sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
        schedules = tuple((text, timezone, tasks) for (text, timezone), tasks in named)
        yield Herd(begin_ms + minute * MINUTE_MS, round(starts[minute], 2), schedules)


def _quiet_minutes(starts: Sequence[float], begin_ms: int) -> list[int]:
    total = [0.0] * 60
    seen = [0] * 60
    for minute, fires in enumerate(starts, begin_ms // MINUTE_MS):
        total[minute % 60] += fires
        seen[minute % 60] += 1
    return sorted((minute for minute in range(60) if seen[minute]), key=lambda m: (total[m] / seen[m], m))[:_NAMED]


# ------------------------------------------------------------------------------------------------------------ use case


class Forecasts:
    """What people may ask about the future of the fleet."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def expect(
        self, *, from_ms: int | None, to_ms: int | None, by: By, worker: str | None = None, namespace: str | None = None
    ) -> FleetForecast:
        """Return what active jobs do in the range (from now, unless told; for a day), by what they are now.

        With a worker: only the tasks that it has at present. Raises ValidationFailedError or UnavailableError.
        """
        begin_ms = self._clock.now_ms() if from_ms is None else from_ms
        end_ms = begin_ms + DAY_MS if to_ms is None else to_ms
        return expect(self._parts(worker, namespace), from_ms=begin_ms, to_ms=end_ms, by=by)

    def _parts(self, worker: str | None, namespace: str | None) -> Iterator[Part]:
        took = self._store.runs.last_durations()
        shards: Counter[int] = Counter()
        if worker is not None:
            assigned: dict[TaskId, str] = {task: one.worker for task, one in self._store.assignments.load().items()}
            shards.update(task.job_id for task, owner in assigned.items() if owner == worker)
        after = 0
        while page := self._store.jobs.page(JobQuery(limit=_PAGE, after=after, namespace=namespace)):
            after = page[-1].id
            for job in page:
                tasks = job.spec.shards if worker is None else shards[job.id]
                if job.state is JobState.ACTIVE and tasks and not job.spec.at_reboot:
                    yield Part(job.spec, tasks, took.get(job.id))
