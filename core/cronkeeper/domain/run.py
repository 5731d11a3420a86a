"""Runs: their states, the one transition table, and the one function that reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any

from cronkeeper.domain.ids import RunKey
from cronkeeper.errors import IllegalTransitionError


class RunState(StrEnum):
    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    LOST = "lost"


class RunEvent(StrEnum):
    CLAIM = "claim"
    SKIP = "skip"
    CANCEL = "cancel"
    START = "start"
    RELEASE = "release"
    LOSE = "lose"
    EXIT_OK = "exit_ok"
    EXIT_ERROR = "exit_error"
    TIME_OUT = "time_out"


class Trigger(StrEnum):
    CRON = "cron"
    TIMER = "timer"
    MANUAL = "manual"
    CATCH_UP = "catch_up"
    RETRY = "retry"
    QUEUE = "queue"


class Reason(StrEnum):
    """Why a fire did not run, or ran the way it did. A closed list: it is shown, stored and used as a metric label."""

    OVERLAP = "overlap"
    LATE = "late"
    SUPERSEDED = "superseded"
    PAUSED = "paused"
    FENCE_REFUSED = "fence_refused"
    ISOLATED = "isolated"
    ARTIFACT_MISSING = "artifact_missing"
    USER_REFUSED = "user_refused"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105
    SPAWN_FAILED = "spawn_failed"
    BAD_TASK = "bad_task"
    WORKER_LOST = "worker_lost"
    RUNNER_LOST = "runner_lost"
    REPLACED = "replaced"
    REQUESTED = "requested"
    TIMEOUT = "timeout"


#: The whole life of a run. docs/architecture.md prints this table; nothing else in the code knows an edge.
TRANSITIONS: dict[tuple[RunState, RunEvent], RunState] = {
    (RunState.PENDING, RunEvent.CLAIM): RunState.CLAIMED,
    (RunState.PENDING, RunEvent.SKIP): RunState.SKIPPED,
    (RunState.PENDING, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.CLAIMED, RunEvent.START): RunState.RUNNING,
    (RunState.CLAIMED, RunEvent.RELEASE): RunState.PENDING,
    (RunState.CLAIMED, RunEvent.LOSE): RunState.LOST,
    (RunState.RUNNING, RunEvent.EXIT_OK): RunState.SUCCEEDED,
    (RunState.RUNNING, RunEvent.EXIT_ERROR): RunState.FAILED,
    (RunState.RUNNING, RunEvent.TIME_OUT): RunState.TIMED_OUT,
    (RunState.RUNNING, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.RUNNING, RunEvent.LOSE): RunState.LOST,
    (RunState.LOST, RunEvent.EXIT_OK): RunState.SUCCEEDED,
    (RunState.LOST, RunEvent.EXIT_ERROR): RunState.FAILED,
}

#: No edge leaves these (computed, so that the table stays the only truth).
TERMINAL: frozenset[RunState] = frozenset(RunState) - {state for state, _ in TRANSITIONS}
#: A process of the run may exist.
ACTIVE: frozenset[RunState] = frozenset({RunState.CLAIMED, RunState.RUNNING})
#: What a job's status calls an error.
UNSUCCESSFUL: frozenset[RunState] = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.LOST})


def advance(state: RunState, event: RunEvent) -> RunState:
    """Return the state after `event`. Raises IllegalTransitionError where the table has no edge."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"{state} -> {event}: no such edge") from None


def predecessors(state: RunState) -> frozenset[RunState]:
    """Return the states from which one event leads to `state`: the `WHERE` of a compare-and-set."""
    return frozenset(old for (old, _), new in TRANSITIONS.items() if new is state)


def reachable_from(state: RunState) -> frozenset[RunState]:
    """Return all states that some sequence of events leads to from `state`."""
    seen: set[RunState] = set()
    todo = [state]
    while todo:
        here = todo.pop()
        for (old, _), new in TRANSITIONS.items():
            if old is here and new not in seen:
                seen.add(new)
                todo.append(new)
    return frozenset(seen)


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the ledger. Instants are epoch milliseconds, UTC."""

    key: RunKey
    trigger: Trigger
    state: RunState
    worker: str = ""
    #: 128 random bits in hex, made where the claim is made: whose row is it, when an answer was lost?
    nonce: str = ""
    generation: int = 0
    #: The fencing number it was claimed with. Of a pending run of a backfill, which has none yet: see `at_once`.
    fence: int = 0
    reason: Reason | None = None
    claimed_ms: int | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    autonomous: bool = False
    output_tail: str = ""
    output_bytes: int = 0
    cancel_requested: bool = False

    @property
    def id(self) -> str:
        return str(self.key)

    @property
    def is_skip(self) -> bool:
        """Whether this is the decision not to start a fire of the schedule."""
        return self.state is RunState.SKIPPED and self.trigger is not Trigger.MANUAL and self.key.attempt == 1

    @property
    def at_once(self) -> int:
        """Of a pending run of a backfill: how many such runs of its task may go at once. 0 for all other runs."""
        nobodys = self.state is RunState.PENDING and self.trigger is Trigger.MANUAL and not self.worker
        return self.fence if nobodys else 0

    def evolve(self, **changes: Any) -> Run:
        """Return a copy with these fields changed.

        As `dataclasses.replace`, in less than half the time: a run changes four times on its way.
        """
        new = object.__new__(Run)
        for put, value in zip(_PUT.values(), _values(self), strict=True):
            put(new, value)
        for name, value in changes.items():
            _PUT[name](new, value)
        return new


#: How each field is set where nothing is frozen yet, and how all are read.
_PUT = {one.name: getattr(Run, one.name).__set__ for one in fields(Run)}
_values = attrgetter(*_PUT)


def outweighs(reported: Run, stored: Run) -> bool:
    """Return whether a report replaces a row of another worker: that one skipped the fire, this one did start it.

    It happens when a worker that was cut off fires on by itself while another one takes its task over.
    """
    return stored.state is RunState.SKIPPED and reported.started_ms is not None and reported.nonce != stored.nonce


def may_go(pending: Iterable[Run], active: Iterable[Run]) -> list[Run]:
    """Return which pending runs on demand may be started now, by key.

    Runs of a backfill go oldest first, as many of a task as it allows at once; the task's runs on demand that are
    `active` count. All others may go.
    """
    busy = Counter(run.key.task for run in active if run.trigger is Trigger.MANUAL)
    found = []
    for run in sorted(pending, key=lambda run: run.key):
        if run.at_once:
            if busy[run.key.task] >= run.at_once:
                continue
            busy[run.key.task] += 1
        found.append(run)
    return found
