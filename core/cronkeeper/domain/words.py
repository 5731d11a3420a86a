"""What an expression means, in English."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cronsim import CronSim

from cronkeeper.domain.cronfields import CronFields, Field

_EVERY_DAY = Field("*", frozenset(range(1, 32)), star=True)
_EVERY_WEEKDAY = Field("*", frozenset(range(7)), star=True)


def cron_words(fields: CronFields) -> str:
    """Return when it fires, e.g. `At 09:00 on Monday through Friday`."""
    if not fields.day.rules and not fields.weekday.rules:
        return _said(fields.text)
    # The library does not know all of these days: it is asked about the rest, and told the days by us.
    time = _said(replace(fields, day=_EVERY_DAY, weekday=_EVERY_WEEKDAY).text).replace(" every day", "")
    days = [said for said in (_days(fields.day, "0 0 {} * *"), _days(fields.weekday, "0 0 * * {}")) if said]
    either = not fields.day.star and not fields.weekday.star
    return f"{time} on {(', or on ' if either else ', if it is also ').join(days)}"


def duration_words(seconds: int) -> str:
    """Return a duration, e.g. `1 hour 30 minutes`."""
    parts = []
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts) or "0 seconds"


def _days(field: Field, form: str) -> str:
    """Return the field's days; nothing for `*`."""
    said = [rule.words() for rule in field.rules]
    plain = [term for term in field.text.split(",") if term != "*" and not set(term) & set("LW#")]
    if plain:
        said.insert(0, _said(form.format(",".join(plain))).partition(" on ")[2])
    return " or ".join(said)


def _said(expression: str) -> str:
    return CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)).explain()
