"""A small fleet on the doubles that we ship: managers take turns, workers answer, the test turns the clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState, JobType
from cronkeeper.domain.placement import Assignment, Lease, Ownership, WorkerInfo
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Beat, LeaseStore, NewJob
from cronkeeper.runtime.metrics import ManagerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.fleet import Fleet
from cronkeeper_manager.leader import Leader
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.reach import Reach

#: 2026-03-01T12:00:00Z
NOON_MS = 1_772_366_400_000
SIGNER = Signer.from_seed(bytes(range(32)))


@dataclass
class Node:
    """A worker that does as it is told, as far as the manager can see. Its daemon may be stopped and started again."""

    town: Town
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    capacity: int = 10_000
    starts: int = 1

    def __post_init__(self) -> None:
        self.alive = True
        self.answers = True
        self.clock_offset_ms = 0
        self.coordinator = MemoryCoordinator(self.town.ensemble, self.name, clock=self.town.clock)
        self.coordinator.start(1.0)

    @property
    def info(self) -> WorkerInfo:
        return WorkerInfo(self.name, f"host-{self.name}", self.labels, self.capacity, "1", f"epoch-{self.starts}")

    def beat(self) -> None:
        """What its daemon does every second or two, whatever ZooKeeper does."""
        if self.alive and self.town.mysql_up:
            self.town.store.leases.beat(self.info, local_ms=self.town.clock.now_ms() + self.clock_offset_ms)

    def step(self) -> None:
        """Announce itself; once the tree is ready, own what it is given and let go of the rest."""
        if not self.alive:
            return
        self.coordinator.announce(self.info)
        if not self.answers or not self.coordinator.is_ready():
            return
        given = self.coordinator.assigned(self.name)
        held = self.coordinator.owned(self.name)
        fresh = [item for task, item in given.items() if task not in held]
        self.coordinator.own([Ownership(a.task, self.name, a.generation, self.info.epoch) for a in fresh])
        self.coordinator.disown(self.name, [task for task in held if task not in given])

    def die(self) -> None:
        """kill -9 of the whole node: its session and its lease are left to time."""
        self.alive = False
        self.coordinator.cut()
        self.coordinator.expire()

    def revive(self) -> None:
        self.alive, self.starts = True, self.starts + 1
        self.coordinator.heal()


class QuickLeases:
    """A lease store in which one worker always beats just after the leader has read the leases."""

    def __init__(self, leases: LeaseStore, node: Node) -> None:
        self._leases = leases
        self._node = node
        self.refused = 0

    def beat(self, info: WorkerInfo, *, local_ms: int) -> Beat:
        return self._leases.beat(info, local_ms=local_ms)

    def leases(self) -> list[Lease]:
        found = self._leases.leases()
        self._leases.beat(self._node.info, local_ms=self._node.town.clock.now_ms())
        # What the leader is told is as old as if that beat had come just after the reading.
        return [replace(item, age_ms=60_000) if item.worker == self._node.name else item for item in found]

    def declare_lost(self, worker: str, *, incarnation: str, stale_ms: int, term: int) -> bool:
        done = self._leases.declare_lost(worker, incarnation=incarnation, stale_ms=stale_ms, term=term)
        self.refused += not done
        return done

    def release(self, worker: str, *, incarnation: str) -> None:
        self._leases.release(worker, incarnation=incarnation)


class Manager:
    """A manager process on the doubles."""

    def __init__(self, town: Town, name: str) -> None:
        self.coordinator = MemoryCoordinator(town.ensemble, name, clock=town.clock)
        self.coordinator.start(1.0)
        settings: dict[str, Any] = {"manager_id": name}
        self.mysql = MysqlWatch(town.store, town.clock, background=False)
        self.leader = Leader(
            ManagerConfig(**settings),
            town.store,
            self.coordinator,
            town.clock,
            ManagerMetrics(CollectorRegistry()),
            mysql=self.mysql,
            reach=Reach(town.store, town.clock, background=False),
        )
        self.coordinator.on_change(self.leader.observer.note_change)
        self._town = town
        #: False: this manager alone is cut from MySQL.
        self.reaches_mysql = True

    @property
    def leads(self) -> bool:
        return self.leader.leads

    def step(self) -> float:
        self._town.let_mysql_answer(self._town.mysql_up and self.reaches_mysql)
        try:
            return self.leader.step()
        finally:
            self._town.let_mysql_answer(self._town.mysql_up)

    def die(self) -> None:
        self.coordinator.cut()
        self.coordinator.expire()


class Town:
    """Everything, in memory."""

    def __init__(self, *workers: str) -> None:
        self.clock = FakeClock(NOON_MS)
        self.store = MemoryStore(self.clock)
        self.ensemble = MemoryEnsemble()
        self.mysql_up = True
        self.nodes: dict[str, Node] = {}
        self.managers: list[Manager] = [Manager(self, "m1")]
        for name in workers:
            self.join(name)
        outside = MemoryCoordinator(self.ensemble, "test", clock=self.clock)
        outside.start(1.0)
        self.eyes = outside
        self.fleet = Fleet(self.store, outside, self.clock)

    def join(self, name: str, **kinds: Any) -> Node:
        self.nodes[name] = Node(self, name, **kinds)
        self.nodes[name].beat()
        self.nodes[name].step()
        return self.nodes[name]

    def set_mysql(self, up: bool) -> None:
        self.mysql_up = up
        self.let_mysql_answer(up)

    def let_mysql_answer(self, up: bool) -> None:
        self.store.set_available(up)

    def run(self, seconds: float) -> None:
        """Let everybody live for so long, in steps of half a second."""
        for _ in range(round(seconds * 2)):
            self.clock.advance_ms(500)
            self.step()

    def step(self) -> None:
        """One turn of everybody, without time passing."""
        for node in self.nodes.values():
            node.beat()
            node.step()
        for manager in self.managers:
            manager.step()
        for node in self.nodes.values():
            node.step()

    # -- jobs

    def create(self, schedule: str = "*/5 * * * *", **fields: Any) -> Job:
        spec = JobSpec("true", schedule, JobType.COMMAND).evolve(**fields)
        return self.store.jobs.create(NewJob("default", None, lambda job_id: self.row(job_id, spec)))

    def row(self, job_id: int, spec: JobSpec, generation: int = 1, state: JobState = JobState.ACTIVE) -> Job:
        now_ms = self.clock.now_ms()
        envelope = SIGNER.seal(Task(job_id, generation, state, now_ms, spec))
        return Job(job_id, spec, generation, state, now_ms, now_ms, now_ms, envelope)

    def edit(self, job: Job, state: JobState = JobState.ACTIVE, **fields: Any) -> Job:
        after = self.row(job.id, job.spec.evolve(**fields), job.generation + 1, state)
        self.store.jobs.replace(after, expected_generation=job.generation)
        return after

    def start_run(self, job: Job, worker: str, fire_ms: int) -> Run:
        key = RunKey(TaskId(job.id, 0), fire_ms, 1)
        run = Run(key, Trigger.TIMER, RunState.RUNNING, worker, nonce=f"nonce-{key}", claimed_ms=fire_ms)
        self.store.runs.record([run])
        return run

    def end_run(self, run: Run, state: RunState = RunState.SUCCEEDED) -> None:
        self.store.runs.record([replace(run, state=state, ended_ms=self.clock.now_ms(), exit_code=0)])

    # -- looking

    def homes(self) -> dict[TaskId, str]:
        """Who is given what; no task is given to two."""
        return _inverted(self.eyes.all_assigned())

    def owners(self) -> dict[TaskId, str]:
        """Who owns what; no task is owned by two."""
        return _inverted(self.eyes.all_owned())

    def assignment(self, job: Job) -> Assignment:
        task = TaskId(job.id, 0)
        return self.eyes.assigned(self.homes()[task])[task]

    def events(self, kind: str) -> list[str]:
        return [event.subject for event in self.store.events.latest(limit=1000, kind=kind)]


def _inverted(by_worker: dict[str, set[TaskId]]) -> dict[TaskId, str]:
    pairs = [(task, worker) for worker, tasks in by_worker.items() for task in tasks]
    assert len(pairs) == len(dict(pairs)), f"somebody shares a task: {sorted(pairs)}"
    return dict(pairs)
