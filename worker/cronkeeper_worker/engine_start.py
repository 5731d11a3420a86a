"""Starting what was decided: what may go now, whose it is, and the order for the runner.

The engine's other half: it shares the board with it, and tells it of runs that ended without a process.

What is decided stands in line. A piece at a time is claimed and ordered, the next one when the runner has come so far:
so it begins with the first while the others are decided, and no order is old before its turn.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Found:
    """What has become of a piece: each run is in one of these lists, as it is to be."""

    granted: list[tuple[Installed, Entry, Answer]]
    #: To be asked for again, as they are still.
    later: list[Entry]
    skipped: list[Entry]
    refused: list[Entry]
    #: Refused by ZooKeeper, while MySQL may have granted them.
    doubted: list[Entry]


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
        #: Tasks with runs that there will not be, until what waits behind those has gone: the journal may fail.
        self._freed: set[TaskId] = set()

    def take_ready(self, items: Iterable[Installed], now_ms: int, begun: Collection[TaskId] = ()) -> list[Entry]:
        """Take the waiting runs that may go now: one if they go one by one, none if one of the task has just `begun`.

        What has come too late is written down first, and all at once: if that cannot be, all of them wait on.
        """
        ready: list[Entry] = []
        late: list[Entry] = []
        for item in items:
            one_by_one = item.view.spec.concurrency is not Concurrency.ALLOW
            taken = one_by_one and (item.id in begun or bool(item.busy()))
            for key, entry in sorted(item.waiting.items()) if item.waits and not taken else ():
                if taken or entry.not_before_ms > now_ms:
                    continue
                if is_of_schedule(entry) and self._too_late(item, key, now_ms):
                    late.append(_skipped(entry, item.obstacle or Reason.LATE))
                else:
                    ready.append(replace(entry, phase=Phase.DECIDED))
                    taken = one_by_one
        self._parts.journal.update(late)
        for entry in (*late, *ready):
            del self._board.tasks[entry.run.key.task].waiting[entry.run.key]
        return ready

    def launch_again(self, entries: Sequence[Entry]) -> None:
        """Have claimed once more, by the same nonces, and started what was decided or claimed but has no process.

        Before all others: these had their turn already. All of them keep what they are until the rest is written down.
        """
        now_ms, again = self._parts.clock.now_ms(), {entry.run.key for entry in entries}
        late: list[Entry] = []
        fresh: dict[RunKey, Entry] = {}
        waiting: list[Entry] = []
        begun: set[TaskId] = set()
        for entry in map(released, entries):
            key = entry.run.key
            item = self._board.tasks[key.task]
            if item.holds(key) and self._board.find(key) is None:
                continue
            busy = item.id in begun or not again.issuperset(item.busy())
            if is_of_schedule(entry) and self._too_late(item, key, now_ms):
                late.append(_skipped(entry, Reason.LATE))
                self._freed.add(item.id)
            elif busy and item.view.spec.concurrency is not Concurrency.ALLOW:
                waiting.append(entry)
            else:
                fresh[key] = entry
                begun.add(item.id)
        self._parts.journal.update(late)
        for entry in (*late, *waiting, *fresh.values()):
            self._board.drop(entry.run.key)
        for entry in waiting:
            self._board.tasks[entry.run.key.task].waiting[entry.run.key] = replace(entry, phase=Phase.WAITING)
        for entry in fresh.values():
            self._board.queue(entry)
        self._stand_in_line(list(fresh.values()), first=True)

    def release(self, items: Iterable[Installed]) -> None:
        """Have go what waited for runs that are over."""
        self._stand_in_line(self._behind(items))

    def launch(self, entries: Sequence[Entry]) -> None:
        """Have decided runs claimed and started, in their turn: at once, if nobody stands in line."""
        for entry in entries:
            self._board.queue(entry)
        self._stand_in_line(entries)

    def pump(self) -> bool:
        """Claim and start what stands in line, as far as the runner has come; say whether there is more for now.

        No more than fills the window: where no fence answers the room does not shrink, and somebody is to be heard.
        """
        self._line.extendleft(reversed(self._places(self._behind(()))))
        taken = 0
        while self._may_go():
            if self._window is not None and taken >= WINDOW:
                return True
            some = [self._line.popleft() for _ in range(min(PIECE, len(self._line)))]
            taken += len(some)
            now_s, entries, long = self._parts.clock.boot_s(), [], set()
            for key, since_s in some:
                if (entry := self._board.unqueue(key)) is not None:
                    entries.append(entry)
                    if now_s - since_s > START_WITHIN_S:
                        long.add(key)
            self._go(entries, long)
        return False

    def flush(self, tasks: Collection[TaskId]) -> None:
        """Claim and start at once whatever of these tasks stands in line: they are about to leave, or to change."""
        found = [item for task in tasks if (item := self._board.tasks.get(task)) is not None and item.queued]
        while entries := [entry for item in found for key in list(item.queued) if (entry := self._board.unqueue(key))]:
            self._go(entries)

    def flush_leaving(self, tasks: Collection[TaskId]) -> None:
        """Claim and start what the runner has room for of tasks that are about to leave.

        An order that is too old is not made again for a task that has left. Nor is anything claimed that has stood for
        long: after a pause, such a task may have been another's for as long. All that is for its next owner.
        """
        leaving = {key for task in tasks if (item := self._board.tasks.get(task)) is not None for key in item.queued}
        since_s = self._parts.clock.boot_s() - START_WITHIN_S
        some = [key for key, placed_s in self._line if key in leaving and placed_s >= since_s] if leaving else []
        some = some[: max(0, self._room())]
        for first in range(0, len(some), PIECE):
            piece = some[first : first + PIECE]
            self._go([entry for key in piece if (entry := self._board.unqueue(key)) is not None])

    def skip(self, entries: Sequence[Entry], reason: Reason) -> None:
        """Skip runs that wait."""
        self._parts.journal.update([_skipped(entry, reason) for entry in entries])
        for entry in entries:
            del self._board.tasks[entry.run.key.task].waiting[entry.run.key]

    def skip_paused(self, items: Iterable[Installed]) -> None:
        """Skip what waits of paused tasks: a pause holds for retries, too. What people have asked for stays."""
        paused = [item for item in items if item.waits and item.view.state is not JobState.ACTIVE]
        waiting = [entry for item in paused for _, entry in sorted(item.waiting.items())]
        self.skip([entry for entry in waiting if entry.run.trigger is not Trigger.MANUAL], Reason.PAUSED)

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Leave waiting runs to the task's next owner. Some may have been claimed, and the answer lost."""
        over = [replace(entry, phase=Phase.OVER) for entry in entries]
        if over:
            self._parts.journal.give_up(over, Reason.ISOLATED, self._parts.clock.now_ms())

    # -- inside
    def _stand_in_line(self, entries: Sequence[Entry], *, first: bool = False) -> None:
        """If others stand there, nobody is claimed now: perhaps nothing is to be before our tasks are looked at."""
        alone, places = not self._line, self._places(entries)
        if first:
            self._line.extendleft(reversed(places))
        else:
            self._line.extend(places)
        if alone:
            self.pump()

    def _places(self, entries: Iterable[Entry]) -> list[tuple[RunKey, float]]:
        now_s = self._parts.clock.boot_s()
        return [(entry.run.key, now_s) for entry in entries]

    def _may_go(self) -> bool:
        return bool(self._line) and self._room() >= min(PIECE, len(self._line))

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

    def _go(self, entries: list[Entry], long: Collection[RunKey] = ()) -> None:
        """Claim and start. Those in `long` stood in line for so long that they may be too late by now.

        A claim that is refused holds up nobody: what waits behind it goes at once, not at the next look. By then the
        next fire would be due, and be skipped for an overlap with a run that there never was.
        """
        left = {entry.run.key: entry for entry in entries}
        try:
            freed = self._launch(entries, long, left)
        except BaseException:
            # The journal cannot be written, say. Who has no answer yet keeps its place.
            for entry in left.values():
                self._board.queue(entry)
            self._line.extendleft(reversed(self._places(left.values())))
            raise
        self._line.extendleft(reversed(self._places(self._behind(freed))))

    def _behind(self, freed: Iterable[Installed]) -> list[Entry]:
        """Put into the line's books what waits behind runs that there will not be; return it."""
        self._freed.update(item.id for item in freed)
        found = [item for task in self._freed if (item := self._board.tasks.get(task)) is not None]
        ready = self.take_ready(found, self._parts.clock.now_ms())
        self._freed.clear()
        for entry in ready:
            self._board.queue(entry)
        for item in found:
            self._board.arm(item)
        return ready

    def _launch(self, entries: list[Entry], long: Collection[RunKey], left: dict[RunKey, Entry]) -> list[Installed]:
        """Claim and start; take out of `left` who has an answer; return the tasks of those that will not run."""
        able: list[tuple[Installed, Entry]] = []
        found = Found([], [], [], [], [])
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
                found.later.append(entry)
            elif (item.obstacle is not None and not on_demand) or (late and key in long and is_of_schedule(entry)):
                found.skipped.append(_skipped(entry, item.obstacle or Reason.LATE))
            else:
                # A run on demand has its row already: it is claimed, and then ends as failed with the reason.
                able.append((item, entry))
        claimed, answers = claim_runs(self._parts, able) if able else ({}, {})
        for item, entry in able:
            self._sort(item, entry, claimed[entry.run.key], answers[entry.run.key], found)
        self._settle(found, left)
        orders: list[Order] = []
        try:
            for item, entry, answer in found.granted:
                order = self._order_of(item, entry, answer)
                del left[entry.run.key]
                if order is not None:
                    orders.append(order)
        finally:
            self._order(orders)
        counts = Counter((answer.fence.value, answer.outcome.value) for answer in answers.values())
        for labels, count in counts.items():
            self._parts.metrics.claims.labels(*labels).inc(count)
        gone = (*found.skipped, *found.refused, *found.doubted)
        return [item for entry in gone if (item := self._board.tasks.get(entry.run.key.task)) is not None]

    def _sort(self, item: Installed, entry: Entry, claimed: Run, answer: Answer, found: Found) -> None:
        outcome, fence = answer.outcome, answer.fence
        if outcome is Outcome.REFUSED:
            # By MySQL: the row is another's, and there is nothing to report. By ZooKeeper: MySQL may have granted it
            # all the same, unheard; nobody would start it, should that other one die.
            others = found.refused if fence is Fence.MYSQL else found.doubted
            run = entry.run.evolve(state=advance(entry.run.state, RunEvent.SKIP), reason=Reason.FENCE_REFUSED)
            others.append(replace(entry, run=run, phase=Phase.OVER))
            log.info("another worker has this fire", extra={"event": "claim.refused", "run": entry.run.id})
        elif outcome is Outcome.UNDECIDED:
            item.obstacle = Reason.ISOLATED
            found.later.append(entry)
        else:
            run = claimed.evolve(autonomous=True) if fence is Fence.NONE else claimed
            found.granted.append((item, Entry(run, Phase.CLAIMED, claim_fence=fence.value), answer))

    def _settle(self, found: Found, left: dict[RunKey, Entry]) -> None:
        """Write down what has become of a piece, with one sync, and only then believe it."""
        now_ms = self._parts.clock.now_ms()
        # What waits for a fence or its artifact does so until its grace is over.
        later = [replace(one, phase=Phase.WAITING, not_before_ms=now_ms + ASK_AGAIN_MS) for one in found.later]
        told = [entry for _, entry, answer in found.granted if answer.fence is not Fence.MYSQL]
        told, untold = [*found.skipped, *told], [*found.refused, *later]
        if told or untold or found.doubted:
            self._parts.journal.settle(told, untold, found.doubted, Reason.FENCE_REFUSED, now_ms)
        for entry in later:
            item = self._board.tasks[entry.run.key.task]
            item.waiting[entry.run.key] = entry
            self._board.arm(item)
        for entry in (*found.skipped, *untold, *found.doubted):
            del left[entry.run.key]

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

    def _order_of(self, item: Installed, granted: Entry, answer: Answer) -> Order | None:
        run = granted.run
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


def _skipped(entry: Entry, reason: Reason) -> Entry:
    run = entry.run.evolve(state=advance(RunState.PENDING, RunEvent.SKIP), reason=reason)
    log.warning("a fire was skipped", extra={"event": "run.skipped", "run": run.id, "reason": reason.value})
    return replace(entry, run=run, phase=Phase.OVER)
