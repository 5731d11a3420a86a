"""What Debian's cron makes of a line: of its five fields, garbage and all, of a variable, of a command's `%`. PURE.

An import must know what a line has meant until now, which is not always what it says: cron drops whatever follows a
number that it could read (`1#2` is 1), lets ranges run backwards (`5-1` never fires) and steps past the end (`*/99` is
the first value). This is what cron 3.0pl1-162 does, and nothing of the strict reader in the core;
tests/integration/test_import_cron.py asks the real one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Name, lowest, highest, names (of the lowest value on).
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_DAY = datetime.timedelta(days=1)
#: cron refuses a longer command, and the whole file with it.
MAX_COMMAND = 998
#: What is longer of a variable's line is cut off.
MAX_VARIABLE = 998
#: What C calls a space.
_SPACES = " \t\n\v\f\r"
_LONGEST_NUMBER = 2**63 - 1
#: How far ahead fires are looked for.
_YEARS = 28


class VixieError(ValueError):
    """cron refuses the field, and with it the whole file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What cron holds of five fields: sets of values, and which fields began with `*`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    #: 0 to 6, Sunday first.
    weekdays: frozenset[int]
    stars: tuple[bool, bool, bool, bool, bool]

    @property
    def text(self) -> str:
        """The same in the strict form: what can be read in one way only."""
        sets = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join(
            _field_text(values, low, min(high, 6) if name == "day of week" else high, star)
            for values, star, (name, low, high, _names) in zip(sets, self.stars, _FIELDS, strict=True)
        )

    def matches(self, date: datetime.date) -> bool:
        """Say whether cron fires on this date: either day field suffices, unless one of them begins with `*`."""
        if date.month not in self.months:
            return False
        day, weekday = date.day in self.days, date.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.stars[2] or self.stars[4] else (day or weekday)

    def fires(self, after: datetime.datetime, zone: ZoneInfo, limit: int) -> list[datetime.datetime]:
        """Return up to `limit` instants (UTC) after `after` at which cron fires in a system of that zone.

        Debian's rule for clock changes: an entry with `*` in minute or hour follows the clock; any other runs when the
        gap ends, and once in the fold.
        """
        found: list[datetime.datetime] = []
        date = after.astimezone(zone).date() - _DAY
        last = date + datetime.timedelta(days=366 * _YEARS)
        while date < last and len(found) < limit:
            if self.matches(date):
                found += [one for one in self._of_day(date, zone) if one > after and one not in found[-2:]]
            date += _DAY
        return sorted(found)[:limit]

    def _of_day(self, date: datetime.date, zone: ZoneInfo) -> list[datetime.datetime]:
        found: set[datetime.datetime] = set()
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime.datetime.combine(date, datetime.time(hour, minute))
                found.update(self._instants(local, zone))
        return sorted(found)

    def _instants(self, local: datetime.datetime, zone: ZoneInfo) -> Iterator[datetime.datetime]:
        follows_clock = self.stars[0] or self.stars[1]
        passes = [local.replace(tzinfo=zone, fold=fold).astimezone(datetime.UTC) for fold in (0, 1)]
        real = [one for one in passes if one.astimezone(zone).replace(tzinfo=None) == local]
        if real:
            yield from dict.fromkeys(real if follows_clock else real[:1])
        elif not follows_clock:
            yield _end_of_gap(min(passes), max(passes), zone)


