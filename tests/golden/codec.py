"""The golden files: text that a person can read, and a few kilobytes for a year of fires.

    # a comment
    @ Europe/Berlin 2024-03-30T20:00Z 2024-03-31T20:00Z
    15,45 2 * * * = 2024-03-31T01:00Z 0
    0 0 * * * = 2024-03-30T23:00Z
    0 0 1 1 * =

`@` opens a window of time, [from, until), in one zone. A line is an expression and its fires in that window, in UTC:
the first one, then the minutes from each fire to the next, with `60x23` for twenty-three times 60. A 0 is a second fire
in the same minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in one zone, [start, until) in epoch seconds, whole minutes."""

    timezone: str
    start_s: int
    until_s: int

    def __str__(self) -> str:
        return f"{self.timezone} {minute_text(self.start_s)} {minute_text(self.until_s)}"


#: When cron fired what, window by window: epoch seconds, ascending, repeated where it fired twice.
Golden = dict[Window, dict[str, list[int]]]


def encode(fires: Sequence[int]) -> str:
    """Return fires (epoch s, ascending) as the first one and the gaps in minutes."""
    if not fires:
        return ""
    gaps = [(after - before) // 60 for before, after in itertools.pairwise(fires)]
    words = [minute_text(fires[0])]
    for gap, same in itertools.groupby(gaps):
        count = len(list(same))
        words.append(str(gap) if count == 1 else f"{gap}x{count}")
    return " ".join(words)


def decode(text: str) -> list[int]:
    """Return what `encode` was given."""
    words = text.split()
    if not words:
        return []
    fires = [parse_minute(words[0])]
    for word in words[1:]:
        gap, _, count = word.partition("x")
        for _ in range(int(count or 1)):
            fires.append(fires[-1] + int(gap) * 60)
    return fires


def write_golden(path: Path, header: Iterable[str], golden: Mapping[Window, Mapping[str, Sequence[int]]]) -> None:
    """Write a golden file whole; `header` are its first comment lines, without the `#`."""
    lines = [f"# {line}".rstrip() for line in header]
    for window, table in golden.items():
        lines += ["", f"@ {window}"]
        lines += [f"{expression} = {encode(fires)}".rstrip() for expression, fires in table.items()]
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.rename(path)


def read_golden(path: Path) -> Golden:
    """Read a golden file. Raises ValueError for a line that is none of its kinds."""
    golden: Golden = {}
    table: dict[str, list[int]] = {}
    for line in _meant(path.read_text().splitlines()):
        if line.startswith("@ "):
            zone, start, until = line[2:].split()
            table = golden[Window(zone, parse_minute(start), parse_minute(until))] = {}
            continue
        expression, equals, fires = line.partition(" =")
        if not equals or not golden or expression in table:
            raise ValueError(f"{path.name}: cannot read {line!r}")
        table[expression] = decode(fires)
    return golden


def minute_text(instant_s: int) -> str:
    """Return an instant to the minute, as in `2024-03-31T01:00Z`."""
    return datetime.fromtimestamp(instant_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def parse_minute(text: str) -> int:
    """Return the epoch seconds of `minute_text`."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC).timestamp())


def _meant(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line and not line.startswith("#"))
