"""What the golden files record: which expressions, in which zones, over which stretches of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from tests.golden.codec import Window

_FOLDER = Path(__file__).parent
_DAY_S = 86_400
#: A leap year.
YEAR = Window(
    "UTC", int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2025, 1, 1, tzinfo=UTC).timestamp())
)
#: For what fires too often to be followed for a year: the leap day, an odd Sunday, a Saturday, New Year's Eve.
_DAYS = (date(2024, 2, 29), date(2024, 3, 31), date(2024, 6, 15), date(2024, 12, 31))

#: Zone and the day, in UTC, on which its clock changed. All are past, so that no news from a parliament moves them.
CHANGES: tuple[tuple[str, str], ...] = (
    ("Europe/Berlin", "2024-03-31"),
    ("Europe/Berlin", "2024-10-27"),
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("Australia/Lord_Howe", "2024-04-06"),  # half an hour
    ("Australia/Lord_Howe", "2024-10-05"),
    ("Pacific/Apia", "2011-04-02"),
    ("Pacific/Apia", "2011-09-24"),
    ("Pacific/Apia", "2011-12-30"),  # a whole day is lost
    ("Africa/Casablanca", "2024-03-10"),  # back for Ramadan
    ("Africa/Casablanca", "2024-04-14"),
    ("America/Sao_Paulo", "2018-02-18"),  # back at midnight: an hour of yesterday again
    ("America/Sao_Paulo", "2018-11-04"),  # there is no midnight
    ("Asia/Tehran", "2022-03-21"),
    ("Asia/Tehran", "2022-09-21"),
    ("Pacific/Chatham", "2024-04-06"),  # at 02:45
    ("Pacific/Chatham", "2024-09-28"),
    ("America/Havana", "2024-03-10"),
    ("America/Havana", "2024-11-03"),
    ("Antarctica/Troll", "2024-03-31"),  # two hours
    ("Antarctica/Troll", "2024-10-27"),
    ("Europe/Dublin", "2024-03-31"),  # its winter time is the "daylight saving" one, by minus an hour
    ("Europe/Dublin", "2024-10-27"),
    ("Africa/Cairo", "2024-04-25"),
    ("Africa/Cairo", "2024-10-31"),
    ("America/Santiago", "2024-04-07"),
    ("America/Santiago", "2024-09-08"),
    ("America/Caracas", "2007-12-09"),  # half an hour, for good
    ("America/Caracas", "2016-05-01"),
    ("Asia/Pyongyang", "2015-08-14"),
    ("Asia/Pyongyang", "2018-05-04"),
    ("America/St_Johns", "2006-04-02"),  # at one minute past midnight
    ("America/St_Johns", "2006-10-29"),
    ("Antarctica/Casey", "2009-10-17"),  # three hours: more than cron catches up on
    ("Antarctica/Casey", "2010-03-04"),
    ("Pacific/Norfolk", "2015-10-03"),
    ("Asia/Kathmandu", "1985-12-31"),  # a quarter of an hour
    ("Asia/Dhaka", "2009-06-19"),
    ("Asia/Dhaka", "2009-12-31"),
)

#: For the days with a change. {g} is the hour in which the skipped or repeated stretch of the local clock begins, {b}
#: and {a} the hours before and after it, {d} {m} {w} its day, month and weekday, {e} the day before.
_FIXED = (
    "0 {g} * * *",
    "30 {g} * * *",
    "59 {g} * * *",
    "15,45 {g} * * *",
    "20-23 {g} * * *",
    "0-30/15 {g} * * *",
    "0 {a} * * *",
    "30 {a} * * *",
    "0 {b} * * *",
    "30 {b} * * *",
    "45 {g},{a} * * *",
    "30 {g} {d} * *",
    "30 {g} {d} {m} *",
    "30 {g} * {m} *",
    "30 {g} * * {w}",
    "30 {g} */2 * *",
    "30 {g} 1 * {w}",
    "15 {g} {e} * *",
    "5 {g},{a} {d} {m} {w}",
    "30 0-23 * * *",
    "10 0-23/2 * * *",
    "0 1-23/2 * * *",
    "0 0 * * *",
    "1 0 * * *",
    "30 0 * * *",
    "59 23 * * *",
    "0 12 * * *",
    "0 0,12 * * *",
    "0 0 {d} * *",
    "0 0 * * {w}",
    "@daily",
)
_WILD = (
    "0 * * * *",
    "30 * * * *",
    "@hourly",
    "*/30 * * * *",
    "*/45 * * * *",
    "0,45 * * * *",
    "20-40/10 * * * *",
    "* {g} * * *",
    "*/15 {g} * * *",
    "*/20 {b},{g},{a} * * *",
    "*/10 {g} {d} {m} *",
    "*/10 {a} * * {w}",
    "0 */2 * * *",
    "15 */3 * * *",
    "30 */6 * * *",
    "30 */4 {d} * *",
    "5 * * * {w}",
    "5 * {d} * *",
)
#: cron rests 10 s after each missed minute with jobs, unless a job's end wakes it, and goes on in the next minute once
#: this one is over: so few never spill over.
_MOST_MISSED = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a zone's clock: its instant, and by how much the local time jumps."""

    timezone: str
    at_s: int
    before_s: int
    after_s: int

    @property
    def first(self) -> datetime:
        """The first local time that is skipped, or shown again, without a zone."""
        return datetime.fromtimestamp(self.at_s + min(self.before_s, self.after_s), UTC).replace(tzinfo=None)

    @property
    def missed(self) -> list[datetime]:
        """The local minutes that the clock jumps over and the one it lands on; none when it goes back."""
        return [self.first + timedelta(minutes=i) for i in range((self.after_s - self.before_s) // 60 + 1)]

    @property
    def window(self) -> Window:
        """From six hours before to eighteen after, by full hours of UTC."""
        hour_s = self.at_s // 3600 * 3600
        return Window(self.timezone, hour_s - 6 * 3600, hour_s + 18 * 3600)


def find_change(timezone: str, day: str) -> Change:
    """Return the zone's one change on a day of UTC. Raises ValueError if the tz database knows none or several."""
    zone = ZoneInfo(timezone)
    start_s = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())

    def offset_s(at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    found = [
        Change(timezone, at_s, offset_s(at_s - 60), offset_s(at_s))
        for at_s in range(start_s, start_s + _DAY_S, 60)
        if offset_s(at_s - 60) != offset_s(at_s)
    ]
    if len(found) != 1:
        raise ValueError(f"{timezone} has {len(found)} clock changes on {day}")
    return found[0]


def crontabs(change: Change) -> list[list[str]]:
    """Return the expressions for a change, parted so that cron's catching-up in one crontab never spills over.

    Each is in one crontab only. What follows the wall clock comes first, all in one.
    """
    first = change.first
    names = {
        "g": first.hour,
        "b": (first.hour - 1) % 24,
        "a": (first.hour + 1) % 24,
        "d": first.day,
        "e": (first - timedelta(days=1)).day,
        "m": first.month,
        "w": first.isoweekday() % 7,
    }
    parted: list[tuple[set[datetime], list[str]]] = []
    for expression in dict.fromkeys(template.format(**names) for template in _FIXED):
        missed = {minute for minute in change.missed if matches(expression, minute)}
        for together, group in parted:
            if len(together | missed) <= _MOST_MISSED:
                together |= missed
                group.append(expression)
                break
        else:
            parted.append((missed, [expression]))
    wild = [template.format(**names) for template in _WILD]
    return [wild, *(group for _, group in parted)]


def matches(expression: str, at: datetime) -> bool:
    """Tell whether the fields name this local minute, in cron's way: for parting crontabs, and sure of nothing else."""
    minute, hour, day, month, weekday = {"@daily": "0 0 * * *", "@hourly": "0 * * * *"}.get(
        expression, expression
    ).split()
    in_day, in_weekday = at.day in _values(day, 1, 31), at.isoweekday() % 7 in _values(weekday, 0, 6)
    both = day.startswith("*") or weekday.startswith("*")
    return (
        at.minute in _values(minute, 0, 59)
        and at.hour in _values(hour, 0, 23)
        and at.month in _values(month, 1, 12)
        and ((in_day and in_weekday) if both else (in_day or in_weekday))
    )


def _values(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        body, _, step = term.partition("/")
        first, _, last = body.partition("-")
        span = range(low, high + 1) if body == "*" else range(int(first), int(last or first) + 1)
        found |= set(span[:: int(step or 1)])
    return found


def days() -> list[Window]:
    """Return the days for what fires often."""
    starts = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) for day in _DAYS]
    return [Window("UTC", start, start + _DAY_S) for start in starts]


def year_expressions() -> tuple[str, ...]:
    """Return those for a whole year: each fires 2,000 times or less."""
    return tuple(_lines(_FOLDER / "year.txt"))


def day_expressions() -> tuple[str, ...]:
    """Return those that fire too often for a year."""
    return tuple(_lines(_FOLDER / "often.txt"))


def _lines(path: Path) -> Iterator[str]:
    lines: Iterable[str] = (line.strip() for line in path.read_text().splitlines())
    return (line for line in lines if line and not line.startswith("#"))
