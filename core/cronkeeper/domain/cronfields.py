"""The crontab expression: a strict reader for the subset whose meaning is Debian cron's beyond doubt.

cron itself drops trailing garbage inside a field (`1#2` is read as `1`), accepts ranges that never match (`5-1`) and
steps past the end of the range (`*/99`). Each of those is refused here with its position and a mend, so that whatever
is accepted means the same to cron, to our evaluator and to the person who wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 256

_MONTHS = {
    name: i + 1
    for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
}
_DAYS = {name: i for i, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_TERM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]+)(-(?P<high>[0-9]+|[a-z]+))?(/(?P<step>[0-9]+))?", re.ASCII)


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


@dataclass(frozen=True, slots=True)
class CronFields:
    """A whole expression. `second` is None for the plain five fields."""

    second: Field | None
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        """The canonical expression: lower case, names as numbers, one space between fields."""
        fields = (self.second, self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(field.text for field in fields if field is not None)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    low: int
    high: int
    names: dict[str, int]


_KINDS = (
    _Kind("second", 0, 59, {}),
    _Kind("minute", 0, 59, {}),
    _Kind("hour", 0, 23, {}),
    _Kind("day of month", 1, 31, {}),
    _Kind("month", 1, 12, _MONTHS),
    _Kind("day of week", 0, 7, _DAYS),
)


def parse_fields(text: str) -> CronFields:
    """Read five fields, or six with seconds first. Raises ScheduleError with the position of what is wrong."""
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
    kinds = _KINDS[-len(words) :]
    fields = [_field(word, at, kind) for (word, at), kind in zip(words, kinds, strict=True)]
    second = fields.pop(0) if len(fields) == 6 else None
    result = CronFields(second, *fields)
    _refuse_never(result, words[-3][1])
    return result


def _field(word: str, at: int, kind: _Kind) -> Field:
    values: set[int] = set()
    texts = []
    offset = at
    for term in word.split(","):
        text, found = _term(term, offset, kind)
        texts.append(text)
        values |= found
        offset += len(term) + 1
    if kind.name == "day of week" and 7 in values:
        values = (values - {7}) | {0}
    return Field(",".join(texts), frozenset(values), word.startswith("*"))


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
            "or a step such as */2",
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
    step = int(match["step"][:6])
    if not star and not match["high"]:
        raise ScheduleError(
            f"{kind.name}: a step needs a range before it",
            at,
            f"write {low}-{kind.high}/{step} for every {step} from {low} on",
        )
    if step == 0 or step > high - low:
        raise ScheduleError(
            f"{kind.name}: a step of {match['step'][:6]} does not fit into {low}-{high}",
            at + match.start("step"),
            f"write a step from 1 to {high - low}, or the single value {low}",
        )
    return f"{text}/{step}", set(range(low, last + 1, step))


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
    """Refuse a day that no named month has, unless the weekday helps out (AND if either field starts with `*`)."""
    if not (fields.day.star or fields.weekday.star):
        return
    longest = max(_DAYS_IN_MONTH[month - 1] for month in fields.month.values)
    if min(fields.day.values) > longest:
        raise ScheduleError(
            f"never fires: none of the months {fields.month.text} has a day {min(fields.day.values)}",
            at,
            f"the last day of those months is at most {longest}",
        )
