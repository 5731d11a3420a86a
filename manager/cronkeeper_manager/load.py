"""Expected load: how often a schedule fires, in fires a minute. PURE.

Cheap arithmetic on the fields' sets, never an expansion: the leader asks for 100,000 schedules at once. Calendar
averages are meant, so clock changes and the correlation of days with weekdays do not matter.
"""

from __future__ import annotations

from functools import lru_cache

from cronkeeper.domain.cronfields import CronFields, month_days
from cronkeeper.domain.schedule import Kind, Schedule

#: What every task costs at least, however rarely it fires: being installed is not free. One fire a day.
MIN_LOAD = 1 / 1440

_DAYS_IN_MONTH = (31, 28.25, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_IN_YEAR = 365.25
_MINUTES_IN_DAY = 1440


def expected_load(schedule: Schedule) -> float:
    """Return the schedule's mean number of fires a minute, at least MIN_LOAD."""
    match schedule.kind:
        case Kind.AT | Kind.REBOOT:
            return MIN_LOAD
        case Kind.EVERY:
            return max(60 / schedule.every_s, MIN_LOAD)
        case Kind.CRON:
            assert schedule.fields is not None
            return max(_cron_load(schedule.fields), MIN_LOAD)
        case Kind.SEVERAL:
            # Times at which two of them meet count twice: that is rare, and not worth an expansion.
            return sum(map(expected_load, schedule.parts))


def _cron_load(fields: CronFields) -> float:
    seconds = 1 if fields.second is None else len(fields.second.values)
    a_day = seconds * len(fields.minute.values) * len(fields.hour.values)
    return a_day * _share_of_days(fields) / _MINUTES_IN_DAY


def _share_of_days(fields: CronFields) -> float:
    """Return which part of all days matches: day and weekday both, or either of them when neither starts with `*`."""
    if fields.day.rules or fields.weekday.rules:
        return _counted_share(fields)
    by_weekday = len(fields.weekday.values) / 7
    days = fields.day.values
    late = [day for day in (29, 30, 31) if day in days]
    in_every_month = len(days) - len(late)
    matching = 0.0
    for month in fields.month.values:
        length = _DAYS_IN_MONTH[month - 1]
        by_day = (in_every_month + sum(min(max(length - (day - 1), 0.0), 1.0) for day in late)) / length
        both_needed = fields.day.star or fields.weekday.star
        matching += length * (by_day * by_weekday if both_needed else 1 - (1 - by_day) * (1 - by_weekday))
    return matching / _DAYS_IN_YEAR


@lru_cache(maxsize=1024)
def _counted_share(fields: CronFields) -> float:
    """Count, for days that no number names: over every weekday that a month may begin with."""
    matching = 0.0
    for month in fields.month.values:
        for length, weight in ((28, 0.75), (29, 0.25)) if month == 2 else ((int(_DAYS_IN_MONTH[month - 1]), 1.0),):
            found = sum(len(month_days(fields.day, fields.weekday, length, first)) for first in range(7))
            matching += weight * found / 7
    return matching / _DAYS_IN_YEAR
