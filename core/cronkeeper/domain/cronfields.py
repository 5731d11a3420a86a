"""The crontab expression: a strict reader. Plain fields mean what Debian's cron means by them, beyond doubt; `H`, `L`,
`W` and `#`, which cron does not know, mean what people who write them know from elsewhere (Jenkins, Quartz).

cron itself drops trailing garbage inside a field (`1#2` is read as `1`), accepts ranges that never match (`5-1`) and
steps past the end of the range (`*/99`). Each of those is refused here with its position and a mend, so that whatever
is accepted means the same to cron, to our evaluator and to the person who wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import lru_cache

from cronkeeper.domain.dayrules import DayRule, read_day_rule
from cronkeeper.domain.spread import slot

MAX_LENGTH = 256

_MONTHS = {
    name: i + 1
    for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
}
_DAYS = {name: i for i, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_TERM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]+)(-(?P<high>[0-9]+|[a-z]+))?(/(?P<step>[0-9]+))?", re.ASCII)
_SPREAD = re.compile(r"h(\((?P<low>[0-9a-z]+)-(?P<high>[0-9a-z]+)\))?(/(?P<step>[0-9]+))?", re.ASCII)
_HASHED = re.compile(r"(?<![a-z])h(?![a-z])", re.ASCII)
#: `H` in the day of month stays where every month has a day.
_SPREAD_DAYS = 28


class ScheduleError(ValueError):
    """The schedule cannot be read. `position` counts characters of the text from 0."""

    def __init__(self, message: str, position: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its canonical text, the values it names, and whether it starts with `*` (the day rule asks)."""

    text: str
    values: frozenset[int]
    star: bool
    #: Days that no number names: `L`, `15W`, `1#2`.
    rules: tuple[DayRule, ...] = ()
    #: The values in order.
    ordered: tuple[int, ...] = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ordered", tuple(sorted(self.values)))


