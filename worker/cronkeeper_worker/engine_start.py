"""Starting what was decided: what may go now, whose it is, and the order for the runner.

The engine's other half: it shares the board with it, and tells it of runs that ended without a process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import Concurrency, JobState
from cronkeeper.domain.run import Reason, RunEvent, RunState, Trigger, advance
from cronkeeper.errors import UnavailableError
from cronkeeper_worker.board import Board
from cronkeeper_worker.engine_parts import Parts, claim_runs, order_expiry_s, released
from cronkeeper_worker.fences import Answer, Fence, Outcome
from cronkeeper_worker.journal import Entry, Phase
from cronkeeper_worker.orders import Order
from cronkeeper_worker.tasks import Installed

log = logging.getLogger(__name__)

#: A run that waits for a fence or an artifact is looked at again after so long.
ASK_AGAIN_MS = 1000


class Starter:
    """Owned by the engine, on the engine's thread. `fail` ends a claimed run for which there will be no process."""

    def __init__(self, parts: Parts, board: Board, fail: Callable[[RunKey, Reason, str], None]) -> None:
        self._parts = parts
        self._board = board
        self._fail = fail

    def take_ready(self, item: Installed, now_ms: int, *, begun: bool = False) -> list[Entry]:
        """Take the waiting runs that may go now: one if they go one by one, none if one has just `begun`."""
        one_by_one = item.view.spec.concurrency is not Concurrency.ALLOW
        ready: list[Entry] = []
        for key, entry in sorted(item.waiting.items()):
            if entry.not_before_ms > now_ms or (one_by_one and (begun or item.busy() or ready)):
                continue
            del item.waiting[key]
            of_schedule = key.attempt == 1 and entry.run.trigger is not Trigger.MANUAL
            if of_schedule and self._too_late(item, key, now_ms):
                self.skip(entry, item.obstacle or Reason.LATE)
            else:
                ready.append(replace(entry, phase=Phase.DECIDED))
        return ready

    def launch_again(self, entries: Sequence[Entry]) -> None:
        """Claim once more, by the same nonces, and start what was decided or claimed but has no process."""
        fresh: dict[RunKey, Entry] = {}
        for entry in map(released, entries):
            item = self._board.tasks[entry.run.key.task]
            occupied = item.busy() or any(key.task == item.id for key in fresh)
            late = self._too_late(item, entry.run.key, self._parts.clock.now_ms())
            if late and entry.run.trigger is not Trigger.MANUAL:
                self.skip(entry, Reason.LATE)
            elif occupied and item.view.spec.concurrency is not Concurrency.ALLOW:
                item.waiting[entry.run.key] = replace(entry, phase=Phase.WAITING)
            else:
                fresh[entry.run.key] = entry
        self.launch(list(fresh.values()))

    def launch(self, entries: Sequence[Entry]) -> None:
        """Claim and start decided runs: one claim for all of them.

        A claim that is refused holds up nobody: what waits behind it goes at once, not at the next look. By then the
        next fire would be due, and be skipped for an overlap with a run that there never was.
        """
        while entries:
            refused = self._launch(entries)
            now_ms = self._parts.clock.now_ms()
            entries = [entry for item in refused for entry in self.take_ready(item, now_ms)]

    def _launch(self, entries: Sequence[Entry]) -> list[Installed]:
        """Claim and start; return the tasks of which a claim was refused."""
        able: list[tuple[Installed, Entry]] = []
        for entry in entries:
            item = self._board.tasks.get(entry.run.key.task)
            if item is None:
                continue
            item.obstacle = self._parts.orders.obstacle(item)
            late = self._too_late(item, entry.run.key, self._parts.clock.now_ms())
            if item.obstacle is Reason.ARTIFACT_MISSING and not late:
                self._wait_more(item, entry)
            elif item.obstacle is not None and entry.run.trigger is not Trigger.MANUAL:
                self.skip(entry, item.obstacle)
            else:
                # A run on demand has its row already: it is claimed, and then ends as failed with the reason.
                able.append((item, entry))
        answers = claim_runs(self._parts, able)
        orders = [self._on_answer(item, entry, answers[entry.run.key]) for item, entry in able]
        self._order([order for order in orders if order is not None])
        refused = [item for item, entry in able if answers[entry.run.key].outcome is Outcome.REFUSED]
        return list({item.id: item for item in refused}.values())

    def skip(self, entry: Entry, reason: Reason) -> None:
        run = entry.run.evolve(state=advance(RunState.PENDING, RunEvent.SKIP), reason=reason)
        log.warning("a fire was skipped", extra={"event": "run.skipped", "run": run.id, "reason": reason.value})
        self._parts.journal.update([replace(entry, run=run, phase=Phase.OVER)])

    def skip_paused(self, items: Iterable[Installed]) -> None:
        """Skip what waits of paused tasks: a pause holds for retries, too. What people have asked for stays."""
        for item in items:
            if item.view.state is JobState.ACTIVE:
                continue
            for key, entry in sorted(item.waiting.items()):
                if entry.run.trigger is not Trigger.MANUAL:
                    del item.waiting[key]
                    self.skip(entry, Reason.PAUSED)

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Leave waiting runs to the task's next owner. Some may have been claimed, and the answer lost."""
        over = [replace(entry, phase=Phase.OVER) for entry in entries]
        if over:
            self._parts.journal.give_up(over, Reason.ISOLATED, self._parts.clock.now_ms())

    # -- inside
    def _too_late(self, item: Installed, key: RunKey, now_ms: int) -> bool:
        spec = item.view.spec
        return now_ms - key.fire_ms - spec.jitter_ms(item.id, key.fire_ms) > spec.grace_s * 1000

    def _order(self, orders: Sequence[Order]) -> None:
        if not orders:
            return
        try:
            self._parts.runner.start(orders)
        except UnavailableError as exc:
            # The client keeps the orders, and hands them over with the next connection.
            log.warning("the runner is away for a moment", extra={"event": "runner.away", "error": str(exc)})
        self._parts.metrics.running.set(self._board.running())

    def _on_answer(self, item: Installed, entry: Entry, answer: Answer) -> Order | None:
        outcome, fence = answer.outcome, answer.fence
        self._parts.metrics.claims.labels(fence.value, outcome.value).inc()
        run = entry.run
        if outcome is Outcome.REFUSED:
            skipped = run.evolve(state=advance(run.state, RunEvent.SKIP), reason=Reason.FENCE_REFUSED)
            over = [replace(entry, run=skipped, phase=Phase.OVER)]
            if fence is Fence.MYSQL:
                # The row is another's: there is nothing to report, and nothing more to do here.
                self._parts.journal.update(over, report=False)
            else:
                # MySQL may have granted it all the same, unheard: nobody would start it, should that other one die.
                self._parts.journal.give_up(over, Reason.FENCE_REFUSED, self._parts.clock.now_ms())
            log.info("another worker has this fire", extra={"event": "claim.refused", "run": run.id})
            return None
        if outcome is Outcome.UNDECIDED:
            item.obstacle = Reason.ISOLATED
            self._wait_more(item, entry)
            return None
        run = run.evolve(
            state=advance(run.state, RunEvent.CLAIM),
            claimed_ms=self._parts.clock.now_ms(),
            autonomous=fence is Fence.NONE,
        )
        granted = Entry(run, Phase.CLAIMED, claim_fence=fence.value)
        if fence is not Fence.MYSQL:
            self._parts.journal.update([granted])
        self._board.keep(granted)
        obstacle = item.obstacle
        if obstacle is not None and obstacle is not Reason.ISOLATED:
            self._fail(run.key, obstacle, "")
            return None
        try:
            order = self._parts.orders.make(item, run)
            expiry_s = self._board.order_expiry_s[run.key] = order_expiry_s(self._parts, answer)
            return order._replace(expires_boot_s=expiry_s)
        except ValueError as exc:
            self._fail(run.key, Reason.SPAWN_FAILED, str(exc))
            return None

    def _wait_more(self, item: Installed, entry: Entry) -> None:
        """Have a run wait for a fence or its artifact, until its grace is over."""
        now_ms = self._parts.clock.now_ms()
        later = replace(entry, phase=Phase.WAITING, not_before_ms=now_ms + ASK_AGAIN_MS)
        item.waiting[entry.run.key] = later
        self._parts.journal.update([later], report=False)
        self._board.arm(item)
