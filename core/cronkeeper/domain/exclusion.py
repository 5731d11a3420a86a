"""Why a fire that a schedule alone would have is not due: the job's calendar, or a blackout."""

from __future__ import annotations

from datetime import date

from cronkeeper.domain.calendars import EPOCH_DAY, OnExcluded, why_closed
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.schedule import parse_schedule


def excluded(spec: JobSpec, fire_ms: int) -> str | None:
    """Say why a fire that the schedule alone would have at this instant is not due: the calendar or a blackout.

    None when the schedule has no fire then, or when it is due. The window from starts_at to ends_at is not looked at.
    Raises as `parsed_schedule` does.
    """
    schedule = spec.parsed_schedule()
    # What cannot be moved (`@every`) is refused together with a calendar that moves; without one, it can be read.
    plain = parse_schedule(spec.schedule, spec.timezone, spec.dst, seed=spec.seed)
    if not plain.fire_times(fire_ms - 1, fire_ms) or schedule.fire_times(fire_ms - 1, fire_ms):
        return None
    for blackout in spec.blackouts:
        if blackout.from_ms <= fire_ms < blackout.to_ms:
            return f"it lies in the blackout from {rfc3339(blackout.from_ms)} to {rfc3339(blackout.to_ms)}"
    if spec.calendar is None:
        return None
    day = date.fromordinal(plain.day_of(fire_ms) + EPOCH_DAY)
    why = why_closed(spec.calendar, spec.holiday_dates, spec.named_dates, day)
    if spec.calendar.on_excluded is OnExcluded.SKIP or not why:
        return why or None
    return f"{why}; its fire moves to the {spec.calendar.on_excluded} allowed day"
