"""Starting what was decided: what may go now, whose it is, and the order for the runner.

The engine's other half: it shares the board with it, and tells it of runs that ended without a process.

What is decided stands in line. A piece at a time is claimed and ordered, the next one when the runner has come so far:
so it begins with the first while the others are decided, and no order is old before its turn.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency, JobState
from cronkeeper.domain.placement import START_WITHIN_S
from cronkeeper.domain.run import Reason, Run, RunEvent, RunState, Trigger, advance
from cronkeeper.errors import UnavailableError
from cronkeeper_worker.board import Board, is_of_schedule
from cronkeeper_worker.engine_parts import Parts, claim_runs, order_expiry_s, released
from cronkeeper_worker.fences import Answer, Fence, Outcome
from cronkeeper_worker.journal import Entry, Phase
from cronkeeper_worker.orders import Order
from cronkeeper_worker.tasks import Installed

log = logging.getLogger(__name__)

#: A run that waits for a fence or an artifact is looked at again after so long.
ASK_AGAIN_MS = 1000
#: So many runs are claimed with one statement, and ordered with one message.
PIECE = 100
#: So many orders may be unanswered. A machine that starts 50 a second carries them out before they are too old.
WINDOW = 2 * PIECE


class Starter:
    """Owned by the engine, on the engine's thread. `fail` ends a claimed run for which there will be no process."""

    def __init__(
        self, parts: Parts, board: Board, fail: Callable[[RunKey, Reason, str], None], window: int | None
    ) -> None:
        self._parts = parts
        self._board = board
        self._fail = fail
        self._window = window
        #: Who stands in line, and since when (boot-time clock). Some may have left it.
        self._line: deque[tuple[RunKey, float]] = deque()

    def take_ready(self, item: Installed, now_ms: int, *, begun: bool = False) -> list[Entry]:
        """Take the waiting runs that may go now: one if they go one by one, none if one has just `begun`."""
        one_by_one = item.view.spec.concurrency is not Concurrency.ALLOW
        ready: list[Entry] = []
        for key, entry in sorted(item.waiting.items()):
            if entry.not_before_ms > now_ms or (one_by_one and (begun or item.busy() or ready)):
                continue
            del item.waiting[key]
            if is_of_schedule(entry) and self._too_late(item, key, now_ms):
                self.skip(entry, item.obstacle or Reason.LATE)
            else:
                ready.append(replace(entry, phase=Phase.DECIDED))
        return ready

    def launch_again(self, entries: Sequence[Entry]) -> None:
        """Have claimed once more, by the same nonces, and started what was decided or claimed but has no process.

        Before all others: these had their turn already.
        """
        fresh: list[Entry] = []
        freed: list[Installed] = []
        for entry in map(released, entries):
            item = self._board.tasks[entry.run.key.task]
            if item.holds(entry.run.key):
                continue
            if is_of_schedule(entry) and self._too_late(item, entry.run.key, self._parts.clock.now_ms()):
                self.skip(entry, Reason.LATE)
                freed.append(item)
            elif item.busy() and item.view.spec.concurrency is not Concurrency.ALLOW:
                item.waiting[entry.run.key] = replace(entry, phase=Phase.WAITING)
            else:
                self._board.queue(entry)
                fresh.append(entry)
        self._stand_in_line([*fresh, *self._behind(freed)], first=True)

    def launch(self, entries: Sequence[Entry]) -> None:
        """Have decided runs claimed and started, in their turn: at once, if nobody stands in line."""
        for entry in entries:
            self._board.queue(entry)
        self._stand_in_line(entries)

    def pump(self) -> None:
        """Claim and start what stands in line, as far as the runner has come."""
        while self._line and self._room() >= (size := min(PIECE, len(self._line))):
            some = [self._line.popleft() for _ in range(size)]
            now_s, entries, long = self._parts.clock.boot_s(), [], set()
            for key, since_s in some:
                if (entry := self._board.unqueue(key)) is not None:
                    entries.append(entry)
                    if now_s - since_s > START_WITHIN_S:
                        long.add(key)
            self._go(entries, long)

    def flush(self, tasks: Collection[TaskId]) -> None:
        """Claim and start at once whatever of these tasks stands in line: they are about to leave, or to change."""
        found = [item for task in tasks if (item := self._board.tasks.get(task)) is not None and item.queued]
        while entries := [entry for item in found for key in list(item.queued) if (entry := self._board.unqueue(key))]:
            self._go(entries)

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
    def _stand_in_line(self, entries: Sequence[Entry], *, first: bool = False) -> None:
        """If others stand there, nobody is claimed now: perhaps nothing is to be before our tasks are looked at."""
        alone, now_s = not self._line, self._parts.clock.boot_s()
        places = [(entry.run.key, now_s) for entry in entries]
        if first:
            self._line.extendleft(reversed(places))
        else:
            self._line.extend(places)
        if alone:
            self.pump()

    def _room(self) -> int:
        """Return how many orders the runner may be given."""
        if self._window is None:
            return PIECE
        orders = self._board.unanswered
        if len(orders) + PIECE > self._window:
            # An order that is too old by now is not carried out, whatever has become of the answer.
            now_s = self._parts.clock.boot_s()
            for key in [key for key, expiry_s in orders.items() if expiry_s < now_s]:
                del orders[key]
        return self._window - len(orders)

    def _go(self, entries: Sequence[Entry], long: Collection[RunKey] = ()) -> None:
        """Claim and start. Those in `long` stood in line for so long that they may be too late by now.

        A claim that is refused holds up nobody: what waits behind it goes at once, not at the next look. By then the
        next fire would be due, and be skipped for an overlap with a run that there never was.
        """
        left = {entry.run.key: entry for entry in entries}
        try:
            freed = self._launch(entries, long, left)
        except BaseException:
            # The journal cannot be written, say. Who has no answer yet keeps its place.
            for entry in reversed(left.values()):
                self._board.queue(entry)
                self._line.appendleft((entry.run.key, self._parts.clock.boot_s()))
            raise
        behind = self._behind(freed)
        self._line.extendleft((entry.run.key, self._parts.clock.boot_s()) for entry in reversed(behind))

    def _behind(self, freed: Iterable[Installed]) -> list[Entry]:
        """Put into the line's books what waits behind runs that there will not be; return it."""
        now_ms = self._parts.clock.now_ms()
        ready = []
        for item in {item.id: item for item in freed}.values():
            for entry in self.take_ready(item, now_ms):
                self._board.queue(entry)
                ready.append(entry)
            self._board.arm(item)
        return ready

    def _launch(self, entries: Sequence[Entry], long: Collection[RunKey], left: dict[RunKey, Entry]) -> list[Installed]:
        """Claim and start; take out of `left` who has an answer; return the tasks of those that will not run."""
        able: list[tuple[Installed, Entry]] = []
        freed: list[Installed] = []
        now_ms = self._parts.clock.now_ms()
        for entry in entries:
            key = entry.run.key
            item = self._board.tasks.get(key.task)
            if item is None:
                del left[key]
                continue
            item.obstacle = self._parts.orders.obstacle(item)
            late, on_demand = self._too_late(item, key, now_ms), entry.run.trigger is Trigger.MANUAL
            if item.obstacle is Reason.ARTIFACT_MISSING and not late:
                self._wait_more(item, entry)
            elif (item.obstacle is not None and not on_demand) or (late and key in long and is_of_schedule(entry)):
                self.skip(entry, item.obstacle or Reason.LATE)
                freed.append(item)
            else:
                # A run on demand has its row already: it is claimed, and then ends as failed with the reason.
                able.append((item, entry))
                continue
            del left[key]
        claimed, answers = claim_runs(self._parts, able) if able else ({}, {})
        orders: list[Order] = []
        try:
            for item, entry in able:
                order = self._on_answer(item, entry, claimed[entry.run.key], answers[entry.run.key])
                del left[entry.run.key]
                if order is not None:
                    orders.append(order)
        finally:
            self._order(orders)
        counts = Counter((answer.fence.value, answer.outcome.value) for answer in answers.values())
        for labels, count in counts.items():
            self._parts.metrics.claims.labels(*labels).inc(count)
        return freed + [item for item, entry in able if answers[entry.run.key].outcome is Outcome.REFUSED]

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

    def _on_answer(self, item: Installed, entry: Entry, claimed: Run, answer: Answer) -> Order | None:
        outcome, fence = answer.outcome, answer.fence
        run = entry.run
        if outcome is Outcome.REFUSED:
            skipped = run.evolve(state=advance(run.state, RunEvent.SKIP), reason=Reason.FENCE_REFUSED)
            over = [replace(entry, run=skipped, phase=Phase.OVER)]
            if fence is Fence.MYSQL:
                # The row is another's: there is nothing to report, and nothing more to do here.
                self._parts.journal.refuse(over)
            else:
                # MySQL may have granted it all the same, unheard: nobody would start it, should that other one die.
                self._parts.journal.give_up(over, Reason.FENCE_REFUSED, self._parts.clock.now_ms())
            log.info("another worker has this fire", extra={"event": "claim.refused", "run": run.id})
            return None
        if outcome is Outcome.UNDECIDED:
            item.obstacle = Reason.ISOLATED
            self._wait_more(item, entry)
            return None
        run = claimed.evolve(autonomous=True) if fence is Fence.NONE else claimed
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
            expiry_s = order_expiry_s(self._parts, answer)
            self._board.order_expiry_s[run.key] = self._board.unanswered[run.key] = expiry_s
            return order._replace(expires_boot_s=expiry_s)
        except ValueError as exc:
            self._fail(run.key, Reason.SPAWN_FAILED, str(exc))
            return None

    def _wait_more(self, item: Installed, entry: Entry) -> None:
        """Have a run wait for a fence or its artifact, until its grace is over."""
        now_ms = self._parts.clock.now_ms()
        later = replace(entry, phase=Phase.WAITING, not_before_ms=now_ms + ASK_AGAIN_MS)
        self._parts.journal.update([later], report=False)
        item.waiting[entry.run.key] = later
        self._board.arm(item)
