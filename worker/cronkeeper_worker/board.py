"""What the engine holds: installed tasks, when each wants a look, and the runs in progress."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import replace

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency
from cronkeeper.domain.run import Trigger
from cronkeeper_worker import gate
from cronkeeper_worker.journal import Entry
from cronkeeper_worker.tasks import Installed


class Board:
    """Values in memory only; not thread-safe: the engine's thread owns it."""

    def __init__(self) -> None:
        self.tasks: dict[TaskId, Installed] = {}
        self._heap: list[tuple[int, TaskId]] = []
        #: Runs whose task has left this node while they were in progress.
        self._orphans: dict[RunKey, Entry] = {}
        #: Until when (boot-time clock) the newest order of a run may be carried out, of those that were made here.
        self.order_expiry_s: dict[RunKey, float] = {}
        #: The same, of those orders that the runner has not answered.
        self.unanswered: dict[RunKey, float] = {}
        self._running = 0
        self._queued = 0

    def install(self, items: Iterable[Installed]) -> list[Entry]:
        """Install or replace tasks; runs in progress are kept. Returns waiting runs that are to be decided again.

        A task that is given anew, after it was another's, goes on where that one ended: what we decided meanwhile, we
        had no right to.
        """
        given_up: list[Entry] = []
        for item in items:
            known = self.tasks.get(item.id)
            if known is not None:
                item.go_on_for(known)
                cursor_ms = item.view.cursor_ms
                if item.fence > known.fence:
                    again = [e for key, e in item.waiting.items() if is_of_schedule(e) and key.fire_ms > cursor_ms]
                    given_up += [item.waiting.pop(entry.run.key) for entry in again]
                else:
                    cursor_ms = max(known.view.cursor_ms, cursor_ms)
                item.view = replace(item.view, cursor_ms=cursor_ms)
                item.next_ms = gate.next_look_ms(item.view, cursor_ms) if item.next_ms is not None else None
            else:
                for key in [key for key in self._orphans if key.task == item.id]:
                    item.active[key] = self._orphans.pop(key)
            self.tasks[item.id] = item
            self.arm(item)
        return given_up

    def uninstall(self, tasks: Iterable[TaskId]) -> list[Entry]:
        """Forget tasks; their runs go on as orphans. Returns the runs that were waiting."""
        waiting: list[Entry] = []
        for task in tasks:
            item = self.tasks.pop(task, None)
            if item is not None:
                self._orphans |= item.active
                waiting += [*item.waiting.values(), *item.queued.values()]
                self._queued -= len(item.queued)
        return waiting

    def set_foreign(self, runs: dict[TaskId, frozenset[RunKey]]) -> list[Installed]:
        """Note which runs of our tasks are in progress on other nodes; return the tasks that have none any more."""
        freed = []
        for item in self.tasks.values():
            before, item.foreign = item.foreign, runs.get(item.id, frozenset())
            if before and not item.foreign:
                freed.append(item)
        return freed

    def next_look_ms(self) -> int | None:
        """Return when `look` is wanted next, or None."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int, limit: int) -> list[Installed]:
        """Take the tasks, at most so many, that want a look at `now_ms`; arm them again afterwards."""
        found: dict[TaskId, Installed] = {}
        while self._heap and self._heap[0][0] <= now_ms and len(found) < limit:
            next_ms, task = heapq.heappop(self._heap)
            item = self.tasks.get(task)
            # An entry that matches neither is left over from before an edit or an earlier look.
            if item is not None and next_ms in (item.next_ms, _waiting_ms(item)):
                found[task] = item
        return list(found.values())

    def is_due(self, item: Installed, now_ms: int) -> bool:
        """Say whether the task, or a run of it that waits, wants a look at `now_ms`."""
        return any(at_ms is not None and at_ms <= now_ms for at_ms in (item.next_ms, _waiting_ms(item)))

    def arm(self, item: Installed) -> None:
        """Note when the task, or a run of it that waits, wants to be looked at."""
        item.tidy()
        for next_ms in {item.next_ms, _waiting_ms(item)}:
            if next_ms is not None:
                heapq.heappush(self._heap, (next_ms, item.id))

    def keep(self, entry: Entry) -> Entry:
        """Note that a run is in progress, in its present phase."""
        item = self.tasks.get(entry.run.key.task)
        runs = self._orphans if item is None else item.active
        self._running += entry.run.key not in runs
        runs[entry.run.key] = entry
        return entry

    def drop(self, key: RunKey) -> None:
        """Note that a run is over."""
        self.order_expiry_s.pop(key, None)
        self.unanswered.pop(key, None)
        item = self.tasks.get(key.task)
        known = self._orphans.pop(key, None) or (item is not None and item.active.pop(key, None))
        self._running -= bool(known)

    def queue(self, entry: Entry) -> None:
        """Note that a run, of a task that is here, stands in line to be claimed and started."""
        queued = self.tasks[entry.run.key.task].queued
        self._queued += entry.run.key not in queued
        queued[entry.run.key] = entry

    def unqueue(self, key: RunKey) -> Entry | None:
        """Take a run out of the line; None when it does not stand there any more."""
        item = self.tasks.get(key.task)
        entry = None if item is None else item.queued.pop(key, None)
        self._queued -= entry is not None
        return entry

    def find(self, key: RunKey) -> Entry | None:
        """Return a run in progress, or None."""
        item = self.tasks.get(key.task)
        if item is not None and key in item.active:
            return item.active[key]
        return self._orphans.get(key)

    def running(self) -> int:
        """Return how many runs of this node have a process, or are to have one at once."""
        return self._running + self._queued


def _waiting_ms(item: Installed) -> int | None:
    if not item.waits or (item.view.spec.concurrency is not Concurrency.ALLOW and item.busy()):
        # What goes one by one goes when the run before it is over, whatever the time.
        return None
    return min((entry.not_before_ms for entry in item.waiting.values() if entry.not_before_ms), default=None)


def is_of_schedule(entry: Entry) -> bool:
    """Say whether it is the schedule's own fire, of which the grace speaks: a retry has waited in any case. PURE."""
    return entry.run.key.attempt == 1 and entry.run.trigger is not Trigger.MANUAL
