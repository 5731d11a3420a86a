"""PURE: what may be wrong with a calendar, and its days in canonical texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cronkeeper.domain.named_calendars import MAX_DAYS, MAX_SPANS, Dates, parse_span, spans_of
from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper_manager.service import rules


@dataclass(frozen=True, slots=True)
class CalendarDraft:
    """A calendar as its user asks for it."""

    description: str = ""
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


def check_calendar(namespace: str, name: str, draft: CalendarDraft) -> Dates:
    """Return the calendar's days. Raises ValidationFailedError, which names every bad field."""
    exclude, faults = _days("exclude", draft.exclude)
    include, more = _days("include", draft.include)
    given = {"namespace": namespace, "name": name, "description": draft.description}
    faults = [*rules.check_fields(given, run_as_allowed=()), *faults, *more]
    if not faults and len(exclude) + len(include) > MAX_DAYS:
        faults.append(FieldError("exclude", f"{len(exclude) + len(include)} days in all, {MAX_DAYS} are allowed"))
    dates = Dates(spans_of(exclude), spans_of(include))
    if not faults and len(dates.exclude) + len(dates.include) > MAX_SPANS:
        what = f"{len(dates.exclude) + len(dates.include)} days and ranges in all, {MAX_SPANS} are allowed"
        faults.append(FieldError("exclude", what, "name years that have passed no longer"))
    if faults:
        raise ValidationFailedError(faults)
    return dates


def _days(field: str, texts: Sequence[str]) -> tuple[set[int], list[FieldError]]:
    days: set[int] = set()
    faults = []
    for index, text in enumerate(texts):
        try:
            span = parse_span(text)
        except ValueError as exc:
            message, _, hint = str(exc).partition("; ")
            faults.append(FieldError(f"{field}[{index}]", message, hint))
            continue
        # No more of a range than is needed to refuse it.
        days.update(span[: MAX_DAYS + 1])
    return days, faults