def read(text: str) -> Entry:
    """Return what cron makes of five fields or a nickname. Raises VixieError when it would refuse them."""
    words = re.split(r"[ \t]+", NICKNAMES.get(text, text).strip(" \t"))
    if len(words) != 5:
        raise VixieError(f"{len(words)} fields, 5 are needed")
    sets = [_values(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    weekdays = frozenset(value % 7 for value in sets[4])
    stars = [word.startswith("*") for word in words]
    return Entry(sets[0], sets[1], sets[2], sets[3], weekdays, (stars[0], stars[1], stars[2], stars[3], stars[4]))


def variable(line: str) -> tuple[str, str] | None:
    """Return the name and the value that a line (without its line end) gives to a variable; None if it is none.

    `NAME=` without a value is none: cron then takes it for an entry, and refuses it.
    """
    quote, rest = _opened(line.lstrip(" \t")[:MAX_VARIABLE])
    stops = f"={quote}" if quote else f"={_SPACES}"
    end = next((at for at, char in enumerate(rest) if char in stops), len(rest))
    name, rest = rest[:end], rest[end:]
    if quote and rest.startswith(quote):
        quote, rest = "", rest[1:]
    rest = rest.lstrip(_SPACES)
    value = rest[1:].lstrip(_SPACES)
    if not rest.startswith("=") or not value:
        return None
    opened, value = _opened(value)
    # cron forgets to close the quote of a name that has a `=` inside it.
    if not (opened or quote):
        return name, value.rstrip(_SPACES)
    value, closed, left = value.partition(opened or quote)
    return (name, value.rstrip(_SPACES)) if closed and not left.strip(_SPACES) else None


def _opened(text: str) -> tuple[str, str]:
    """Return the quote that a text begins with, and what follows it."""
    return (text[0], text[1:]) if text.startswith(("'", '"')) else ("", text)


def split_input(command: str) -> tuple[str, str]:
    """Return what cron gives to the shell of a crontab's command, and what to its standard input.

    The first bare `%` divides them, each further one is a line end. A backslash keeps a `%` from that; before another
    backslash it is dropped too, but in the command only.
    """
    line: list[str] = []
    at = 0
    while at < len(command) and command[at] != "%":
        escapes = command[at] == "\\" and command[at + 1 : at + 2] in ("%", "\\")
        at += escapes
        line.append(command[at])
        at += 1
    given = re.sub(r"\\?%", lambda match: "\n" if match[0] == "%" else "%", command[at + 1 :])
    return "".join(line), given + "\n" if given and not given.endswith("\n") else given


def as_command(text: str) -> str:
    """Return a command for the shell as a crontab must have it: the reverse of `split_input`, without any input."""
    return re.sub(r"\\(?=[\\%])", r"\\\\", text).replace("%", "\\%")


def _values(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    rest = word
    while True:
        rest = _range(rest, name, low, high, names, found)
        if not rest.startswith(","):
            return frozenset(found)  # whatever is left is dropped
        rest = rest[1:]


def _range(text: str, name: str, low: int, high: int, names: tuple[str, ...], found: set[int]) -> str:
    if text.startswith("*"):
        first, last, rest = low, high, text[1:]
    else:
        first, rest = _number(text, name, low, names)
        if not rest.startswith("-"):
            if rest.startswith("/"):
                raise VixieError(f"{name}: a step needs a range before it")
            _add(found, [first], name, low, high)
            return rest
        last, rest = _number(rest[1:], name, low, names)
    step = 1
    if rest.startswith("/"):
        step, rest = _number(rest[1:], name, 0, ())
        if step == 0:
            raise VixieError(f"{name}: the step is 0")
    _add(found, range(first, last + 1, step), name, low, high)
    return rest


def _number(text: str, name: str, low: int, names: tuple[str, ...]) -> tuple[int, str]:
    length = 0
    while length < len(text) and text[length].isascii() and text[length].isalnum():
        length += 1
    word, rest = text[:length], text[length:]
    if word.lower() in names:
        return names.index(word.lower()) + low, rest
    if not word.isdigit():
        raise VixieError(f"{name}: {text[:20]!r} is not a value")
    # atoi(3): a number is cut to 32 bits.
    value = int(word[-19:]) if len(word.lstrip("0")) <= 19 else _LONGEST_NUMBER
    return (min(value, _LONGEST_NUMBER) + 2**31) % 2**32 - 2**31, rest


def _add(found: set[int], values: range | list[int], name: str, low: int, high: int) -> None:
    for value in values:
        if not low <= value <= high:
            raise VixieError(f"{name}: {value} is not in {low}-{high}")
        found.add(value)


def _field_text(values: frozenset[int], low: int, high: int, star: bool) -> str:
    """Return the shortest strict text for a set of values; it begins with `*` only if the original did."""
    span = range(low, high + 1)
    if star and values == frozenset(span):
        return "*"
    if star:
        for step in range(2, high - low + 1):
            if values == frozenset(span[::step]):
                return f"*/{step}"
    parts = []
    left = sorted(values)
    while left:
        end = 0
        while end + 1 < len(left) and left[end + 1] == left[end] + 1:
            end += 1
        parts.append(f"{left[0]}-{left[end]}" if end > 1 else ",".join(map(str, left[: end + 1])))
        left = left[end + 1 :]
    return ",".join(parts)


def _end_of_gap(low: datetime.datetime, high: datetime.datetime, zone: ZoneInfo) -> datetime.datetime:
    before = low.astimezone(zone).utcoffset()
    while high - low > datetime.timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)
