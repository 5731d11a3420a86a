"""Rows of the ledger that no worker of ours can have written: whoever may write in MySQL can silence fires by them.

PURE. A row is the right to start a fire, so one that is there before its worker asks keeps the fire from running. What
a stranger cannot know, or cannot say in time, gives it away: who works here, to whom the task was given and by which
epoch, and that nobody decides about a fire before it is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, Lease
from cronkeeper.domain.run import RunState
from cronkeeper.ports import Fate
from cronkeeper_manager.observe import MAX_CLOCK_OFFSET_MS

#: By the database's clock. Workers' clocks may be ahead of it, those of workers in order by a third of this.
AHEAD_MS = 30_000


def phantom_words(fate: Fate, known: Set[str], assignments: Mapping[TaskId, Assignment]) -> str:
    """Say why nobody of ours can have written this row; an empty text where somebody can.

    Runs that wait for a worker, or were cancelled as they did, bear no worker's name.
    """
    if not fate.worker:
        return "" if fate.state in (RunState.PENDING, RunState.CANCELLED) else "it names no worker"
    if fate.worker not in known:
        return f"no worker here is called {fate.worker}"
    given = assignments.get(fate.fire.task)
    if given is None:
        return ""
    if fate.fence > given.epoch:
        return f"it bears epoch {fate.fence}, and the task was never given to anybody by it"
    if given.worker and fate.fence == given.epoch and fate.worker != given.worker:
        return f"it names {fate.worker}, and by its epoch the task is {given.worker}'s"
    return ""


def holds_up(fate: Fate, known: Set[str]) -> bool:
    """Say whether the row is a run in progress of a worker that there is not: it keeps the next from starting."""
    return bool(fate.worker) and fate.worker not in known and fate.state in (RunState.CLAIMED, RunState.RUNNING)


def may_drop(fate: Fate, known: Set[str], leases: Mapping[str, Lease]) -> bool:
    """Say whether a row of a fire that is far ahead may be removed: its worker is a stranger, or knows the time.

    A worker whose clock is wrong may have started the fire in earnest, too early. Then the row must stay.
    """
    lease = leases.get(fate.worker)
    return fate.worker not in known or (lease is not None and abs(lease.clock_offset_ms) <= MAX_CLOCK_OFFSET_MS)
