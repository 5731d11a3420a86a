"""What an engine works with, and the two questions it asks of others: is this run ours, and how did it end?"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cronkeeper.domain.attempts import ELSEWHERE_WAIT_S, next_attempt
from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import START_WITHIN_S
from cronkeeper.domain.run import Reason, Run, RunEvent, RunState, Trigger, advance
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker.fences import Answer, Fence, Fences, Outcome
from cronkeeper_worker.gate import Decision
from cronkeeper_worker.journal import Entry, Journal, Phase
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


def new_entry(worker: str, item: Installed, decision: Decision) -> Entry:
    """Return a decision as the journal keeps it, with a nonce of its own."""
    run = Run(
        key=decision.key,
        trigger=decision.trigger,
        state=RunState.PENDING,
        worker=worker,
        nonce=secrets.token_hex(16),
        generation=item.generation,
        fence=item.fence,
        reason=decision.reason,
    )
    if not decision.run:
        return Entry(run.evolve(state=advance(run.state, RunEvent.SKIP)), Phase.OVER)
    return Entry(run, Phase.WAITING if decision.wait else Phase.DECIDED)


def retry_entry(parts: Parts, item: Installed, run: Run) -> Entry | None:
    """Return the next attempt of an ended run's fire, waiting for its back-off, or None: a paused job has none."""
    wanted = next_attempt(item.view.spec, run) if item.view.state is JobState.ACTIVE else None
    if wanted is None or item.view.schedule.is_past_start(run.key.fire_ms):
        return None
    wait_s, trigger = wanted
    if trigger is Trigger.RETRY and item.view.spec.retry.elsewhere:
        # The leader moves the task meanwhile, if it is there and another worker fits.
        wait_s += ELSEWHERE_WAIT_S
    key = RunKey(run.key.task, run.key.fire_ms, run.key.attempt + 1)
    entry = new_entry(parts.worker, item, Decision(key, trigger, run=True, wait=True))
    return replace(entry, not_before_ms=parts.clock.now_ms() + wait_s * 1000)


def may_take_up(known: Entry | None) -> bool:
    """Say whether a retry that another worker left is this node's to decide: it is new, or was given up here. PURE."""
    return known is None or (known.phase is Phase.OVER and known.run.state is RunState.PENDING)


def was_refused(known: Entry) -> bool:
    """Say whether a fence refused this node the run, so that nothing of it was begun here. PURE."""
    return known.phase is Phase.OVER and known.run.reason is Reason.FENCE_REFUSED and known.run.claimed_ms is None


def released(entry: Entry) -> Entry:
    """Return an entry that has no process as one that is to be claimed (again)."""
    if entry.phase is not Phase.CLAIMED:
        return entry
    return replace(entry, run=entry.run.evolve(state=advance(entry.run.state, RunEvent.RELEASE)), phase=Phase.DECIDED)


def begun(entry: Entry, now_ms: int) -> Entry:
    """Return an entry of which the runner knows something as one that was claimed, however far the journal had come."""
    if entry.phase in (Phase.CLAIMED, Phase.STARTED):
        return entry
    run = entry.run.evolve(state=advance(entry.run.state, RunEvent.CLAIM), claimed_ms=entry.run.claimed_ms or now_ms)
    return replace(entry, run=run, phase=Phase.CLAIMED)


def started_entry(entry: Entry, started_ms: int) -> Entry:
    """Return a claimed entry as one that has a process. PURE."""
    run = entry.run.evolve(state=advance(entry.run.state, RunEvent.START), started_ms=started_ms)
    return Entry(run, Phase.STARTED, entry.not_before_ms, entry.claim_fence)


def unstarted(entry: Entry, now_ms: int) -> Entry:
    """Return an entry without a process, whose task has left this node, as one that is lost. PURE."""
    run = begun(entry, now_ms).run
    run = run.evolve(state=advance(run.state, RunEvent.LOSE), reason=Reason.RUNNER_LOST, ended_ms=now_ms)
    return replace(entry, run=run, phase=Phase.OVER)


