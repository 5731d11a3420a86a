"""The fleet for its admins: who is there, what would move, and the wishes that the leader then fulfils.

Nothing is moved here: a wish is written down (a cordon or a move request), and the leader's next plan heeds it.
Every method raises UnavailableError while a store that it needs is away.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import Lease, MoveReason, NodeInfo, WorkerInfo, WorkerState
from cronkeeper.errors import ConflictError, NotFoundError, UnavailableError
from cronkeeper.ports import Coordinator, Cordon, JobStore, MoveRequest, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.foresight import Journey, foresee, rebalance
from cronkeeper_manager.liveness import LivenessSettings, Verdict
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.observe import Observer, build_world, with_cordons, worker_state
from cronkeeper_manager.planner import decide, loads, why_not
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller
from cronkeeper_manager.world import PlanWorker, World

log = logging.getLogger(__name__)

_STALE_MS = round(LivenessSettings().lease_stale_s * 1000)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as people see it."""

    id: str
    host: str
    state: WorkerState
    labels: Mapping[str, str]
    #: Fires a minute.
    capacity: int
    #: How many tasks it is given.
    tasks: int
    version: str
    #: Epoch milliseconds; None when nobody remembers.
    last_seen_ms: int | None
    #: Its clock minus the database's; None while it has no lease.
    clock_offset_ms: int | None


@dataclass(frozen=True, slots=True)
class MoveView:
    """One task's way, from nobody (None) or a worker to a worker or nobody."""

    task: TaskId
    from_: str | None
    to: str | None
    reason: MoveReason


@dataclass(frozen=True, slots=True)
class PlanView:
    """What would be: moves, tasks without a place with the reason, and each worker's load in fires a minute."""

    moves: list[MoveView]
    unplaced: dict[TaskId, str]
    load: dict[str, float]


@dataclass(frozen=True, slots=True)
class Telling:
    """Who asks for moves, and of what, for the trail."""

    caller: Caller
    kind: str
    object_id: str
    namespace: str

    def of(self, moves: Sequence[MoveView], at_ms: int) -> Entry:
        was = {str(move.task): move.from_ for move in moves}
        becomes = {str(move.task): move.to for move in moves}
        return note(
            self.caller, "job.reassigned", self.kind, self.object_id, at_ms=at_ms, namespace=self.namespace,
            old=was, new=becomes,
        )  # fmt: skip


