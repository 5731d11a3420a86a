"""PURE: what may be wrong with a calendar and with blackouts."""

from __future__ import annotations

from cronkeeper.domain.cronfields import ScheduleError
from cronkeeper.domain.job import JobSpec
from cronkeeper.errors import FieldError
from cronkeeper_manager.service.holiday_dates import region_fault


def check_closures(spec: JobSpec) -> list[FieldError]:
    """Return what is wrong with the spec's calendar and blackouts."""
    faults = [
        FieldError(f"blackouts[{index}].to", "lies at or before from", "a blackout that closes nothing is a mistake")
        for index, one in enumerate(spec.blackouts)
        if one.to_ms <= one.from_ms
    ]
    if spec.calendar is None:
        return faults
    for index, region in enumerate(spec.calendar.holidays):
        if fault := region_fault(region):
            faults.append(FieldError(f"calendar.holidays[{index}]", *fault))
    if len(set(spec.calendar.exclude_weekdays)) == 7 and not spec.calendar.include:
        faults.append(FieldError("calendar.exclude_weekdays", "leaves no day", "the job would never fire"))
    return faults or _unmovable(spec)


def _unmovable(spec: JobSpec) -> list[FieldError]:
    """A calendar that moves fires asks for schedules that have days."""
    try:
        spec.evolve(calendar=None).parsed_schedule()
    except ValueError:
        return []  # the schedule or the zone itself is at fault, and was named already
    try:
        spec.parsed_schedule()
    except ScheduleError as exc:
        return [FieldError("calendar.on_excluded", exc.message, "write skip")]
    return []
