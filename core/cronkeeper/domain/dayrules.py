"""Days that a number cannot name: `L`, `L-3`, `LW`, `15W` in the day of month, `5L` and `1#2` in the day of week."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_OF_MONTH = re.compile(r"l(-(?P<back>[0-9]{1,2}))?|(?P<lw>lw)|(?P<near>[0-9]{1,2})w", re.ASCII)
_OF_WEEK = re.compile(r"(?P<day>[0-7]|[a-z]{3})(l|#(?P<nth>[0-9]))", re.ASCII)
_ORDINALS = ("", "first", "second", "third", "fourth", "fifth")
_DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


class DayRuleKind(StrEnum):
    """What a rule counts from."""

    FROM_LAST = "from_last"
    LAST_WORKDAY = "last_workday"
    NEAREST_WORKDAY = "nearest_workday"
    NTH_WEEKDAY = "nth_weekday"
    LAST_WEEKDAY = "last_weekday"


@dataclass(frozen=True, slots=True)
class DayRule:
    """A rule that names at most one day of each month. `number` is a day or a distance, `weekday` 0 for Sunday."""

    kind: DayRuleKind
    number: int = 0
    weekday: int = 0

    def day(self, length: int, first: int) -> int | None:
        """Return the day in a month of that length whose first day is the weekday `first`; None if it has none."""
        match self.kind:
            case DayRuleKind.FROM_LAST:
                return length - self.number if self.number < length else None
            case DayRuleKind.LAST_WORKDAY:
                return length - max(0, (first + length - 2) % 7 - 4)
            case DayRuleKind.NEAREST_WORKDAY:
                return _nearest(self.number, length, first)
            case DayRuleKind.NTH_WEEKDAY:
                day = 1 + (self.weekday - first) % 7 + 7 * (self.number - 1)
                return day if day <= length else None
            case DayRuleKind.LAST_WEEKDAY:
                return length - (first + length - 1 - self.weekday) % 7

    def words(self) -> str:
        """Return the rule in English, to follow `on`."""
        match self.kind:
            case DayRuleKind.FROM_LAST:
                days = f"{self.number} day{'s' if self.number > 1 else ''} before " if self.number else ""
                return f"{days}the last day of the month"
            case DayRuleKind.LAST_WORKDAY:
                return "the last day of the month from Monday to Friday"
            case DayRuleKind.NEAREST_WORKDAY:
                return f"the day from Monday to Friday nearest to day {self.number} of the month"
            case DayRuleKind.NTH_WEEKDAY:
                return f"the {_ORDINALS[self.number]} {_DAY_NAMES[self.weekday]} of the month"
            case DayRuleKind.LAST_WEEKDAY:
                return f"the last {_DAY_NAMES[self.weekday]} of the month"


def read_day_rule(term: str, *, of_week: bool, names: Mapping[str, int]) -> tuple[str, DayRule] | None:
    """Return the canonical text and the rule of a lower-case term, or None for one that is no rule.

    Raises ValueError, in words, for a rule whose number is out of range.
    """
    return _read_of_week(term, names) if of_week else _read_of_month(term)


def _read_of_month(term: str) -> tuple[str, DayRule] | None:
    match = _OF_MONTH.fullmatch(term)
    if match is None:
        return None
    if match["lw"]:
        return "LW", DayRule(DayRuleKind.LAST_WORKDAY)
    if match["near"]:
        number = int(match["near"])
        if not 1 <= number <= 31:
            raise ValueError(f"{number} is not in 1-31")
        return f"{number}W", DayRule(DayRuleKind.NEAREST_WORKDAY, number)
    back = int(match["back"] or 0)
    if back > 30:
        raise ValueError(f"no month has a day {back} days before its last")
    return f"L-{back}" if back else "L", DayRule(DayRuleKind.FROM_LAST, back)


def _read_of_week(term: str, names: Mapping[str, int]) -> tuple[str, DayRule] | None:
    match = _OF_WEEK.fullmatch(term)
    if match is None or (match["day"].isalpha() and match["day"] not in names):
        return None
    weekday = names[match["day"]] if match["day"].isalpha() else int(match["day"]) % 7
    if match["nth"] is None:
        return f"{weekday}L", DayRule(DayRuleKind.LAST_WEEKDAY, weekday=weekday)
    number = int(match["nth"])
    if not 1 <= number <= 5:
        raise ValueError(f"no month has a weekday number {number}; write #1 to #5, or L for the last")
    return f"{weekday}#{number}", DayRule(DayRuleKind.NTH_WEEKDAY, number, weekday)


def _nearest(number: int, length: int, first: int) -> int | None:
    """A Saturday gives way to Friday, a Sunday to Monday, and never across the end of the month."""
    if number > length:
        return None
    weekday = (first + number - 1) % 7
    if weekday == 6:
        return number - 1 if number > 1 else number + 2
    if weekday == 0:
        return number + 1 if number < length else number - 2
    return number
