"""PURE: what a spec would do."""

from __future__ import annotations

from dataclasses import dataclass

from cronkeeper.domain.calendars import OnExcluded, known_until
from cronkeeper.domain.instants import MAX_MS, rfc3339
from cronkeeper.domain.job import JobSpec, JobState, may_fire
from cronkeeper.domain.schedule import notes

MAX_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next fire times (epoch ms, UTC), the schedule in words, and what a person should know about it."""

    fire_times: tuple[int, ...]
    words: str
    notes: tuple[str, ...]


def forecast(spec: JobSpec, *, after_ms: int, count: int, state: JobState = JobState.ACTIVE) -> Forecast:
    """Return the next `count` fire times after `after_ms` inside the job's window; none when it is not active.

    The spec must have passed the rules.
    """
    schedule = spec.parsed_schedule()
    told = list(notes(schedule, after_ms))
    times: tuple[int, ...] = ()
    if state is JobState.ACTIVE:
        times = upcoming(spec, after_ms=after_ms, count=count)
        if not may_fire(spec, after_ms) and not any("no fire" in note for note in told):
            told.append("There is no fire time left between starts_at and ends_at.")
    else:
        told.append(f"The job is {state.value}: it does not fire.")
    if spec.starts_at_ms is not None and spec.starts_at_ms > after_ms:
        told.append(f"It starts at {rfc3339(spec.starts_at_ms)}.")
    if spec.ends_at_ms is not None:
        told.append(f"It ends at {rfc3339(spec.ends_at_ms)}.")
    told += _closures_told(spec)
    if spec.jitter_s:
        told.append(f"Each run starts up to {spec.jitter_s} seconds after its fire time (jitter).")
    return Forecast(times, schedule.words(), tuple(told))


def _closures_told(spec: JobSpec) -> list[str]:
    told = []
    if spec.calendar is not None:
        what = {
            OnExcluded.SKIP: "is dropped",
            OnExcluded.NEXT: "moves to the next allowed day",
            OnExcluded.PREVIOUS: "moves to the previous allowed day",
        }[spec.calendar.on_excluded]
        told.append(f"A fire on a day that the calendar excludes {what}.")
        if (until := known_until(spec.holiday_dates)) is not None:
            told.append(f"Holidays of {', '.join(spec.calendar.holidays)} are known until {until}.")
        if spec.calendar.named:
            told.append(f"Days of the calendars {', '.join(spec.calendar.named)} count as they are now.")
    told += [f"Nothing fires from {rfc3339(one.from_ms)} until {rfc3339(one.to_ms)}." for one in spec.blackouts[:10]]
    return told


def upcoming(spec: JobSpec, *, after_ms: int, count: int) -> tuple[int, ...]:
    """Return the next `count` fire times after `after_ms`, as if the job were active."""
    low, high = spec.due_between(after_ms, MAX_MS)
    return tuple(spec.parsed_schedule().fire_times(low, high, limit=count - 1)[:count])