def order_expiry_s(parts: Parts, answer: Answer) -> float:
    """Return until when (boot-time clock) an order may be carried out.

    What was heard after the claim was asked does not prolong it: after a pause in between, the answer lies there, and a
    new session may be alive already, while the run was given up and another owner has run it.
    """
    heard_s = None
    if answer.fence is not Fence.NONE:  # else nobody granted it; but by then a fence may be in reach
        heard_s = parts.fences.witness_s(parts.clock.boot_s())
    if heard_s is None or answer.asked_s >= heard_s + START_WITHIN_S:
        # The claim itself is the best there is.
        heard_s = answer.asked_s
    return min(heard_s, answer.asked_s) + START_WITHIN_S


def claim_runs(parts: Parts, able: Sequence[tuple[Installed, Entry]]) -> tuple[dict[RunKey, Run], dict[RunKey, Answer]]:
    """Ask the fences for all of these runs at once; return them as they are once granted, and the answers.

    Runs on demand have rows already, which are moved one by one.
    """
    now_ms = parts.clock.now_ms()
    claimed: dict[RunKey, Run] = {}
    answers: dict[RunKey, Answer] = {}
    scheduled: list[Run] = []
    for _, entry in able:
        run = entry.run.evolve(state=advance(RunState.PENDING, RunEvent.CLAIM), claimed_ms=now_ms)
        claimed[run.key] = run
        if run.trigger is Trigger.MANUAL:
            answers[run.key] = _claim_on_demand(parts, run)
        else:
            scheduled.append(run)
    if scheduled:
        answers |= parts.fences.claim(scheduled, {entry.run.key: item.view.spec.delivery for item, entry in able})
    return claimed, answers


def _claim_on_demand(parts: Parts, run: Run) -> Answer:
    asked_s = parts.clock.boot_s()
    try:
        mine = parts.claim_pending(run)
    except UnavailableError:
        return Answer(Outcome.UNDECIDED, Fence.NONE, asked_s)
    return Answer(Outcome.GRANTED if mine else Outcome.REFUSED, Fence.MYSQL, asked_s)


def ended_run(run: Run, ended: Ended, cancel_reason: Reason, started_ms: int | None = None) -> Run:
    """Return the run as it stands once the runner has told its end, and perhaps its start with it. PURE."""
    state, began_ms = run.state, run.started_ms
    if state is RunState.CLAIMED:
        state, began_ms = advance(state, RunEvent.START), began_ms or started_ms or ended.ended_ms
    event, reason = _how_it_ended(ended, cancel_reason)
    return run.evolve(
        state=advance(state, event),
        reason=reason,
        started_ms=began_ms,
        ended_ms=ended.ended_ms,
        exit_code=ended.exit_code,
        signal=ended.signal,
        output_bytes=ended.output_bytes,
        output_tail=ended.tail,
    )


def failed_run(run: Run, reason: Reason, now_ms: int, message: str = "") -> Run:
    """Return a claimed or started run as failed without a process of its own. PURE."""
    if run.state is RunState.CLAIMED:
        run = run.evolve(state=advance(run.state, RunEvent.START))
    state = advance(run.state, RunEvent.EXIT_ERROR)
    return run.evolve(state=state, reason=reason, ended_ms=now_ms, output_tail=message[:4096])


def _how_it_ended(ended: Ended, cancel_reason: Reason) -> tuple[RunEvent, Reason | None]:
    """Return the event of the transition table, and the reason to keep with it."""
    if ended.lost:
        return RunEvent.LOSE, Reason.RUNNER_LOST
    if ended.timed_out:
        return RunEvent.TIME_OUT, Reason.TIMEOUT
    if ended.cancelled:
        return RunEvent.CANCEL, cancel_reason
    return (RunEvent.EXIT_OK if ended.exit_code == 0 else RunEvent.EXIT_ERROR), None