@dataclass(frozen=True, slots=True)
class CronFields:
    """A whole expression. `second` is None for the plain five fields."""

    second: Field | None
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field
    #: Whether an `H` was resolved for a name: another name would make other fields of the same text.
    spread: bool = False

    @property
    def wildcard(self) -> bool:
        """Whether it follows the clock when that is changed; what has a fixed time runs once instead, as in cron."""
        return self.second is not None or self.minute.star or self.hour.star

    @property
    def every_day(self) -> bool:
        """Whether no day is left out."""
        return len(self.day.values) == 31 and len(self.weekday.values) == 7 and len(self.month.values) == 12

    @property
    def for_cron(self) -> bool:
        """Whether cron itself can read `text`: five fields without `L`, `W` and `#`."""
        return self.second is None and not self.day.rules and not self.weekday.rules

    @property
    def text(self) -> str:
        """The canonical expression: names as numbers, `H` resolved, one space between fields."""
        fields = (self.second, self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(field.text for field in fields if field is not None)


@dataclass(frozen=True, slots=True)
class _Kind:
    place: int
    name: str
    low: int
    high: int
    names: dict[str, int]
    more: str = ""


_KINDS = (
    _Kind(0, "second", 0, 59, {}),
    _Kind(1, "minute", 0, 59, {}),
    _Kind(2, "hour", 0, 23, {}),
    _Kind(3, "day of month", 1, 31, {}, ", L, L-3, LW or 15W"),
    _Kind(4, "month", 1, 12, _MONTHS),
    _Kind(5, "day of week", 0, 7, _DAYS, ", 5L or 1#2"),
)


@lru_cache(maxsize=16_384)
def month_days(day: Field, weekday: Field, length: int, first: int) -> tuple[int, ...]:
    """Return the days of a month that match, in order.

    `length` is the month's number of days, `first` the weekday of its first, 0 for Sunday. As in Debian's cron, both
    fields must match when either of them starts with `*`, and either of them otherwise.
    """
    by_month = {found for rule in day.rules if (found := rule.day(length, first)) is not None}
    by_month |= {value for value in day.values if value <= length}
    by_week = {found for rule in weekday.rules if (found := rule.day(length, first)) is not None}
    by_week |= {value for value in range(1, length + 1) if (first + value - 1) % 7 in weekday.values}
    return tuple(sorted(by_month & by_week if day.star or weekday.star else by_month | by_week))


def parse_fields(text: str, seed: str = "") -> CronFields:
    """Read five fields, or six with seconds first. `seed` is the name that `H` is resolved for.

    Raises ScheduleError with the position of what is wrong.
    """
    if len(text) > MAX_LENGTH:
        raise ScheduleError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
    for match in re.finditer(r"[^\x20-\x7e\t]", text):
        raise ScheduleError(f"character {match[0]!r} has no place in a schedule", match.start())
    words = [(match[0].lower(), match.start()) for match in re.finditer(r"[^ \t]+", text)]
    if len(words) not in (5, 6):
        raise ScheduleError(
            f"{len(words)} fields found, 5 expected (or 6, with seconds first)",
            hint="minute hour day-of-month month day-of-week, such as '5 * * * *'",
        )
    fields = []
    spread = False
    for place, (word, at) in enumerate(words, len(_KINDS) - len(words)):
        hashed = _HASHED.search(word) is not None
        spread = spread or hashed
        try:
            fields.append(_field(word, place, seed) if hashed else _plain_field(word, place))
        except ScheduleError as exc:
            raise ScheduleError(exc.message, at + exc.position, exc.hint) from exc
    second = fields.pop(0) if len(fields) == 6 else None
    minute, hour, day, month, weekday = fields
    result = CronFields(second, minute, hour, day, month, weekday, spread)
    _refuse_never(result, words[-3][1])
    return result


@lru_cache(maxsize=4096)
def _plain_field(word: str, place: int) -> Field:
    # Most fields of most jobs are among a few hundred texts.
    return _field(word, place, "")


def _field(word: str, place: int, seed: str) -> Field:
    """Read one field; positions of what is wrong are counted from its own beginning."""
    kind = _KINDS[place]
    values: set[int] = set()
    rules: list[DayRule] = []
    texts = []
    offset = 0
    for term in word.split(","):
        rule = _day_rule(term, offset, kind)
        if rule is not None:
            texts.append(rule[0])
            rules.append(rule[1])
        else:
            text, found = _spread(term, offset, kind, seed) or _term(term, offset, kind)
            texts.append(text)
            values |= found
        offset += len(term) + 1
    if kind.name == "day of week" and 7 in values:
        values = (values - {7}) | {0}
    return Field(",".join(texts), frozenset(values), word.startswith("*"), tuple(dict.fromkeys(rules)))


def _day_rule(term: str, at: int, kind: _Kind) -> tuple[str, DayRule] | None:
    if not kind.more:
        return None
    try:
        return read_day_rule(term, of_week=kind.name == "day of week", names=kind.names)
    except ValueError as exc:
        raise ScheduleError(f"{kind.name}: {exc}", at) from exc


def _spread(term: str, at: int, kind: _Kind, seed: str) -> tuple[str, set[int]] | None:
    """Resolve `H`, `H/15`, `H(0-29)` and `H(0-29)/10`; None for any other term."""
    match = _SPREAD.fullmatch(term)
    if match is None:
        return None
    low, high = kind.low, {"day of month": _SPREAD_DAYS, "day of week": 6}.get(kind.name, kind.high)
    if match["low"]:
        low = _number(match["low"], at + match.start("low"), kind)
        high = _number(match["high"], at + match.start("high"), kind)
        if high <= low:
            hint = f"write H({kind.low}-{kind.high})"
            raise ScheduleError(f"{kind.name}: H({low}-{high}) leaves no choice", at, hint)
    if match["step"] is None:
        value = low + slot(seed, kind.place, high - low + 1)
        return str(value), {value}
    step = _step(match["step"], at + match.start("step"), kind, low, high)
    first = low + slot(seed, kind.place, step)
    values = set(range(first, high + 1, step))
    return (f"{first}-{high}/{step}" if len(values) > 1 else str(first)), values


def _term(term: str, at: int, kind: _Kind) -> tuple[str, set[int]]:
    match = _TERM.match(term)
    if match is None or match.end() != len(term) or (match["low"] == "*" and match["high"]):
        bad = match.end() if match else 0
        raise ScheduleError(
            f"{kind.name}: {term!r} cannot be read from {term[bad:]!r} on"
            if term
            else f"{kind.name}: a value is missing",
            at + min(bad, max(len(term) - 1, 0)),
            f"write *, a number from {kind.low} to {kind.high}, a range such as {kind.low}-{kind.high}, "
            f"a step such as */2, or H{kind.more}",
        )
    star = match["low"] == "*"
    low = kind.low if star else _number(match["low"], at, kind)
    high = kind.high if star else low
    if match["high"]:
        high = _number(match["high"], at + match.start("high"), kind)
        if high < low:
            raise ScheduleError(
                f"{kind.name}: the range {match['low']}-{match['high']} runs backwards and would never match",
                at,
                f"write {low}-{kind.high},{kind.low}-{high}" if kind.low != high else f"write {low}-{kind.high},{high}",
            )
    text = "*" if star else (f"{low}-{high}" if match["high"] else str(low))
    # 7 is another name of Sunday: `*` in the last field is 0 to 6, and cron counts steps from there.
    last = 6 if star and kind.name == "day of week" else high
    if match["step"] is None:
        return text, set(range(low, last + 1))
    if not star and not match["high"]:
        step = int(match["step"][:6])
        raise ScheduleError(
            f"{kind.name}: a step needs a range before it",
            at,
            f"write {low}-{kind.high}/{step} for every {step} from {low} on",
        )
    step = _step(match["step"], at + match.start("step"), kind, low, high)
    return f"{text}/{step}", set(range(low, last + 1, step))


def _step(text: str, at: int, kind: _Kind, low: int, high: int) -> int:
    step = int(text[:6])
    if step == 0 or step > high - low:
        raise ScheduleError(
            f"{kind.name}: a step of {text[:6]} does not fit into {low}-{high}",
            at,
            f"write a step from 1 to {high - low}, or the single value {low}",
        )
    return step


def _number(text: str, at: int, kind: _Kind) -> int:
    if text in kind.names:
        return kind.names[text]
    if not text.isdigit():
        known = f"; names are {', '.join(kind.names)}" if kind.names else ""
        raise ScheduleError(
            f"{kind.name}: {text!r} is not a value{known}", at, f"write a number from {kind.low} to {kind.high}"
        )
    if len(text) > 3 or not kind.low <= int(text) <= kind.high:
        raise ScheduleError(f"{kind.name}: {text[:6]} is not in {kind.low}-{kind.high}", at)
    return int(text)


def _refuse_never(fields: CronFields, at: int) -> None:
    """Refuse what no month has, in any of the 14 forms that a year may take: 30 February, a fifth Friday of 28 days."""
    for month in fields.month.ordered:
        for length in {28, 29} if month == 2 else {_DAYS_IN_MONTH[month - 1]}:
            if any(month_days(fields.day, fields.weekday, length, first) for first in range(7)):
                return
    longest = max(_DAYS_IN_MONTH[month - 1] for month in fields.month.values)
    raise ScheduleError(
        f"never fires: none of the months {fields.month.text} has a day {fields.day.text}",
        at,
        f"the last day of those months is at most {longest}",
    )
