"""Bodies of tasks are verified once and let go of; what is to be installed is what was offered, to the letter."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker.assignments import Offer, offer_of
from cronkeeper_worker.journal import TaskRow
from cronkeeper_worker.offers import Offers
from cronkeeper_worker.tasks import Here, Installed, install

SIGNER = Signer.from_seed(b"s" * 32)
T1, T2 = TaskId(1, 0), TaskId(2, 0)


class CountingVerifier(Verifier):
    def __init__(self) -> None:
        super().__init__([SIGNER.public_bytes])
        self.opened = 0

    def open(self, raw: bytes, *, job_id: int) -> Task:
        self.opened += 1
        return super().open(raw, job_id=job_id)


class Place:
    def __init__(self) -> None:
        self.coordinator = MemoryCoordinator(MemoryEnsemble(), "w1")
        self.coordinator.start(1.0)
        self.coordinator.ensure_layout()
        self.verifier = CountingVerifier()
        self.installed: dict[TaskId, bytes] = {}
        metrics = WorkerMetrics(CollectorRegistry())
        self.offers = Offers("w1", self.coordinator, self.verifier, metrics, self.installed.__getitem__)
        self.have: dict[TaskId, Installed] = {}

    def put(self, task: TaskId, generation: int = 1, **spec: Any) -> bytes:
        body = Task(
            task.job_id, generation, JobState.ACTIVE, 0, JobSpec("true", "* * * * *", JobType.COMMAND).evolve(**spec)
        )
        raw = SIGNER.seal(body)
        self.coordinator.put_tasks({task: raw})
        return raw

    def install(self, task: TaskId, raw: bytes, generation: int = 1) -> None:
        self.installed[task] = raw
        self.have[task] = install(TaskRow(task, generation, 5, raw, 0), self.verifier, Here("w1", 0))

    def read(self, *tasks: TaskId, epoch: int = 5) -> dict[TaskId, Offer]:
        assigned = {task: Assignment(task, "w1", 1, epoch, MoveReason.NEW, 0) for task in tasks}
        self.offers.begin(assigned)
        return self.offers.read(assigned, self.have)


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_body_is_opened_once_for_each_change(place: Place) -> None:
    place.put(T1), place.put(T2)
    for _ in range(3):
        assert place.read(T1, T2) == {T1: Offer(1, SIGNER.key_id), T2: Offer(1, SIGNER.key_id)}
    assert place.verifier.opened == 2
    place.put(T1, 2)
    assert place.read(T1, T2)[T1].generation == 2
    assert place.verifier.opened == 3


def test_equal_offers_are_one_object(place: Place) -> None:
    place.put(T1), place.put(T2)
    found = place.read(T1, T2)
    assert found[T1] is found[T2] is offer_of(1, SIGNER.key_id)


def test_what_is_not_installed_is_at_hand_and_what_is_not_wanted_is_let_go(place: Place) -> None:
    raw = place.put(T1)
    offered = place.read(T1)
    asked = place.verifier.opened
    assert place.offers.bodies([T1], offered)[T1].raw == raw
    assert place.verifier.opened == asked, "it had just been read"
    place.install(T1, raw)
    place.read(T1)
    assert not place.offers.held


def test_a_body_that_was_read_at_an_earlier_look_is_read_again(place: Place) -> None:
    raw = place.put(T1)
    place.read(T1)
    offered = place.read(T1)
    assert place.offers.bodies([T1], offered)[T1].raw == raw


def test_a_body_that_was_replaced_by_an_older_one_meanwhile_is_left_to_the_next_look(place: Place) -> None:
    place.put(T1, 3, executable="new")
    place.read(T1)
    offered = place.read(T1)
    place.put(T1, 2, executable="old")
    assert place.offers.bodies([T1], offered) == {}
    assert place.read(T1)[T1].generation == 2


def test_a_task_that_was_given_anew_has_its_body_at_hand(place: Place) -> None:
    raw = place.put(T1)
    place.install(T1, raw)
    del place.installed[T1]
    offered = place.read(T1, epoch=6)
    asked = place.verifier.opened
    assert place.offers.bodies([T1], offered)[T1].raw == raw
    assert place.verifier.opened == asked


def test_the_very_bytes_that_are_installed_are_not_opened_again(place: Place) -> None:
    place.install(T1, place.put(T1, 4), 4)
    opened = place.verifier.opened
    assert place.read(T1) == {T1: Offer(4, SIGNER.key_id)}
    assert place.verifier.opened == opened
    place.put(T1, 5)
    assert place.read(T1) == {T1: Offer(5, SIGNER.key_id)}
    assert place.verifier.opened == opened + 1


def test_a_forged_body_is_told_of_once_and_offers_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    raw = place.put(T1)
    place.put(T2)
    place.coordinator.put_tasks({T1: raw.replace(b"true", b"evil")})
    for _ in range(3):
        assert set(place.read(T1, T2)) == {T2}
    assert [record.message for record in caplog.records].count("a task is refused") == 1
