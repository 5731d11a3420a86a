"""What an engine works with, and the two questions it asks of others: is this run ours, and how did it end?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Reason, Run, RunEvent, RunState, Trigger, advance
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker.fences import Answer, Fence, Fences, Outcome
from cronkeeper_worker.journal import Entry, Journal
from cronkeeper_worker.orders import Ended, Order
from cronkeeper_worker.tasks import Installed


class Runner(Protocol):
    """Who starts processes: the runner next door, or this very process."""

    def start(self, orders: Sequence[Order]) -> None: ...

    def cancel(self, run_id: str) -> None: ...

    def ack(self, run_ids: Iterable[str]) -> None: ...


class OrderMaker(Protocol):
    """Turns a claimed run into an order, or says why that cannot be (`order_maker.py`)."""

    def obstacle(self, item: Installed) -> Reason | None: ...

    def make(self, item: Installed, run: Run) -> Order: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine works with."""

    worker: str
    journal: Journal
    fences: Fences
    runner: Runner
    orders: OrderMaker
    #: Grants a pending run on demand (the ledger's compare-and-set); raises UnavailableError.
    claim_pending: Callable[[Run], bool]
    clock: Clock
    metrics: WorkerMetrics


def claim_runs(parts: Parts, able: Sequence[tuple[Installed, Entry]]) -> dict[RunKey, Answer]:
    """Ask the fences for all of these runs at once; runs on demand have rows already, which are moved one by one."""
    now_ms = parts.clock.now_ms()
    answers: dict[RunKey, Answer] = {}
    scheduled: list[Run] = []
    for _, entry in able:
        run = entry.run.evolve(state=advance(RunState.PENDING, RunEvent.CLAIM), claimed_ms=now_ms)
        if run.trigger is Trigger.MANUAL and run.key.attempt == 1:
            answers[run.key] = _claim_on_demand(parts, run)
        else:
            scheduled.append(run)
    if scheduled:
        answers |= parts.fences.claim(scheduled, {entry.run.key: item.view.spec.delivery for item, entry in able})
    return answers


def _claim_on_demand(parts: Parts, run: Run) -> Answer:
    try:
        mine = parts.claim_pending(run)
    except UnavailableError:
        return Outcome.UNDECIDED, Fence.NONE
    return (Outcome.GRANTED if mine else Outcome.REFUSED), Fence.MYSQL


def how_it_ended(ended: Ended, cancel_reason: Reason) -> tuple[RunEvent, Reason | None]:
    """Return the event of the transition table, and the reason to keep with it."""
    if ended.lost:
        return RunEvent.LOSE, Reason.RUNNER_LOST
    if ended.timed_out:
        return RunEvent.TIME_OUT, Reason.TIMEOUT
    if ended.cancelled:
        return RunEvent.CANCEL, cancel_reason
    return (RunEvent.EXIT_OK if ended.exit_code == 0 else RunEvent.EXIT_ERROR), None
