"""T58: arbitrary leftovers in MySQL, ZooKeeper and on the workers converge under the real leader and agents, and stay.

I13: each task has one worker that is given it, owns it and has it installed, and nobody has anything else.
I14: what the leader of an older term writes changes nothing.
`CRONKEEPER_EXAMPLES=500` looks for longer, and elsewhere each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState
from cronkeeper.domain.placement import Assignment, MoveReason, Ownership, WorkerInfo
from cronkeeper.errors import FencedError
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.memory_coordinator import MemoryCoordinator
from cronkeeper.wire.task import Task, Verifier
from cronkeeper_worker.agent import Agent, Node
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.tasks import Here, Installed, install
from tests.unit.engine_town import SIGNER
from tests.unit.manager_town import Town

EXAMPLES = int(os.environ.get("CRONKEEPER_EXAMPLES", "12"))
NAMES = ("a", "b", "c")
#: Jobs 1 to 4 may exist; 5 never does.
JOBS = range(1, 6)
TASKS = [TaskId(job_id, 0) for job_id in JOBS]
PAIRS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(TASKS)), max_size=8)


class SignedTown(Town):
    """The managers' town with jobs that are signed, so that real agents can read them."""

    def row(self, job_id: int, spec: JobSpec, generation: int = 1, state: JobState = JobState.ACTIVE) -> Job:
        now_ms = self.clock.now_ms()
        envelope = SIGNER.seal(Task(job_id, generation, state, now_ms, spec))
        return Job(job_id, spec, generation, state, now_ms, now_ms, now_ms, envelope)


class Host:
    """A worker's agent and what it has installed: the journal and the crontab hold just that."""

    def __init__(self, town: SignedTown, name: str) -> None:
        self.installed: dict[TaskId, Installed] = {}
        self.journal = Journal(Path(":memory:"))
        self.verifier = Verifier([SIGNER.public_bytes])
        self.coordinator = MemoryCoordinator(town.ensemble, name, clock=town.clock)
        self.coordinator.start(1.0)
        self.info = WorkerInfo(name, name, capacity=10_000, epoch="e1")
        nothing = {"retry": lambda due: None, "set_foreign": lambda runs: None, "adopt": lambda runs: None}
        node = Node(self._apply, self._have, lambda keys, trigger: None, **nothing)
        self.agent = Agent(
            self.info, self.coordinator, town.store, self.journal, self.verifier, node, town.clock,
            WorkerMetrics(CollectorRegistry()), started_ms=0,
        )  # fmt: skip

    def leave(self, jobs: Sequence[Job], generation: int) -> None:
        """Have tasks installed from before, of a generation that may be old."""
        for job in jobs:
            task = Task(job.id, generation, JobState.ACTIVE, 0, job.spec)
            row = TaskRow(TaskId(job.id, 0), generation, 1, SIGNER.seal(task), 0)
            self._apply([(row, install(row, self.verifier, Here(self.info.id, 0)))], [])

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        self.journal.save_tasks([row for row, _ in given], dropped)
        self.installed |= {item.id: item for _, item in given}
        for task in dropped:
            self.installed.pop(task, None)

    def _have(self) -> dict[TaskId, Installed]:
        return dict(self.installed)


def one_pass(town: SignedTown, hosts: Sequence[Host]) -> None:
    """Everybody looks once: leases, the leader, the agents. Seconds go by."""
    for _ in range(10):
        town.clock.advance_ms(1000)
        for host in hosts:
            town.store.leases.beat(host.info, local_ms=town.clock.now_ms())
            host.agent.step()
        town.managers[0].step()
        for host in hosts:
            host.agent.step()


def picture(town: SignedTown, hosts: Sequence[Host]) -> tuple[Any, ...]:
    have = {host.info.id: {task: item.generation for task, item in host.installed.items()} for host in hosts}
    journals = {host.info.id: sorted(row.task for row in host.journal.tasks()) for host in hosts}
    return town.ensemble.snapshot(), have, journals, town.store.assignments.load()


def spoil(town: SignedTown, assigned: set[tuple[str, TaskId]], owned: set[tuple[str, TaskId]], *, ready: bool) -> None:
    """Leave in ZooKeeper what no leader would leave."""
    town.eyes.ensure_layout()
    for worker, task in sorted(owned):
        town.eyes.own([Ownership(task, worker, 1, "e0")])
    leader = town.managers[0]
    leader.step()
    leadership = leader.coordinator.leadership()
    assert leadership is not None
    given_to = [Assignment(task, worker, 1, 3, MoveReason.NEW, 0, 0) for worker, task in sorted(assigned)]
    leader.coordinator.move(given_to, [], leadership)
    if ready:
        leader.coordinator.mark_ready(leadership)


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES < 100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    jobs=st.sets(st.sampled_from(range(1, 5)), max_size=4),
    assigned=PAIRS,
    owned=PAIRS,
    installed=PAIRS,
    copies=st.dictionaries(st.sampled_from(TASKS), st.sampled_from(NAMES), max_size=4),
    bodies=st.sets(st.sampled_from(TASKS)),
    ready=st.booleans(),
)
def test_t58_whatever_was_left_converges_in_three_passes_and_stays(
    jobs: set[int],
    assigned: set[tuple[str, TaskId]],
    owned: set[tuple[str, TaskId]],
    installed: set[tuple[str, TaskId]],
    copies: dict[TaskId, str],
    bodies: set[TaskId],
    ready: bool,
) -> None:
    town = SignedTown()
    rows = [town.create() for _ in range(4)]
    hosts = [Host(town, name) for name in NAMES]
    for row in rows:
        if row.id not in jobs:
            town.store.jobs.delete(row.id)
    for host in hosts:
        mine = {task.job_id for name, task in installed if name == host.info.id}
        host.leave([row for row in rows if row.id in mine], 1)
    town.store.assignments.save(
        [Assignment(task, worker, 1, 2, MoveReason.NEW, 0, 0) for task, worker in copies.items()],
        term=town.store.terms.take("m0"),
    )
    spoil(town, assigned, owned, ready=ready)
    town.eyes.put_tasks(dict.fromkeys(bodies, b"what somebody else wrote"))
    for _ in range(3):
        one_pass(town, hosts)

    wanted = {TaskId(job_id, 0) for job_id in jobs}
    homes = town.homes()
    assert set(homes) == wanted, "I13: each task has one worker"
    assert town.owners() == homes, "I13: who is given a task owns it"
    for host in hosts:
        given_here = {task for task, name in homes.items() if name == host.info.id}
        assert set(host.installed) == given_here == {row.task for row in host.journal.tasks()}, "I13: and has just it"
    assert town.eyes.task_names() == wanted
    before = picture(town, hosts)
    for _ in range(3):
        one_pass(town, hosts)
    assert picture(town, hosts) == before, "it does not stay as it is"


def test_an_older_term_changes_nothing() -> None:
    town = SignedTown()
    old = town.store.terms.take("m0")
    town.store.terms.take("m1")
    before = town.store.assignments.load()
    item = Assignment(TASKS[0], "a", 1, 1, MoveReason.NEW, 0, 0)
    with pytest.raises(FencedError):
        town.store.assignments.save([item], term=old)
    with pytest.raises(FencedError):
        town.store.runs.lose("a", term=old, reason="worker_lost")
    assert town.store.assignments.load() == before
