"""Looking at everything: one whole snapshot, or an error. "Could not read" is never an empty world.

What costs much is kept between looks. Jobs: only what has changed is asked for each turn, and everything every minute.
Names in ZooKeeper: read again when a watch has fired, and every minute. Who is given what: only the leader writes it,
so it is read once and then kept in step with our own moves. Specs are never read here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, Lease, NodeInfo, WorkerInfo, WorkerState
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator, Cordon, MoveRequest, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper_manager.catalog import Catalog
from cronkeeper_manager.liveness import Sighting, Verdict
from cronkeeper_manager.load import MIN_LOAD
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.world import PlanTask, PlanWorker, World

log = logging.getLogger(__name__)

FULL_EVERY_S = 60.0
#: The API servers' clocks, by which rows say when they were changed, may be behind ours by so much.
CLOCK_ALLOWANCE_MS = 5_000
#: A worker whose clock is further off than this gets no new tasks.
MAX_CLOCK_OFFSET_MS = 10_000
#: A look at everything that was asked for is not granted more often than this.
_FULL_AGAIN_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a turn decides on. The collections must not be changed by whoever reads them."""

    now_ms: int
    now_s: float
    #: Jobs and names were read anew and in full, names first: what a name stands for would have been seen.
    full: bool
    #: Who is given what was read from ZooKeeper just now, and is not merely what we remember of our own moves.
    fresh: bool
    ready: bool
    sessions: Mapping[str, WorkerInfo]
    #: Cordons and drains as MySQL has them, if it knows of any for a node.
    nodes: Mapping[str, NodeInfo]
    #: Nodes whose znode says something else.
    stale_nodes: Set[str]
    #: None while MySQL is away; then the catalog, the copies and the requests are those of the last look.
    leases: Mapping[str, Lease] | None
    mysql_ok_s: float
    catalog: Catalog
    names: Set[TaskId]
    assigned: Mapping[str, Set[TaskId]]
    owned: Mapping[str, Set[TaskId]]
    #: The leader's copy, with the worker alone beside it.
    copies: Mapping[TaskId, Assignment]
    last: Mapping[TaskId, str]
    requests: Mapping[TaskId, MoveRequest]
    #: Everybody who occurs anywhere.
    known: Set[str]

    def sighting(self) -> Sighting:
        """Return what `liveness.judge` looks at."""
        return Sighting(self.now_s, self.sessions.keys(), self.known, self.leases, self.mysql_ok_s)


