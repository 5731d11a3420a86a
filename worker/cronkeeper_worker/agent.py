"""The agent: the worker's side of ZooKeeper. It looks at what this node is given, and makes the node have just that."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from cronkeeper.domain.attempts import retry_due_ms, retry_window_s
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Delivery, JobState
from cronkeeper.domain.placement import Assignment, Ownership, WorkerInfo
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator, LastFire, Span, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.memory import give_back
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.wire.task import Task, Verifier
from cronkeeper.wire.znodes import ClaimNote
from cronkeeper_worker.assignments import Offer, changes
from cronkeeper_worker.engine_parts import may_take_up
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.offers import Offers
from cronkeeper_worker.tasks import Here, Installed

log = logging.getLogger(__name__)

#: Without any news, everything is looked at again after so long; what is watched costs no question.
LOOK_S = 10.0
#: While the tree is being (re)built, or a run on demand waits, it is looked at again after so long.
SOON_S = 1.0
#: So many tasks are looked at together: of no more of them the bodies are held at once.
PIECE = 2_000
#: From so many changes on, what was held for them is worth giving back.
MANY = 200
#: What others wrote in our name under /owned is noticed after so long: it would hold up those who get the task.
PUBLISHED_S = 300.0
#: Another node's clock may be ahead of ours by so much when it claims a fire.
CLAIMED_EARLY_MS = 30_000


@dataclass(frozen=True, slots=True)
class Node:
    """What the agent changes on the node. `apply` returns once crontab, timers and journal have the change."""

    apply: Callable[[Sequence[tuple[TaskRow, Installed]], Sequence[TaskId]], None]
    #: What is installed. The agent looks at what never changes of it: generation, fence, key, and what was signed.
    have: Callable[[], Mapping[TaskId, Installed]]
    demand: Callable[[Sequence[RunKey], Trigger], None]
    #: Takes over retries, each with the instant (ms) at which it is due.
    retry: Callable[[Mapping[RunKey, int]], None]
    set_foreign: Callable[[dict[TaskId, frozenset[RunKey]]], None]
    #: Goes on with runs of this very node that its journal has lost.
    adopt: Callable[[Sequence[Run]], None]


class Agent:
    """`step` is the body of a loop that watches wake."""

    def __init__(
        self,
        info: WorkerInfo,
        coordinator: Coordinator,
        store: Store,
        journal: Journal,
        verifier: Verifier,
        node: Node,
        clock: Clock,
        metrics: WorkerMetrics,
        *,
        started_ms: int,
    ) -> None:
        self.info = info
        self._here = Here(info.id, started_ms)
        self._coordinator = coordinator
        self._store = store
        self._journal = journal
        self._verifier = verifier
        self._node = node
        self._clock = clock
        self._metrics = metrics
        #: The generations that we have said yes to, and in which session and epoch.
        self._published: dict[TaskId, int] = {}
        self._published_as = (0, "")
        #: When (boot-time clock) ZooKeeper was asked last what it has of our yes.
        self._published_s = float("-inf")
        self._offers = Offers(info.id, coordinator, verifier, metrics, journal.envelope)
        #: Tasks that were taken while MySQL could not say what has run of them.
        self._unasked: set[TaskId] = set()
        #: Tasks that were taken, whose last owner's runs have not been looked after yet.
        self._to_take_over: set[TaskId] = set()
        #: Tasks with runs on other nodes, as last seen; and those whose last such run has ended since: it may be due
        #: for a retry. Two threads ask.
        self._elsewhere: set[TaskId] = set()
        self._freed: SimpleQueue[TaskId] = SimpleQueue()
        #: All our runs were given up, while the tasks may have stayed ours.
        self._given_up = threading.Event()
        #: No step was done yet.
        self._begins = True

    def reborn(self, epoch: str) -> None:
        """Go on under a new epoch: the leader had given this worker up, and with it the runs of all its tasks."""
        self.info = replace(self.info, epoch=epoch)
        self._given_up.set()

    def look_after(self, tasks: Iterable[TaskId]) -> None:
        """Have the next step look at what is lost of these tasks: runs of them were given up by this very node."""
        for task in tasks:
            self._freed.put(task)

    def leave(self) -> None:
        """Have the leader give our tasks to others. The next step tells it."""
        self.info = replace(self.info, leaving=True)

    def step(self) -> float:
        """Look and change once. Raises UnavailableError while ZooKeeper is away: the node goes on with what it has."""
        coordinator = self._coordinator
        self._metrics.zookeeper.set(coordinator.connected)
        if not coordinator.connected:
            raise UnavailableError("ZooKeeper is not connected")
        coordinator.announce(self.info)
        if not coordinator.is_ready(watch=True):
            # Before a leader has completed the tree, absence means nothing: keep firing, and say what we have.
            self._publish(None)
            return SOON_S
        assigned = coordinator.assigned(self.info.id, watch=True)
        if self._begins:
            # The daemon before us may have died in what it had put off, or had not come to.
            self._to_take_over |= self._node.have().keys()
            self._unasked |= self._to_take_over
            self._begins = False
        offered = self._look_at(assigned)
        if self._given_up.is_set():
            self._given_up.clear()
            self._to_take_over |= self._node.have().keys()
        self._take_over(offered)
        self._publish(assigned)
        waits = self._on_demand(list(assigned))
        return SOON_S if waits or len(offered) < len(assigned) else LOOK_S

    # -- inside

    def _look_at(self, assigned: Mapping[TaskId, Assignment]) -> dict[TaskId, Offer]:
        """Read what has changed of the tasks' bodies, and change the node accordingly, piece by piece.

        Returns the tasks whose bodies are right. However many there are, only a piece of them is held at once.
        """
        have = self._node.have()
        self._offers.begin(assigned)
        gone = sorted(task for task in have if task not in assigned)
        ordered = list(assigned)
        found: dict[TaskId, Offer] = {}
        changed = 0
        read: dict[TaskId, Assignment] = {}
        for first in range(0, len(ordered), PIECE):
            piece = {task: assigned[task] for task in ordered[first : first + PIECE]}
            found |= self._offers.read(piece, have)
            read |= piece
            if self._offers.held >= PIECE:
                changed += self._change(read, found, have, gone)
                read, gone = {}, []
        changed += self._change(read, found, have, gone)
        if changed >= MANY:
            give_back()
        return found

    def _change(
        self,
        assigned: Mapping[TaskId, Assignment],
        offered: Mapping[TaskId, Offer],
        have: Mapping[TaskId, Installed],
        gone: Sequence[TaskId],
    ) -> int:
        """Change the node by a piece of its tasks, and by those that are gone; return how many changed."""
        todo = changes(assigned, offered, {task: have[task] for task in assigned if task in have})
        bodies = self._offers.bodies([*todo.take, *todo.update], offered)
        # Whoever is given a task anew was given up meanwhile, even if it never let go of the task.
        anew = [task for task in todo.update if assigned[task].epoch > have[task].fence and task in bodies]
        taken = {task: bodies[task].task for task in (*todo.take, *anew) if task in bodies}
        last = self._last_fires(taken, assigned)
        old = self._offers.refuse_overtaken(
            {task: body.generation for task, body in taken.items()},
            {task: fire.generation for task, fire in last.items()},
        )
        decided = {task: fire.fire_ms or 0 for task, fire in last.items()}
        rows = [
            TaskRow(task, body.generation, assigned[task].epoch, raw, decided.get(task, 0))
            for task, (raw, body) in bodies.items()
            if task not in old
        ]
        # What we still have of a task that others have run in a newer generation must not go on either.
        drop = [*gone, *sorted(old.intersection(anew))]
        if not (rows or drop):
            return 0
        self._node.apply(self._offers.parsed(rows, self._here, bodies), drop)
        log.info(
            "the node's tasks changed",
            extra={
                "event": "tasks.changed",
                "taken": len((set(todo.take) & bodies.keys()) - old),
                "updated": len((set(todo.update) & bodies.keys()) - old),
                "dropped": len(drop),
            },
        )
        self._coordinator.disown(self.info.id, drop)
        for task in drop:
            self._published.pop(task, None)
        self._to_take_over |= taken.keys() - old
        return len(rows) + len(drop)

    def _last_fires(
        self, taken: Mapping[TaskId, Task], assigned: Mapping[TaskId, Assignment]
    ) -> dict[TaskId, LastFire]:
        """Return up to when the fires of taken tasks are decided: the ledger's word, or else the leader's hint.

        Where the ledger answers that nothing is recorded, that is a word, too: whatever the job's grace still allows
        is looked at again. So is it for `at_most_once` in any case: no other fence than MySQL's can have granted it.
        And by which generation: of that nobody but the ledger knows, so without MySQL it is asked later.
        """
        if not taken:
            return {}
        now_ms = self._clock.now_ms()
        hints = {task: assigned[task].since_ms for task in taken}
        windows = {task: (body.spec.grace_s + body.spec.jitter_s) * 1000 for task, body in taken.items()}
        early = {task: min(hints[task], now_ms - windows[task]) for task in taken}
        notes = self._coordinator.claims(tasks=taken)
        try:
            self._carry_home(notes)
            spans = {task: Span(early[task], assigned[task].assigned_ms) for task in sorted(taken)}
            recorded = self._store.runs.last_fires(spans)
        except UnavailableError:
            self._unasked |= taken.keys()
            by_mysql = {task for task, body in taken.items() if body.spec.delivery is Delivery.AT_MOST_ONCE}
            known = {task: why.newest for task, why in self._offers.overtaken.items()}
            return {
                task: LastFire(early[task] if task in by_mysql else hints[task], known.get(task, 0)) for task in taken
            }
        self._unasked -= taken.keys()
        found = {task: recorded.get(task, LastFire(None, 0)) for task in taken}
        return {
            task: LastFire(early[task] if last.fire_ms is None else last.fire_ms, last.generation)
            for task, last in found.items()
        }

    def _carry_home(self, notes: Mapping[RunKey, ClaimNote]) -> None:
        """Give MySQL the rows of fires that the last owner was granted by ZooKeeper, while MySQL was away from it."""
        # Nobody is granted a fire before it is due: a claim that says so would keep it from running.
        due_ms = self._clock.now_ms() + CLAIMED_EARLY_MS
        others = {key: note for key, note in notes.items() if note.worker != self.info.id}
        for key in sorted(key for key in others if key.fire_ms > due_ms):
            log.error("a claim is long before its fire", extra={"event": "claim.forged", "fire": str(key)})
        runs = [note.as_run(key) for key, note in others.items() if key.fire_ms <= due_ms]
        if runs:
            self._store.runs.record(runs)

    def _take_over(self, offered: Mapping[TaskId, Offer]) -> None:
        """Look after what the last owner left: runs that go on elsewhere, and lost ones that are to be run again.

        While MySQL is away it is put off, not left out.
        """
        while not self._freed.empty():
            self._to_take_over.add(self._freed.get())
        if not self._to_take_over:
            return
        have = self._node.have()
        # A task whose body could not be read at this look waits for the next; one that has left us is no concern.
        self._to_take_over &= have.keys()
        tasks = {task: have[task] for task in sorted(self._to_take_over & offered.keys())}
        if not tasks:
            return
        taken = list(tasks)
        try:
            # A last owner without MySQL may have begun an attempt by ZooKeeper's fence: its row must be there first.
            self._carry_home(self._coordinator.claims(tasks=taken))
            self._ask_late(taken)
            self.refresh_foreign(taken)
            widest_s = max(item.view.spec.grace_s for item in tasks.values())
            lost = self._store.runs.lost_runs(taken, since_ms=self._clock.now_ms() - widest_s * 1000)
            retries = self._retries(tasks)
        except UnavailableError:
            return
        self._to_take_over.difference_update(taken)
        again = []
        for run in lost:
            view = tasks[run.key.task].view
            spec = view.spec
            fresh = self._clock.now_ms() - run.key.fire_ms <= spec.grace_s * 1000
            known = self._journal.entry(run.key)
            # A run of our own that was given up too early is not lost to us: its truth is under way. One that we were
            # refused was never ours, and one that we gave up while it waited never began.
            if not (known is None or may_take_up(known) or known.run.state in (RunState.LOST, RunState.SKIPPED)):
                continue
            if spec.at_reboot and run.key.fire_ms < self._here.started_ms:
                continue
            if fresh and spec.reruns_lost and view.state is JobState.ACTIVE:
                again.append(RunKey(run.key.task, run.key.fire_ms, run.key.attempt + 1))
        self._node.demand(again, Trigger.CATCH_UP)
        self._node.retry(retries)

    def _ask_late(self, taken: Sequence[TaskId]) -> None:
        """Ask whether a newer generation has run of tasks that were taken without MySQL, and let go of such."""
        have = self._node.have()
        late = sorted(self._unasked.intersection(taken) & have.keys())
        if not late:
            return
        last = self._store.runs.last_fires(dict.fromkeys(late, Span(0, 0)))
        self._unasked.difference_update(late)
        old = self._offers.refuse_overtaken(
            {task: have[task].generation for task in late}, {task: fire.generation for task, fire in last.items()}
        )
        if old:
            # That they are not ours any more is said at the end of the step.
            self._node.apply([], sorted(old))

    def _retries(self, taken: Mapping[TaskId, Installed]) -> dict[RunKey, int]:
        """Return the retries that the last owners had not come to, with the instants at which they are due.

        Those of former generations are let go: a change that allows retries must not reach back.
        """
        asked = {
            task: item
            for task, item in taken.items()
            if item.view.spec.retry.limit and item.view.state is JobState.ACTIVE
        }
        if not asked:
            return {}
        windows: dict[int, list[TaskId]] = {}
        for task, item in asked.items():
            windows.setdefault(retry_window_s(item.view.spec), []).append(task)
        now_ms, found = self._clock.now_ms(), {}
        for window_s, some in windows.items():
            for run in self._store.runs.failed_runs(some, since_ms=now_ms - window_s * 1000):
                item = asked[run.key.task]
                due_ms = retry_due_ms(item.view.spec, run)
                fresh = due_ms is not None and now_ms - due_ms <= item.view.spec.grace_s * 1000
                if due_ms is not None and fresh and run.generation == item.generation:
                    found[RunKey(run.key.task, run.key.fire_ms, run.key.attempt + 1)] = due_ms
        return found

    def refresh_foreign(self, tasks: Sequence[TaskId]) -> None:
        """Ask the ledger which runs of these tasks are in progress on other nodes, and tell the engine.

        Runs of this node that its journal has lost, with its whole past, are found here too, and adopted.
        """
        found: dict[TaskId, set[RunKey]] = {}
        forgotten = []
        for run in self._store.runs.open_runs(tasks):
            if run.worker != self.info.id:
                found.setdefault(run.key.task, set()).add(run.key)
            elif self._journal.entry(run.key) is None:
                forgotten.append(run)
        if forgotten:
            self._node.adopt(forgotten)
        self._node.set_foreign({task: frozenset(keys) for task, keys in found.items()})
        before, self._elsewhere = self._elsewhere, set(found)
        for task in before.intersection(tasks) - found.keys():
            self._freed.put(task)

    def _publish(self, assigned: Mapping[TaskId, Assignment] | None) -> None:
        """Say our yes to what is installed (and assigned, where that is known); again after a new session or a wipe."""
        us, epoch = self.info.id, self.info.epoch
        now_as = (self._coordinator.session_id, epoch)
        wanted = {
            task: have.generation for task, have in self._node.have().items() if assigned is None or task in assigned
        }
        now_s = self._clock.boot_s()
        same = assigned is not None and now_as == self._published_as and now_s - self._published_s < PUBLISHED_S
        known: Mapping[TaskId, int | None] = self._published
        if not same:
            said = self._coordinator.owned(us)
            known = {task: item.generation if item.worker_epoch == epoch else None for task, item in said.items()}
        news = [task for task, generation in wanted.items() if known.get(task) != generation]
        for first in range(0, len(news), PIECE):
            piece = news[first : first + PIECE]
            self._coordinator.own([Ownership(task, us, wanted[task], epoch) for task in piece])
        stale = [task for task in known if task not in wanted]
        if stale:
            self._coordinator.disown(self.info.id, stale)
        self._published, self._published_as = wanted, now_as
        if not same:
            self._published_s = now_s

    def _on_demand(self, tasks: Sequence[TaskId]) -> bool:
        """Run what people asked for: told by the queue at once, and found in the ledger if the news was lost.

        Returns whether anything is pending still: of a backfill, more will follow.
        """
        self._coordinator.queued(tasks, watch=True)
        try:
            keys = [run.key for run in self._store.runs.pending(tasks)] if tasks else []
        except UnavailableError:
            # Nobody can claim it without MySQL; the queue keeps it.
            return False
        self._node.demand([key for key in keys if self._journal.entry(key) is None], Trigger.MANUAL)
        return bool(keys)
