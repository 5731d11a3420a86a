"""Telling ZooKeeper: many at once, never for long, never in the wrong order."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.errors import UnavailableError
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.znodes import QueuedRun
from cronkeeper_manager.service import News

A, B, C = TaskId(1, 0), TaskId(2, 0), TaskId(3, 0)


class Gate(MemoryCoordinator):
    """A coordinator whose writes wait until the test opens the gate."""

    def __init__(self) -> None:
        super().__init__(MemoryEnsemble())
        self.open = threading.Event()
        self.entered = threading.Event()
        self.puts: list[set[TaskId]] = []
        self.failing = False
        self.start(1.0)
        self.ensure_layout()

    def put_tasks(self, tasks: Mapping[TaskId, bytes]) -> None:
        self.entered.set()
        assert self.open.wait(30)
        if self.failing:
            raise UnavailableError("away")
        self.puts.append(set(tasks))
        super().put_tasks(tasks)


def _opened() -> Gate:
    gate = Gate()
    gate.open.set()
    return gate


def test_what_gathers_while_it_writes_goes_in_one_write() -> None:
    gate = Gate()
    news = News(gate, bound_s=30)
    first = threading.Thread(target=news.put, args=({TaskId(100, 0): b"x"},))
    first.start()
    assert gate.entered.wait(30)
    told: list[bool] = []
    others = [
        threading.Thread(target=lambda number=number: told.append(news.put({TaskId(number, 0): b"x"})))
        for number in range(1, 9)
    ]
    for thread in others:
        thread.start()
    while len(news._waiting) < 8:
        gate.entered.wait(0.01)
    gate.open.set()
    for thread in [first, *others]:
        thread.join(30)
    assert told == [True] * 8
    assert gate.puts == [{TaskId(100, 0)}, {TaskId(number, 0) for number in range(1, 9)}]
    news.stop()


def test_a_request_does_not_wait_longer_than_the_bound_and_is_not_written_later() -> None:
    gate = Gate()
    news = News(gate, bound_s=0.05)
    assert news.put({A: b"1"}) is False  # it is in the write that hangs
    assert news.put({B: b"old"}) is False  # it waits behind, and is given up
    gate.open.set()
    # What was given up might be older than what another server has told meanwhile.
    while not news.put({C: b"x"}):
        pass
    assert gate.task_names() == {A, C}
    news.stop()


def test_nothing_is_tried_while_there_is_no_connection() -> None:
    gate = Gate()
    gate.cut()
    news = News(gate)
    assert news.put({A: b"1"}) is False
    assert not gate.entered.is_set()


def test_a_failure_is_told_and_does_not_end_the_thread() -> None:
    gate = _opened()
    gate.failing = True
    news = News(gate, bound_s=30)
    assert news.put({A: b"1"}) is False
    gate.failing = False
    assert news.put({A: b"2"}) is True
    assert gate.read_tasks([A]) == {A: b"2"}
    news.stop()


def test_the_order_of_a_put_and_a_drop_stays() -> None:
    gate = _opened()
    news = News(gate, bound_s=30)
    news.put({A: b"1"})
    news.drop([A])
    assert gate.task_names() == set()
    news.put({A: b"2"})
    assert gate.task_names() == {A}
    news.stop()


def test_runs_on_demand_are_queued() -> None:
    gate = _opened()
    news = News(gate, bound_s=30)
    key = RunKey(A, 1001, 1)
    assert news.enqueue([QueuedRun(key, "ci")]) is True
    assert [item.key for item in gate.queued()] == [key]
    news.stop()
    assert news.put({B: b"x"}) is False