class Observer:
    """Takes snapshots. Not for several threads, save `note_change`. Without `watch` it leaves no watches behind."""

    def __init__(
        self, store: Store, coordinator: Coordinator, clock: Clock, mysql: MysqlWatch, *, watch: bool = True
    ) -> None:
        self._store = store
        self._coordinator = coordinator
        self._clock = clock
        self._mysql = mysql
        self._watch = watch
        self._changed = threading.Event()
        self._changed.set()
        self._full_s = -FULL_EVERY_S
        self._rows_asked_ms = 0
        self._catalog: Catalog | None = None
        #: The last catalog and nodes, and what the two make together.
        self._placed: tuple[Catalog, Mapping[str, Mapping[str, str] | None], Catalog] | None = None
        self._copies: dict[TaskId, Assignment] = {}
        self._last: dict[TaskId, str] = {}
        self._holders: set[str] = set()
        self._requests: dict[TaskId, MoveRequest] = {}
        self._cordons: dict[str, Cordon] = {}
        self._names: Set[TaskId] = frozenset()
        self._owned: Mapping[str, Set[TaskId]] = {}
        self._assigned: dict[str, Set[TaskId]] | None = None

    def note_change(self) -> None:
        """Have the next look read the names again. For `Coordinator.on_change`: any thread, at once."""
        self._changed.set()

    def want_full(self) -> None:
        """Have one of the next looks read everything."""
        self._full_s = min(self._full_s, self._clock.boot_s() - FULL_EVERY_S + _FULL_AGAIN_AFTER_S)

    def forget_tree(self) -> None:
        """Trust nothing that is kept of ZooKeeper's tree: it was wiped, or a write's outcome is not known."""
        self._assigned = None
        self._changed.set()

    def observe(self) -> Snapshot:
        """Return a whole snapshot. Raises UnavailableError: ZooKeeper is away, or MySQL is and was never seen."""
        now_s, now_ms = self._clock.boot_s(), self._clock.now_ms()
        full = now_s - self._full_s >= FULL_EVERY_S
        ready = self._coordinator.is_ready(watch=self._watch)
        sessions = self._coordinator.workers(watch=self._watch)
        znodes = self._coordinator.nodes(watch=self._watch)
        # Names before rows: what is named then and not in a row now does not exist (any more).
        fresh = self._read_tree(full)
        leases = self._read_mysql(now_ms, full)
        if full:
            self._full_s = now_s
        assert self._assigned is not None
        assert self._catalog is not None
        nodes = with_cordons(znodes, self._cordons)
        known = {*sessions, *nodes, *(leases or ()), *self._assigned, *self._owned, *self._holders}
        snapshot = Snapshot(
            now_ms=now_ms,
            now_s=now_s,
            full=full and leases is not None,
            fresh=fresh,
            ready=ready,
            sessions=sessions,
            nodes=nodes,
            stale_nodes={name for name, node in nodes.items() if znodes.get(name) != node},
            leases=leases,
            mysql_ok_s=self._mysql.ok_s,
            catalog=self._catalog,
            names=self._names,
            assigned=self._assigned,
            owned=self._owned,
            copies=self._copies,
            last=self._last,
            requests=self._requests,
            known=known,
        )
        return replace(snapshot, catalog=self._on_nodes(snapshot))

    def _on_nodes(self, snapshot: Snapshot) -> Catalog:
        """Return the catalog with the nodes' own tasks: the same object as long as neither jobs nor nodes change."""
        catalog = snapshot.catalog
        if not catalog.everywhere:
            return catalog
        infos = {name: worker_info(name, snapshot) for name in snapshot.known}
        labels = {name: None if info is None else info.labels for name, info in infos.items()}
        if self._placed is None or self._placed[0] is not catalog or self._placed[1] != labels:
            self._placed = (catalog, labels, catalog.on_nodes(labels))
        return self._placed[2]

    def _read_tree(self, full: bool) -> bool:
        """Read what may have changed; say whether the assignments were among it."""
        changed = self._changed.is_set()
        # Cleared before the reading: a change that comes meanwhile must lead to another look.
        self._changed.clear()
        try:
            if changed or full:
                self._names = self._coordinator.task_names(watch=self._watch)
                before, self._owned = self._owned, self._coordinator.all_owned(watch=self._watch)
                if self._let_go_unasked(before):
                    self._assigned = None
            fresh = full or self._assigned is None
            if fresh:
                self._assigned = dict(self._coordinator.all_assigned())
        except UnavailableError:
            self._changed.set()
            raise
        return fresh

    def _let_go_unasked(self, before: Mapping[str, Set[TaskId]]) -> bool:
        """Say whether a worker let go of a task that we believe it is given: somebody took our assignments away."""
        given = self._assigned or {}
        return any(
            not given[worker].isdisjoint(tasks - self._owned.get(worker, frozenset()))
            for worker, tasks in before.items()
            if worker in given
        )

    def _read_mysql(self, now_ms: int, full: bool) -> dict[str, Lease] | None:
        """Refresh what is kept of MySQL and return the leases; None when MySQL does not answer."""
        try:
            leases = self._mysql.call(self._store.leases.leases)
            self._requests = self._mysql.call(self._store.move_requests.all)
            self._cordons = self._mysql.call(self._store.cordons.all)
            self._read_rows(now_ms, full)
        except UnavailableError:
            # A leader that has never seen the jobs knows nothing: it waits. One that has goes on with what it saw.
            if self._catalog is None:
                raise
            return None
        return {lease.worker: lease for lease in leases}

    def _read_rows(self, now_ms: int, full: bool) -> None:
        if self._catalog is None:
            self.keep(self._mysql.call(self._store.assignments.load).values())
        if full or self._catalog is None:
            job_ids = self._mysql.call(self._store.jobs.job_ids)
            rows = self._mysql.call(self._store.jobs.plan_rows)
            self._catalog = (self._catalog or Catalog()).replaced(rows, job_ids)
        else:
            since_ms = max(1, self._rows_asked_ms - CLOCK_ALLOWANCE_MS)
            changed = self._mysql.call(lambda: self._store.jobs.plan_rows(changed_since_ms=since_ms))
            self._catalog = self._catalog.updated(changed)
        self._rows_asked_ms = now_ms

    # -- keeping in step with the leader's own writes

    def keep(self, copies: Iterable[Assignment]) -> None:
        """Note what the leader's copy now says."""
        for item in copies:
            self._copies[item.task] = item
            self._last[item.task] = item.worker
            self._holders.add(item.worker)
        self._holders.discard("")

    def keep_moved(self, assigned: Iterable[Assignment], revoked: Iterable[tuple[str, TaskId]]) -> None:
        """Note what was written to ZooKeeper."""
        gained: dict[str, set[TaskId]] = {}
        dropped: dict[str, set[TaskId]] = {}
        for item in assigned:
            gained.setdefault(item.worker, set()).add(item.task)
        for worker, task in revoked:
            dropped.setdefault(worker, set()).add(task)
        given = dict(self._assigned or {})
        for worker in gained.keys() | dropped.keys():
            given[worker] = (given.get(worker, frozenset()) - dropped.get(worker, set())) | gained.get(worker, set())
        self._assigned = given

    def keep_cleared(self, worker: str) -> None:
        """Note that a lost worker's znodes were removed."""
        self._assigned = {name: tasks for name, tasks in (self._assigned or {}).items() if name != worker}
        self._owned = {name: tasks for name, tasks in self._owned.items() if name != worker}
        self._changed.set()

    def forget_copies(self, tasks: Iterable[TaskId]) -> None:
        """Note that the copies of removed jobs were dropped."""
        for task in tasks:
            self._copies.pop(task, None)
            self._last.pop(task, None)
        self._holders = set(self._last.values()) - {""}


