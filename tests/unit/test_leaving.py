"""A worker that leaves: when it may go, and what the leader makes of it meanwhile."""

from __future__ import annotations

import pytest

from cronkeeper.domain.placement import NodeInfo, WorkerInfo, WorkerState
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.znodes import decode_worker, encode_worker
from cronkeeper_manager.observe import worker_state
from cronkeeper_worker.leaving import HAND_OVER_S, LOOK_S, Left, hand_over, may_go

RUNS_WAIT_S = 60.0


@pytest.mark.parametrize(
    ("left", "may"),
    [
        # Nobody could take anything, or run it twice.
        (Left(0.0, tasks=3, runs=2, others=False), True),
        (Left(0.0, tasks=3, runs=0, others=True), False),
        (Left(HAND_OVER_S, tasks=3, runs=0, others=True), True),
        # Tasks that nobody takes do not wait for runs.
        (Left(HAND_OVER_S, tasks=1, runs=1, others=True), True),
        (Left(0.5, tasks=0, runs=0, others=True), True),
        (Left(HAND_OVER_S + 1, tasks=0, runs=1, others=True), False),
        (Left(RUNS_WAIT_S, tasks=0, runs=1, others=True), True),
    ],
)
def test_when_it_may_go(left: Left, may: bool) -> None:
    assert may_go(left, RUNS_WAIT_S) is may


class _Stop:
    """A clean stop on a clock of its own: what is left at each look."""

    def __init__(self, *left: tuple[int, int]) -> None:
        self.left = list(left)
        self.now_s = 0.0
        self.gives_up_s = 1000.0

    def count(self) -> tuple[int, int]:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.now_s >= self.gives_up_s

    def go(self, *others: WorkerInfo) -> float:
        ensemble = MemoryEnsemble()
        us = MemoryCoordinator(ensemble, "w1")
        us.start(1.0)
        us.ensure_layout()
        us.announce(WorkerInfo("w1", "host", leaving=True))
        for other in others:
            session = MemoryCoordinator(ensemble, other.id)
            session.start(1.0)
            session.announce(other)
        hand_over("w1", us, self.count, self.wait, lambda: self.now_s, runs_wait_s=RUNS_WAIT_S)
        return self.now_s


def test_it_waits_for_its_tasks_to_go_and_then_for_its_runs() -> None:
    waited_s = _Stop((2, 1), (1, 1), (0, 1), (0, 1), (0, 0)).go(WorkerInfo("w2", "host"))
    assert waited_s == pytest.approx(4 * LOOK_S)


def test_it_waits_for_nothing_where_everybody_leaves() -> None:
    assert _Stop((2, 1)).go(WorkerInfo("w2", "host", leaving=True)) == 0.0


def test_it_waits_for_nothing_any_more_when_told_to_give_up() -> None:
    stop = _Stop((0, 1))
    stop.gives_up_s = 3.0
    assert stop.go(WorkerInfo("w2", "host")) == pytest.approx(3.0)


def test_one_that_leaves_is_drained_whatever_admins_want_of_it() -> None:
    leaving, there = WorkerInfo("w1", "host", leaving=True), WorkerInfo("w1", "host")
    assert worker_state(None, leaving, lost=False) is WorkerState.DRAINING
    assert worker_state(NodeInfo("w1", cordoned=True), leaving, lost=False) is WorkerState.DRAINING
    assert worker_state(None, there, lost=False) is WorkerState.UP
    assert worker_state(None, leaving, lost=True) is WorkerState.LOST


def test_a_worker_of_an_older_version_says_nothing_of_it() -> None:
    raw = encode_worker(WorkerInfo("w1", "host", leaving=True))
    assert decode_worker(raw).leaving
    assert not decode_worker(raw.replace(b'"leaving":true,', b"").replace(b',"leaving":true', b"")).leaving
