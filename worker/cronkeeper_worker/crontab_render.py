"""From tasks to crontab text. PURE. What comes out holds numbers and our own path, and nothing that a user typed.

An entry only says "look now", so it may fire too often but never too seldom. Entries are grouped, one for each distinct
pattern, because a line costs cron 5 ms for each time that it fires, and a thousand jobs of one minute then cost one
line.

Each file begins with an entry for every minute, the tick: cron's sign of life. Its number is made of the rest of the
file, so a cron that goes by an older text of the file gives itself away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple, TypeAlias

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.schedule import Kind, Schedule
from cronkeeper_worker.crontab_form import HEADER, MAX_LINES, NO_TASKS, check
from cronkeeper_worker.crontab_pattern import DAY_MS, EVERY_MINUTE, pattern_for

NAMED_TASKS = 40
#: Two lines for each entry, one of them the tick's, and the header.
_ENTRIES = (MAX_LINES - 3) // 2


#: What the crontab needs to know of a task.
CronTask: TypeAlias = tuple[TaskId, Schedule]


class _Entry(NamedTuple):
    """A pattern's lines: a comment and the entry."""

    number: int
    text: str


class Draft:
    """The crontab's text, kept from one change of the tasks to the next, so that an edit costs what it changes.

    `fire` is the path of our command, `node_timezone` the zone that this node's cron lives in. `user` is `root` for
    files with an account column (/etc/cron.d), None for a user's own crontab.
    """

    def __init__(self, *, fire: str, node_timezone: str, user: str | None) -> None:
        self._call = f"{'' if user is None else f'{user} '}{fire}"
        self._node_timezone = node_timezone
        #: What the last `render` had to do: schedules that were looked at, and entries that were written.
        self.looked_at, self.written = 0, 0
        self._begin()

    def _begin(self) -> None:
        #: The day that everything here is of; none while it may be half-done.
        self._day: int | None = None
        self._schedules: dict[TaskId, Schedule] = {}
        #: Tasks whose patterns depend on more than the day.
        self._passing: set[TaskId] = set()
        self._wakes: dict[TaskId, frozenset[str]] = {}
        self._groups: dict[str, set[TaskId]] = {}
        self._entries: dict[str, _Entry] = {}
        #: By identity: to hash a schedule costs more than all the rest.
        self._patterns: dict[int, tuple[Schedule, frozenset[str]]] = {}
        #: What stands in each file below the tick.
        self._rests: list[str] = []

    def render(self, tasks: Iterable[CronTask], now_ms: int) -> tuple[str, ...]:
        """Return the texts of the crontab files, in order; none when no task has a fire to come.

        The same tasks give the same bytes, whatever was rendered before. A task that comes or goes changes its own
        group's lines only, and the number of its file's tick. Raises ValueError for a path that cannot stand there.
        """
        if self._day != now_ms // DAY_MS:
            self._begin()
        self._day, self.looked_at = None, 0
        touched = self._regroup(dict(tasks), now_ms)
        numbers = {self._write(pattern) for pattern in touched}
        self.written = len(touched)
        self._share_out(numbers)
        files = self._files()
        self._day = now_ms // DAY_MS
        return files

    def _regroup(self, schedules: dict[TaskId, Schedule], now_ms: int) -> set[str]:
        """Bring the groups up to date; return the patterns whose groups have changed."""
        before, self._schedules = self._schedules, schedules
        changed = {one for one, schedule in schedules.items() if before.get(one) is not schedule}
        changed |= self._passing & schedules.keys()
        self._passing -= before.keys() - schedules.keys()
        wakes = {one: self._patterns_of(schedules[one], now_ms) for one in changed}
        wakes.update(dict.fromkeys(before.keys() - schedules.keys(), frozenset()))
        touched: set[str] = set()
        for one, patterns in wakes.items():
            known = self._wakes.pop(one, frozenset())
            for pattern in known - patterns:
                self._groups[pattern].discard(one)
            for pattern in patterns - known:
                self._groups.setdefault(pattern, set()).add(one)
            touched |= known ^ patterns
            if patterns:
                self._wakes[one] = patterns
        for one in changed:
            (self._passing.add if _passes(schedules[one]) else self._passing.discard)(one)
        return touched

    def _patterns_of(self, schedule: Schedule, now_ms: int) -> frozenset[str]:
        found = self._patterns.get(id(schedule))
        if found is None or _passes(schedule):
            self.looked_at += 1
            each = (pattern_for(part, self._node_timezone, now_ms) for part in schedule.single)
            found = schedule, frozenset(pattern for pattern in each if pattern is not None)
            self._patterns[id(schedule)] = found
        return found[1]

    def _write(self, pattern: str) -> int:
        """Write a group's lines, each of them one of ours to the letter; return the pattern's number."""
        group, number = self._groups[pattern], number_of(pattern)
        if not group:
            del self._groups[pattern]
            self._entries.pop(pattern, None)
        elif pattern != EVERY_MINUTE:
            text = f"{_comment(group)}{pattern} {self._call} {number}\n"
            check(text)
            self._entries[pattern] = _Entry(number, text)
        return number

    def _share_out(self, changed: Collection[int]) -> None:
        """Share the entries out among as few files as cron accepts: by their numbers, so that a new one moves no other.

        `changed` are the numbers of the patterns that were written.
        """
        numbers = [entry.number for entry in self._entries.values()]
        count = -(-len(numbers) // _ENTRIES) or 1
        while max(Counter(number % count for number in numbers).values(), default=0) > _ENTRIES:
            count += 1
        touched = {number % count for number in changed}
        if count != len(self._rests):
            self._rests, touched = [""] * count, set(range(count))
        for share in touched:
            here = [(pattern, one.text) for pattern, one in self._entries.items() if one.number % count == share]
            self._rests[share] = "".join([text for _, text in sorted(here)])

    def _files(self) -> tuple[str, ...]:
        minutely = _comment(self._groups.get(EVERY_MINUTE, ()))
        if not self._entries and minutely == NO_TASKS:
            return ()
        files = []
        for rest in self._rests:
            above, minutely = minutely, NO_TASKS
            top = f"{HEADER}{above}{EVERY_MINUTE} {self._call} {number_of(above + rest)}\n"
            check(top)
            files.append(top + rest)
        return tuple(files)


def render(
    tasks: Iterable[CronTask], *, fire: str, node_timezone: str, now_ms: int, user: str | None
) -> tuple[str, ...]:
    """Return the texts that a new `Draft` renders."""
    return Draft(fire=fire, node_timezone=node_timezone, user=user).render(tasks, now_ms)


def _passes(schedule: Schedule) -> bool:
    """Say whether its patterns depend on more than the day."""
    return schedule.kind in (Kind.AT, Kind.SEVERAL) and any(part.kind is Kind.AT for part in schedule.single)


def ticks(files: Iterable[str]) -> tuple[int, ...]:
    """Return the number that cron calls us with once a minute for each file, as long as it goes by this very text."""
    found = []
    for text in files:
        entry = next(line for line in text.split("\n", 3) if line.startswith(EVERY_MINUTE))
        found.append(int(entry.rpartition(" ")[2]))
    return tuple(found)


def _comment(tasks: Collection[TaskId]) -> str:
    """Return the comment above an entry: the tasks that it serves, by number."""
    if not tasks:
        return NO_TASKS
    named = sorted(tasks)
    more = f" and {len(named) - NAMED_TASKS} more" if len(named) > NAMED_TASKS else ""
    return f"# tasks {' '.join(map(str, named[:NAMED_TASKS]))}{more}\n"


def number_of(text: str) -> int:
    """Return the number that stands for a pattern or a file in an entry: the same on every node and for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
