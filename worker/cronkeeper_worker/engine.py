"""The engine: what is due is decided by the gate, written down, claimed, started; what ends is written down.

It has no thread of its own: the daemon's engine thread drives it (engine_thread.py), and `cronkeeper-fire` drives one
when the daemon is away (stand_in.py). It does I/O in a fixed order and decides nothing that the gate, the fences or the
transition table could decide.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunEvent, RunState, Trigger, advance
from cronkeeper.errors import UnavailableError
from cronkeeper_worker import gate
from cronkeeper_worker.board import Board
from cronkeeper_worker.engine_parts import (
    Parts,
    begun,
    ended_run,
    failed_run,
    may_take_up,
    new_entry,
    retry_entry,
    started_entry,
    unstarted,
    was_refused,
)
from cronkeeper_worker.engine_start import PIECE, WINDOW, Starter
from cronkeeper_worker.gate import Decision, Verdict
from cronkeeper_worker.journal import Entry, Phase, TaskRow
from cronkeeper_worker.orders import Ended, SpawnFailed
from cronkeeper_worker.tasks import Installed, left_out, never_before

log = logging.getLogger(__name__)


class Engine:
    """Tasks come by `install`, time by `look`, news of processes by `on_…`."""

    def __init__(self, parts: Parts, *, window: int | None = WINDOW) -> None:
        """`window` bounds the orders that the runner has not answered; None: nobody stays to give it the others."""
        self._parts = parts
        self._board = Board()
        self._starter = Starter(parts, self._board, self._fail, window)
        self._cancel_reasons: dict[RunKey, Reason] = {}

    @property
    def tasks(self) -> dict[TaskId, Installed]:
        """The installed tasks; for reading."""
        return self._board.tasks

    def install(self, items: Iterable[Installed]) -> None:
        """Install or replace tasks; runs in progress are kept."""
        found = list(items)
        self._starter.flush([item.id for item in found])
        self._starter.give_up(self._board.install(found))
        self._starter.skip_paused(found)
        self._parts.metrics.tasks.set(len(self._board.tasks))

    def uninstall(self, tasks: Iterable[TaskId]) -> None:
        """Disarm tasks. Their runs go on to their end; the others are given up, for the next owner to take."""
        tasks = list(tasks)
        self._starter.flush_leaving(tasks)
        self._starter.give_up(self._board.uninstall(tasks))
        self._parts.metrics.tasks.set(len(self._board.tasks))

    def take(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        """Go on with tasks as this node was given them, and without those that it lost; the journal knows it first."""
        journal, items = self._parts.journal, [item for _, item in given]
        self.uninstall(dropped)
        # By the bodies that they were decided by: with the new ones in the journal, orders are of those.
        self._starter.flush([item.id for item in items])
        before = never_before(items, journal.newest_claims())
        rows = [replace(row, cursor_ms=item.view.cursor_ms, next_ms=item.next_ms) for row, item in given]
        journal.save_tasks(rows, dropped)
        self.install(items)
        now_ms, tasks = self._parts.clock.now_ms(), self._board.tasks
        for task, before_ms in before.items():
            self.demand(left_out(tasks[task], before_ms, journal.refused(task), now_ms), Trigger.CATCH_UP)

    def set_foreign(self, runs: dict[TaskId, frozenset[RunKey]]) -> None:
        """Say which runs of our tasks are in progress on other nodes."""
        self._starter.release(self._board.set_foreign(runs))

    def has_foreign(self) -> list[TaskId]:
        """Return the tasks that have runs on other nodes."""
        return [item.id for item in self._board.tasks.values() if item.foreign]

    def look(self, trigger: Trigger) -> None:
        """Decide about whatever is due now, and start it as far as the runner has come.

        Now is one instant: what must wait for a fence is due again a second later, and that may be before the end.
        """
        now_ms = self._parts.clock.now_ms()
        while self._look_some(trigger, now_ms):
            pass

    def look_some(self, trigger: Trigger) -> bool:
        """Decide about some of what is due now, and start it; say whether there may be more."""
        return self._look_some(trigger, self._parts.clock.now_ms())

    def look_at(self, tasks: Iterable[TaskId], trigger: Trigger) -> None:
        """Decide about what is due now of these tasks, and of no others: they are about to leave, or to change."""
        now_ms = self._parts.clock.now_ms()
        found = (self._board.tasks.get(task) for task in tasks)
        due = [item for item in found if item is not None and self._board.is_due(item, now_ms)]
        for first in range(0, len(due), PIECE):
            self._decide(due[first : first + PIECE], now_ms, trigger)

    def pump(self) -> bool:
        """Start what stands in line, as far as the runner has come; say whether there is more to be done at once."""
        return self._starter.pump()

    def next_look_ms(self) -> int | None:
        """Return when `look` is wanted next, or None."""
        return self._board.next_look_ms()

    def running(self) -> int:
        """Return how many runs of this node have a process, or are to have one at once."""
        return self._board.running()

    def demand(self, keys: Sequence[RunKey], trigger: Trigger = Trigger.MANUAL) -> None:
        """Run what no schedule asked for: runs on demand, or reruns of lost ones (trigger CATCH_UP)."""
        decided: list[Entry] = []
        replaced: list[RunKey] = []
        for key in keys:
            item = self._board.tasks.get(key.task)
            known = self._parts.journal.entry(key)
            if item is None or not (known is None or was_refused(known)):
                continue
            begun = [one.run.key for one in decided if one.phase is Phase.DECIDED and one.run.key.task == key.task]
            waiting = [one.run.key for one in decided if one.phase is Phase.WAITING and one.run.key.task == key.task]
            active, waiting = [*item.busy(), *begun], [*item.waiting, *waiting]
            decision, cancel = gate.decide_one(item.view, key, trigger=trigger, active=active, waiting=waiting)
            if trigger is Trigger.MANUAL and not decision.run:
                # Its row exists and says pending: it waits for the run before it instead of being refused.
                decision = Decision(key, trigger, run=True, wait=True)
            decided.append(new_entry(self._parts.worker, item, decision))
            replaced += cancel
        self._parts.journal.decide(decided, [])
        for entry in decided:
            if entry.phase is Phase.WAITING:
                self._board.tasks[entry.run.key.task].waiting[entry.run.key] = entry
        for other in replaced:
            self.cancel(other, Reason.REPLACED)
        self._starter.launch([entry for entry in decided if entry.phase is Phase.DECIDED])

    def retry(self, due: Mapping[RunKey, int]) -> None:
        """Take over retries that the tasks' last owners have left: each run with the instant (ms) it is to wait for."""
        entries = []
        for key, not_before_ms in sorted(due.items()):
            item = self._board.tasks.get(key.task)
            if item is not None and may_take_up(self._parts.journal.entry(key)):
                waiting = new_entry(self._parts.worker, item, Decision(key, Trigger.RETRY, run=True, wait=True))
                entries.append(replace(waiting, not_before_ms=not_before_ms))
        # Written over what this node has given up itself, should it be given the task back.
        self._parts.journal.update(entries, report=False)
        for entry in entries:
            item = self._board.tasks[entry.run.key.task]
            item.waiting[entry.run.key] = entry
            self._board.arm(item)

    def cancel(self, key: RunKey, reason: Reason = Reason.REQUESTED) -> None:
        """End a run: a process by signals, a waiting one at once."""
        item = self._board.tasks.get(key.task)
        if self._board.find(key) is not None:
            self._cancel_reasons[key] = reason
            try:
                self._parts.runner.cancel(str(key))
            except UnavailableError as exc:
                log.warning("a run could not be told to end", extra={"event": "runner.away", "error": str(exc)})
        elif item is not None and (entry := item.waiting.get(key) or item.queued.get(key)) is not None:
            state = advance(RunState.PENDING, RunEvent.CANCEL)
            run = entry.run.evolve(state=state, reason=reason)
            self._parts.journal.update([replace(entry, run=run, phase=Phase.OVER)])
            if item.waiting.pop(key, None) is None:
                self._board.unqueue(key)
            self._starter.release([item])

    def hear(self, started: Sequence[tuple[RunKey, int]], ended: Sequence[Ended]) -> None:
        """Processes exist: (run, started_ms); and processes have ended, also some of these: written down with one sync.

        The end of a run says all that its start would.
        """
        begun: dict[RunKey, tuple[Entry, int]] = {}
        for key, started_ms in started:
            self._board.unanswered.pop(key, None)
            entry = self._board.find(key)
            if entry is not None and entry.phase is Phase.CLAIMED:
                begun[key] = (entry, started_ms)
        lags = [max(0, started_ms - key.fire_ms) / 1000 for key, (_, started_ms) in begun.items()]
        pairs: dict[RunKey, tuple[Entry, Run]] = {}
        for one in ended:
            key = RunKey.parse(one.run_id)
            if key in pairs:
                # Said twice at once, as before and after a connection was lost: it has one end, and one retry.
                continue
            entry, began_ms = begun.pop(key, None) or (self._board.find(key), None)
            if entry is None:
                self._on_old_news(key)
                continue
            reason = self._cancel_reasons.get(key, Reason.REQUESTED)
            pairs[key] = (entry, ended_run(entry.run, one, reason, began_ms))
        self._end(list(pairs.values()), [started_entry(entry, started_ms) for entry, started_ms in begun.values()])
        for lag_s in lags:
            self._parts.metrics.lag.observe(lag_s)

    def on_spawn_failed(self, event: SpawnFailed) -> None:
        """No process came to be."""
        reason = Reason.USER_REFUSED if event.account else Reason.SPAWN_FAILED
        self._fail(RunKey.parse(event.run_id), reason, event.message)

    def on_expired(self, keys: Sequence[RunKey]) -> None:
        """Orders reached the runner too late, nothing was started: if the claims still stand, order again.

        News of an earlier order may come after a later one of the same run has been given, and carried out.
        """
        again: dict[RunKey, Entry] = {}
        for key in keys:
            entry = self._board.find(key)
            newest_s = self._board.order_expiry_s.get(key)
            if entry is None or entry.phase is not Phase.CLAIMED or newest_s is None:
                continue
            if self._parts.clock.boot_s() <= newest_s:
                continue
            log.warning("an order came too late to be carried out", extra={"event": "order.expired", "run": str(key)})
            if key.task in self._board.tasks:
                again[key] = entry
            else:
                self._fail(key, Reason.SPAWN_FAILED, "the task had left this node before the run could be started")
        self._starter.launch_again(list(again.values()))

    def resume(
        self,
        entries: Sequence[Entry],
        has_folder: Callable[[RunKey], bool],
        how_it_ended: Callable[[RunKey], Ended | SpawnFailed | None],
    ) -> None:
        """Take over the journal's open entries at start. `has_folder` says whether the runner knows anything of a run.

        What was started is believed to run until the runner tells otherwise, unless `how_it_ended` knows already: the
        next fire would be skipped for an overlap with a run that is over. What was decided, or claimed without a
        process, is claimed (again: by the same nonce, so that a claim which was given up meanwhile is not acted on).
        """
        claimed: list[Entry] = []
        lost: list[Ended] = []
        over: list[Ended | SpawnFailed] = []
        for entry in entries:
            key = entry.run.key
            item = self._board.tasks.get(key.task)
            known = has_folder(key)
            if entry.phase is Phase.STARTED or known:
                self._board.keep(begun(entry, self._parts.clock.now_ms()))
                if known and (end := how_it_ended(key)) is not None:
                    over.append(end)
                elif not known:
                    lost.append(Ended(str(key), self._parts.clock.now_ms(), None, None, False, False, 0, "", lost=True))
            elif item is None and entry.phase is Phase.WAITING:
                self._starter.give_up([entry])
            elif item is None:
                # Perhaps we have its claim, so nobody else can start it: told as lost, the present owner runs it again.
                self._parts.journal.update([unstarted(entry, self._parts.clock.now_ms())])
            elif entry.phase is Phase.WAITING:
                item.waiting[key] = entry
                self._board.arm(item)
            else:
                claimed.append(entry)
        self._starter.skip_paused(self._board.tasks.values())
        # Before anything that waits: these had their turn already.
        self._starter.launch_again(claimed)
        self.hear([], [*lost, *(end for end in over if isinstance(end, Ended))])
        for failed in (end for end in over if isinstance(end, SpawnFailed)):
            self.on_spawn_failed(failed)

    # -- inside
    def _look_some(self, trigger: Trigger, now_ms: int) -> bool:
        due = self._board.pop_due(now_ms, PIECE)
        if due:
            self._decide(due, now_ms, trigger)
        return len(due) == PIECE

    def _decide(self, due: Sequence[Installed], now_ms: int, trigger: Trigger) -> None:
        start: list[Entry] = []
        try:
            self._decide_due(due, now_ms, trigger, start)
        finally:
            # What is decided for good has its place in line, whatever fails after that.
            for item in due:
                self._board.arm(item)
            self._starter.launch(start)
        for item in due:
            self._board.arm(item)

    def _decide_due(self, due: Sequence[Installed], now_ms: int, trigger: Trigger, start: list[Entry]) -> None:
        """Decide for each task, make all of it durable, and only then believe it; add what is to be started."""
        verdicts: list[tuple[Installed, Verdict, list[Entry]]] = []
        for item in due:
            if item.next_ms is None or item.next_ms > now_ms:
                continue
            verdict = gate.decide(
                item.view,
                now_ms,
                trigger=trigger,
                active=item.busy(),
                waiting=list(item.waiting),
                hearsay=bool(item.foreign),
            )
            # One that is decided again, as its task was given anew, goes on as what it is: the fences know its nonce.
            held = {decision.key for decision in verdict.decisions if item.holds(decision.key)}
            verdict = replace(verdict, cancel=tuple(key for key in verdict.cancel if key not in held))
            fresh = [decision for decision in verdict.decisions if decision.key not in held]
            verdicts.append((item, verdict, [new_entry(self._parts.worker, item, decision) for decision in fresh]))
        self._parts.journal.decide(
            [entry for _, _, entries in verdicts for entry in entries],
            [(item.id, verdict.cursor_ms, verdict.next_ms) for item, verdict, _ in verdicts],
        )
        outcomes: Counter[tuple[str, str]] = Counter()
        superseded: list[Entry] = []
        for item, verdict, entries in verdicts:
            outcomes.update(
                (entry.run.trigger.value, "run" if entry.run.state is RunState.PENDING else str(entry.run.reason))
                for entry in entries
            )
            superseded += item.waiting.values() if verdict.cancel else ()
            self._believe(item, verdict, entries)
            start += [entry for entry in entries if entry.phase is Phase.DECIDED]
        for labels, count in outcomes.items():
            self._parts.metrics.fires.labels(*labels).inc(count)
        if superseded:
            self._starter.skip(superseded, Reason.SUPERSEDED)
        for key in (key for _, verdict, _ in verdicts for key in verdict.cancel):
            self.cancel(key, Reason.REPLACED)
        start += self._starter.take_ready(due, now_ms, {entry.run.key.task for entry in start})

    def _believe(self, item: Installed, verdict: Verdict, entries: Sequence[Entry]) -> None:
        item.view = replace(item.view, cursor_ms=verdict.cursor_ms)
        item.next_ms = verdict.next_ms
        if verdict.dropped:
            log.warning(
                "fires were due for so long that the oldest are not decided one by one",
                extra={"event": "fire.dropped", "task": str(item.id), "count": verdict.dropped},
            )
        for entry in entries:
            if entry.phase is Phase.WAITING:
                item.waiting[entry.run.key] = entry

    def _fail(self, key: RunKey, reason: Reason, message: str) -> None:
        entry = self._board.find(key)
        if entry is None:
            return
        run = failed_run(entry.run, reason, self._parts.clock.now_ms(), message)
        if message:
            facts = {"event": "run.spawn_failed", "run": run.id, "error": message}
            log.warning("a run could not be started", extra=facts)
        self._end([(entry, run)])

    def _end(self, pairs: Sequence[tuple[Entry, Run]], begun: Sequence[Entry] = ()) -> None:
        """Write down what has begun, and how runs ended; plan retries, and let go what waited for them."""
        over = [Entry(run, Phase.OVER, entry.not_before_ms, entry.claim_fence) for entry, run in pairs]
        self._parts.journal.update([*begun, *over])
        for entry in begun:
            self._board.keep(entry)
        for state, count in Counter(run.state.value for _, run in pairs).items():
            self._parts.metrics.runs.labels(state).inc(count)
        touched: dict[TaskId, Installed] = {}
        retries: list[Entry] = []
        for _, run in pairs:
            self._board.drop(run.key)
            self._cancel_reasons.pop(run.key, None)
            item = self._board.tasks.get(run.key.task)
            if item is None:
                continue
            touched[item.id] = item
            retry = retry_entry(self._parts, item, run)
            if retry is not None:
                retries.append(retry)
                item.waiting[retry.run.key] = retry
        if retries:
            self._parts.journal.decide(retries, [])
        self._starter.release(touched.values())
        self._parts.metrics.running.set(self.running())

    def _on_old_news(self, key: RunKey) -> None:
        """A run that this engine does not hold: acknowledged, unless the journal still has to report it."""
        if self._parts.journal.is_settled(key):
            try:
                self._parts.runner.ack([str(key)])
            except UnavailableError:
                log.info("ends stay unacknowledged for now", extra={"event": "runner.away", "runs": 1})