def with_cordons(nodes: Mapping[str, NodeInfo], cordons: Mapping[str, Cordon]) -> dict[str, NodeInfo]:
    """Return the nodes as MySQL wants them. A node that MySQL has no word about is as its znode says. PURE."""
    found = dict(nodes)
    for worker, cordon in cordons.items():
        node = nodes.get(worker, NodeInfo(worker))
        found[worker] = replace(node, cordoned=cordon.cordoned, draining=cordon.draining)
    return found


def worker_info(worker: str, snapshot: Snapshot) -> WorkerInfo | None:
    """Return what the worker says of itself, or last said as far as anybody remembers."""
    if worker in snapshot.sessions:
        return snapshot.sessions[worker]
    node = snapshot.nodes.get(worker)
    lease = None if snapshot.leases is None else snapshot.leases.get(worker)
    return (node.last if node is not None else None) or (lease.info if lease is not None else None)


def build_world(snapshot: Snapshot, verdicts: Mapping[str, Verdict]) -> World:
    """Return the planner's view of a snapshot. PURE."""
    tasks = snapshot.catalog.tasks
    if unreadable := snapshot.catalog.bad.keys() - snapshot.catalog.rows.keys():
        tasks = {**tasks, **_held(unreadable, snapshot)}
    return World(
        tasks=tasks,
        workers={name: _plan_worker(name, snapshot, verdicts) for name in snapshot.known},
        assigned=snapshot.assigned,
        owned=snapshot.owned,
        last=snapshot.last,
        requests={task: request.worker for task, request in snapshot.requests.items()},
    )


def _held(jobs: Set[int], snapshot: Snapshot) -> dict[TaskId, PlanTask]:
    """Return the tasks of jobs whose rows cannot be read, as far as traces of them are found anywhere."""
    found: set[TaskId] = {task for task in snapshot.names if task.job_id in jobs}
    for tasks in (*snapshot.assigned.values(), *snapshot.owned.values()):
        found.update(task for task in tasks if task.job_id in jobs)
    found.update(task for task, worker in snapshot.last.items() if worker and task.job_id in jobs)
    return {task: PlanTask(task, 0, MIN_LOAD, held=True) for task in found}


def _plan_worker(name: str, snapshot: Snapshot, verdicts: Mapping[str, Verdict]) -> PlanWorker:
    verdict = verdicts.get(name, Verdict.UNDECIDED)
    info = worker_info(name, snapshot)
    lease = None if snapshot.leases is None else snapshot.leases.get(name)
    return PlanWorker(
        id=name,
        labels=None if info is None else info.labels,
        capacity=0 if info is None else info.capacity,
        state=worker_state(snapshot.nodes.get(name), snapshot.sessions.get(name), lost=verdict is Verdict.LOST),
        settled=verdict is Verdict.UP,
        skewed=lease is not None and abs(lease.clock_offset_ms) > MAX_CLOCK_OFFSET_MS,
        keys=None if info is None or info.secrets_keys is None else frozenset(info.secrets_keys),
        unheard=snapshot.leases is not None and lease is None,
    )


def worker_state(node: NodeInfo | None, session: WorkerInfo | None, *, lost: bool) -> WorkerState:
    """Return the one word for a worker's state. One that is leaving is drained, as if an admin had asked for it."""
    if lost:
        return WorkerState.LOST
    if (node is not None and node.draining) or (session is not None and session.leaving):
        return WorkerState.DRAINING
    return WorkerState.CORDONED if node is not None and node.cordoned else WorkerState.UP
