"""The one form that our lines in a crontab have, and the check of it. PURE; read by the root part, too."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LINES = 5000
MAX_LINE_LENGTH = 900
HEADER = "# Written by Cronkeeper, which overwrites every change.\n"
NO_TASKS = "# no task: the sign that cron lives and reads this file\n"

_ENTRY = re.compile(r"(?:[0-9*,/-]+ ){5}(root )?(/[A-Za-z0-9_./-]+) [0-9]+\n", re.ASCII)
_COMMENT = re.compile(r"# tasks( [0-9]+/[0-9]+)+( and [0-9]+ more)?\n", re.ASCII)


def check(text: str) -> None:
    """Raise ValueError unless every line is one of ours to the letter: cron drops a whole file for one bad line."""
    lines = text.splitlines(keepends=True)
    check_shape(text, len(lines))
    check_lines(lines)


def check_shape(text: str, lines: int) -> None:
    """Raise ValueError for a text that is too long for cron, or has no end."""
    if not text.endswith("\n") or lines > MAX_LINES:
        raise ValueError(f"a crontab of {lines} lines, or without an end, is refused")


def check_lines(lines: Iterable[str]) -> None:
    """Raise ValueError unless each is one of our lines."""
    for line in lines:
        if not is_ours(line):
            raise ValueError(f"not a line of ours: {line[:200]!r}")


def is_ours(line: str) -> bool:
    """Say whether a line (with its end) has the form of ours."""
    known = line in (HEADER, NO_TASKS) or _COMMENT.fullmatch(line) or _ENTRY.fullmatch(line)
    return bool(known) and len(line) <= MAX_LINE_LENGTH


def check_calls(text: str, fire: str) -> None:
    """Raise ValueError unless the text is ours to the letter, and all that its entries do is call `fire` as root."""
    check(text)
    for line in text.splitlines(keepends=True):
        entry = _ENTRY.fullmatch(line)
        if entry is not None and (entry[1] != "root " or entry[2] != fire):
            raise ValueError(f"an entry calls something else than {fire} as root: {line[:200]!r}")
