"""When is a job due? Found by brute force: walk every minute of the time in question and ask whether it matches.

Independent of the product, which searches instead of walking: shares no code with it, so that both cannot be wrong in
the same way. Instants are epoch seconds, UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from tests.faults.checker.history import instant_ms

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
#: Second, minute, hour, day, month, weekday: lowest and highest value.
_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_TERM = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
#: Debian's cron takes a longer gap for a clock that was set by hand, and makes nothing of it.
_LONGEST_CRON_GAP = timedelta(hours=3)
_MINUTE = timedelta(minutes=1)


class EvaluatorError(ValueError):
    """A schedule that this evaluator does not know (H, L, W, #, calendars): it must not be used in a trial."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Five or six fields. Without seconds, it is due at second 0."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    #: Whether a day has to be right by month and by week, as one of the two fields begins with a star.
    both: bool
    #: Whether it follows the clock through a change, rather than naming times of the day.
    follows: bool

    def matches_minute(self, local: datetime) -> bool:
        """Say whether a minute on the wall is one of its minutes."""
        by_month = local.day in self.days
        by_week = local.isoweekday() % 7 in self.weekdays
        day = (by_month and by_week) if self.both else (by_month or by_week)
        return day and local.minute in self.minutes and local.hour in self.hours and local.month in self.months


@dataclass(frozen=True, slots=True)
class Rules:
    """What a clock change does to a job: `gap` run_after or skip, `fold` first, second or both; None: as in cron."""

    gap: str | None = None
    fold: str | None = None


def due(spec: Mapping[str, Any], start_s: float, end_s: float) -> list[int]:
    """Return the fire times (epoch ms) of a whole job's spec in [start, end), within its starts_at and ends_at.

    EvaluatorError for a schedule that is not known here.
    """
    if spec.get("calendar") or spec.get("blackouts"):
        raise EvaluatorError("calendars and blackouts are not known here")
    if spec.get("starts_at"):
        start_s = max(start_s, instant_ms(spec["starts_at"]) / 1000)
    if spec.get("ends_at"):
        end_s = min(end_s, instant_ms(spec["ends_at"]) / 1000)
    dst = spec.get("dst") or {}
    rules = Rules(dst.get("gap"), dst.get("fold"))
    schedules = spec["schedule"]
    texts = schedules.split("; ") if isinstance(schedules, str) else schedules
    return sorted({at for text in texts for at in fire_times(text, spec["timezone"], rules, start_s, end_s)})


def fire_times(text: str, timezone: str, rules: Rules, start_s: float, end_s: float) -> list[int]:
    """Return the fire times (epoch ms) of one schedule in [start, end), oldest first."""
    if text.startswith("@at "):
        at_ms = instant_ms(text.removeprefix("@at ").strip())
        return [at_ms] if start_s * 1000 <= at_ms < end_s * 1000 else []
    if text.startswith("@every "):
        step = _seconds(text.removeprefix("@every ").strip())
        first = -(-start_s // step) * step
        return [int(first + index * step) * 1000 for index in range(max(0, int(-(-(end_s - first) // step))))]
    expression = parse(_NICKNAMES.get(text.lower(), text))
    found = {at for at in _walk(expression, ZoneInfo(timezone), rules, start_s, end_s) if start_s <= at < end_s}
    return [at * 1000 for at in sorted(found)]


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Read five fields, or six with seconds first."""
    words = text.lower().split()
    if len(words) not in (5, 6):
        raise EvaluatorError(f"{text!r} has not five or six fields")
    with_seconds = len(words) == 6
    sets = [_values(word, *limits) for word, limits in zip(words, _RANGES[-len(words) :], strict=True)]
    minutes, hours, days, months, weekdays = sets[-5:]
    minute, hour, day, _, weekday = words[-5:]
    return Expression(
        sets[0] if with_seconds else frozenset({0}),
        minutes,
        hours,
        days,
        months,
        frozenset(value % 7 for value in weekdays),
        both=day.startswith("*") or weekday.startswith("*"),
        follows=with_seconds or minute.startswith("*") or hour.startswith("*"),
    )


def _walk(expression: Expression, zone: ZoneInfo, rules: Rules, start_s: float, end_s: float) -> Iterator[int]:
    """Yield the fire times of all minutes that [start, end) touches, in any order."""
    instant = datetime.fromtimestamp(int(start_s // 60 * 60), UTC)
    before = (instant - _MINUTE).astimezone(zone)
    while (at := int(instant.timestamp())) < end_s:
        local = instant.astimezone(zone)
        if _jumped(before, local) and _falls_into(expression, before, local, rules):
            yield at
        if expression.matches_minute(local) and _counts(expression, local, rules):
            yield from (at + second for second in expression.seconds)
        before = local
        instant += _MINUTE


def _counts(expression: Expression, local: datetime, rules: Rules) -> bool:
    """Say whether this one of two equal times on the wall counts."""
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    if not twice:
        return True
    fold = rules.fold or ("both" if expression.follows else "first")
    return fold == "both" or fold == ("second" if local.fold else "first")


def _jumped(before: datetime, local: datetime) -> bool:
    return _face(local) - _face(before) > _MINUTE


def _falls_into(expression: Expression, before: datetime, local: datetime, rules: Rules) -> bool:
    """Say whether a time that the clock has just jumped over is made up for now."""
    start, end = _face(before) + _MINUTE, _face(local)
    if rules.gap == "skip" or (rules.gap is None and (expression.follows or end - start > _LONGEST_CRON_GAP)):
        return False
    return any(expression.matches_minute(start + index * _MINUTE) for index in range((end - start) // _MINUTE))


def _face(local: datetime) -> datetime:
    """Return what the clock on the wall shows."""
    return local.replace(tzinfo=None, fold=0)


def _values(word: str, low: int, high: int) -> frozenset[int]:
    names = {12: _MONTHS, 7: _DAYS}.get(high, [])
    found: set[int] = set()
    for term in word.split(","):
        match = _TERM.fullmatch(term)
        if match is None or (match[4] and match[1] != "*" and match[3] is None):
            raise EvaluatorError(f"{term!r} is not known here")
        star = match[1] == "*"
        first = low if star else _number(match[2], names, low)
        # Sunday is 0 and 7; a star means each day once.
        last = min(high, 6) if star and high == 7 else high if star else _number(match[3] or match[2], names, low)
        found |= set(range(first, last + 1, int(match[4] or 1)))
    if not found or not found <= set(range(low, high + 1)):
        raise EvaluatorError(f"{word!r} is not within {low} and {high}")
    return frozenset(found)


def _number(text: str, names: Sequence[str], low: int) -> int:
    if text in names:
        return names.index(text) + low
    if not text.isdecimal():
        raise EvaluatorError(f"{text!r} is not known here")
    return int(text)


def _seconds(text: str) -> int:
    parts = re.findall(r"(\d+)([dhms])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise EvaluatorError(f"@every {text!r} is not known here")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)