class Fleet:
    """Use cases of the fleet. Safe to use from several threads."""

    def __init__(self, store: Store, coordinator: Coordinator, clock: Clock) -> None:
        self._store = store
        self._coordinator = coordinator
        self._clock = clock
        self._jobs = store.jobs

    def within(self, jobs: JobStore) -> Fleet:
        """Return the same for a caller who may reach these jobs only. All but `reassign` is for callers of all."""
        found = Fleet(self._store, self._coordinator, self._clock)
        found._jobs = jobs
        return found

    # -- who is there

    def workers(self) -> list[WorkerView]:
        """Return all workers by id, those too that are lost or have gone."""
        sessions, nodes = self._coordinator.workers(), self._nodes()
        leases = {lease.worker: lease for lease in self._store.leases.leases()}
        given = self._coordinator.all_assigned()
        names = sorted({*sessions, *nodes, *leases})
        return [
            self._view(name, sessions.get(name), nodes.get(name), leases.get(name), len(given.get(name, ())))
            for name in names
        ]

    def worker(self, worker: str) -> WorkerView:
        """Raises NotFoundError."""
        for view in self.workers():
            if view.id == worker:
                return view
        raise NotFoundError(f"there is no worker {worker}")

    def _view(
        self, name: str, session: WorkerInfo | None, node: NodeInfo | None, lease: Lease | None, tasks: int
    ) -> WorkerView:
        info = session or (node.last if node is not None else None) or (lease.info if lease is not None else None)
        info = info or WorkerInfo(name, "", capacity=0)
        seen_ms = self._clock.now_ms() if session is not None else None
        if seen_ms is None and lease is not None and lease.age_ms < self._clock.now_ms():
            seen_ms = self._clock.now_ms() - lease.age_ms
        return WorkerView(
            id=name,
            host=info.host,
            state=worker_state(node, session, lost=session is None and _is_silent(lease)),
            labels=dict(info.labels),
            capacity=info.capacity,
            tasks=tasks,
            version=info.version,
            last_seen_ms=seen_ms,
            clock_offset_ms=None if lease is None else lease.clock_offset_ms,
        )

    # -- wishes

    def reassign(
        self, job_id: int, worker: str, dry_run: bool = False, *, caller: Caller | None = None
    ) -> list[MoveView]:
        """Ask for all tasks of a job to be moved to a worker; return the moves. Once: a later loss moves them on.

        Raises NotFoundError (the job or the worker), or ConflictError that says why the worker cannot take it.
        """
        row = self._jobs.get(job_id)
        world = self._world()
        if row.state is JobState.FINISHED:
            raise ConflictError(f"job {job_id} has finished")
        if row.spec.at_reboot:
            raise ConflictError(f"job {job_id} runs on each node that fits; change its selector instead")
        told = None if caller is None else Telling(caller, "job", str(job_id), row.spec.namespace)
        return self._ask(world, [task for task in row.tasks() if task in world.tasks], worker, dry_run, told)

    def reassign_all(
        self, from_worker: str, to_worker: str, dry_run: bool = False, *, caller: Caller | None = None
    ) -> list[MoveView]:
        """Ask for everything that one worker has to be moved to another; all of it or, by ConflictError, nothing.

        What is the worker's own (`@reboot`) is left where it is.
        """
        world = self._world()
        self._known(world, from_worker)
        here = sorted(world.assigned.get(from_worker, ()))
        tasks = [task for task in here if task in world.tasks and world.tasks[task].only is None]
        told = None if caller is None else Telling(caller, "worker", from_worker, "")
        return self._ask(world, tasks, to_worker, dry_run, told)

    def rebalance(self, max_moves: int = 100, dry_run: bool = False, *, caller: Caller | None = None) -> list[MoveView]:
        """Ask for a bounded number of moves from the fullest to the emptiest workers; return them."""
        world = self._world()
        homes = _homes(world)
        moves = [
            MoveView(move.task, homes.get(move.task), move.worker, move.reason)
            for move in rebalance(world, max_moves=max_moves)
        ]
        self._request(moves, dry_run, None if caller is None else Telling(caller, "fleet", "all", ""))
        return moves

    def cordon(self, worker: str, *, caller: Caller | None = None) -> None:
        """Give a worker no new tasks; it keeps those it has. Raises NotFoundError."""
        node = self._node(worker)
        self._want(replace(node, cordoned=True), "worker.cordoned", node, caller)

    def uncordon(self, worker: str, *, caller: Caller | None = None) -> None:
        """Give a worker tasks again; ends a drain, too. Raises NotFoundError."""
        node = self._node(worker)
        self._want(replace(node, cordoned=False, draining=False), "worker.uncordoned", node, caller)

    def drain(self, worker: str, dry_run: bool = False, *, caller: Caller | None = None) -> list[MoveView]:
        """Give a worker no new tasks and move those it has; return the moves. Raises NotFoundError.

        Tasks that fit nowhere else stay on it until they do.
        """
        node = self._node(worker)
        world = self._world()
        here = world.workers[worker]
        if here.state is not WorkerState.LOST:
            world = _with_worker(world, replace(here, state=WorkerState.DRAINING))
        journeys, _ = foresee(world)
        if not dry_run:
            self._want(replace(node, draining=True), "worker.drained", node, caller)
        return [_move(journey) for journey in journeys if journey.origin == worker]

    # -- what if

    def plan(self, question: Mapping[str, Any]) -> PlanView:
        """Say what would become of the fleet if workers were lost, drained or added. Nothing is done.

        `question` may hold `lose` and `drain` (lists of worker ids) and `add` (a list of `{labels, capacity}`; they
        appear as `new-1`, `new-2`, …). Raises NotFoundError for a worker that is not known.
        """
        world = self._world()
        for state, names in ((WorkerState.LOST, question.get("lose")), (WorkerState.DRAINING, question.get("drain"))):
            for name in names or ():
                here = self._known(world, name)
                settled = here.settled and state is not WorkerState.LOST
                world = _with_worker(world, replace(here, state=state, settled=settled))
        for number, new in enumerate(question.get("add") or (), start=1):
            world = _with_worker(world, PlanWorker(f"new-{number}", dict(new["labels"]), int(new["capacity"])))
        journeys, end = foresee(world)
        decision = decide(end)
        nowhere = decision.unplaced | decision.releasing | decision.staying
        return PlanView([_move(journey) for journey in journeys], nowhere, loads(end))

    # -- inside

    def _world(self) -> World:
        """Return the planner's world as of now. Whoever has no session counts by its lease: fresh is undecided."""
        observer = Observer(
            self._store,
            self._coordinator,
            self._clock,
            MysqlWatch(self._store, self._clock, background=False),
            watch=False,
        )
        snapshot = observer.observe()
        leases = snapshot.leases or {}
        verdicts = dict.fromkeys(snapshot.sessions, Verdict.UP)
        for name in snapshot.known - snapshot.sessions.keys():
            verdicts[name] = Verdict.LOST if _is_silent(leases.get(name)) else Verdict.UNDECIDED
        return build_world(snapshot, verdicts)

    def _ask(
        self, world: World, tasks: list[TaskId], worker: str, dry_run: bool, told: Telling | None = None
    ) -> list[MoveView]:
        target = self._known(world, worker)
        homes = _homes(world)
        moves = [
            MoveView(task, homes.get(task), worker, MoveReason.REASSIGN) for task in tasks if homes.get(task) != worker
        ]
        if moves and not target.settled:
            raise ConflictError(f"worker {worker} is {_absence(target)}")
        for move in moves:
            if fault := why_not(world, move.task, worker):
                raise ConflictError(f"task {move.task} cannot move: {fault}")
        # Each of them fits; do all of them together?
        after = loads(world).get(worker, 0.0) + sum(world.tasks[move.task].load for move in moves)
        if moves and after > target.capacity:
            raise ConflictError(
                f"worker {worker} has no room: its load would be {after:.3g} of {target.capacity} fires a minute"
            )
        self._request(moves, dry_run, told)
        return moves

    def _request(self, moves: Sequence[MoveView], dry_run: bool, told: Telling | None = None) -> None:
        now_ms = self._clock.now_ms()
        requests = [MoveRequest(move.task, move.to, now_ms) for move in moves if move.to is not None]
        if requests and not dry_run:
            self._store.move_requests.add(requests, trail=[] if told is None else [told.of(moves, now_ms)])

    def _known(self, world: World, worker: str) -> PlanWorker:
        if worker not in world.workers:
            raise NotFoundError(f"there is no worker {worker}")
        return world.workers[worker]

    def _nodes(self) -> dict[str, NodeInfo]:
        return with_cordons(self._coordinator.nodes(), self._store.cordons.all())

    def _want(self, node: NodeInfo, action: str, old: NodeInfo, caller: Caller | None) -> None:
        """Write down what is wanted of a node: in MySQL, and in ZooKeeper as news of it."""
        at_ms = self._clock.now_ms()
        told = (
            []
            if caller is None
            else [note(caller, action, "worker", node.id, at_ms=at_ms, old=_wish(old), new=_wish(node))]
        )
        self._store.cordons.save(Cordon(node.id, node.cordoned, node.draining, at_ms), trail=told)
        try:
            self._coordinator.save_node(node)
        except UnavailableError as exc:
            # It is saved; the leader, which asks MySQL in every turn, sees it without the news.
            log.warning("a cordon's news is late", extra={"event": "cordon.late", "worker": node.id, "error": str(exc)})

    def _node(self, worker: str) -> NodeInfo:
        node, session = self._nodes().get(worker), self._coordinator.workers().get(worker)
        if node is None and session is None and all(lease.worker != worker for lease in self._store.leases.leases()):
            raise NotFoundError(f"there is no worker {worker}")
        return node or NodeInfo(worker, last=session)


def _is_silent(lease: Lease | None) -> bool:
    return lease is None or lease.lost or lease.age_ms >= _STALE_MS


def _absence(worker: PlanWorker) -> str:
    return "lost" if worker.state is WorkerState.LOST else "away just now"


def _wish(node: NodeInfo) -> dict[str, bool]:
    return {"cordoned": node.cordoned, "draining": node.draining}


def _homes(world: World) -> dict[TaskId, str]:
    return {task: worker for worker, tasks in world.assigned.items() for task in tasks}


def _with_worker(world: World, worker: PlanWorker) -> World:
    return replace(world, workers={**world.workers, worker.id: worker})


def _move(journey: Journey) -> MoveView:
    return MoveView(journey.task, journey.origin, journey.target, journey.reason)
