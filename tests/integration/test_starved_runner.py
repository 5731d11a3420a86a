"""An executor that can open nothing: what it cannot look at is not over, not refused, and not started twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Order, RunEvent, SpawnFailed, Started
from cronkeeper_worker.orphans import Orphans
from tests.harness.folders import make_folder, remove_folder
from tests.harness.starved import no_descriptors

RUN = "7-0-1-1"


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("starved")
    yield folder
    remove_folder(folder)


@pytest.fixture
def executor(folder: Path) -> Iterator[Executor]:
    executor = Executor(str(folder))
    yield executor
    for run in executor.running():
        os.killpg(run.pid, signal.SIGKILL)
    executor.close()


def events_of(executor: Executor, seconds: float, *, until: type[RunEvent] | None = None) -> list[RunEvent]:
    events: list[RunEvent] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not any(until is not None and isinstance(event, until) for event in events):
        events += executor.poll(0.05)
    return events


@pytest.mark.parametrize("left", [0, 3, 6])
@pytest.mark.parametrize("cpu_s", [None, 3600], ids=["quick", "forked"])
def test_nothing_of_a_run_that_cannot_be_watched_is_executed(
    left: int, cpu_s: int | None, executor: Executor, folder: Path
) -> None:
    folder.chmod(0o755)
    mark = folder / "mark"
    with no_descriptors(left):
        executor.start(Order(RUN, "n", command=f"echo x > {mark}", cpu_s=cpu_s))
        (told,) = events_of(executor, 10, until=SpawnFailed)
    assert isinstance(told, SpawnFailed)
    assert "open files" in told.message
    assert not told.account
    assert not events_of(executor, 0.3)
    assert not mark.exists()


def test_a_run_that_is_ordered_again_meanwhile_goes_on(executor: Executor) -> None:
    """The answer to the first order got lost on the way to the daemon."""
    order = Order(RUN, "n", command="exec sleep 600", run_as="nobody" if os.geteuid() == 0 else None)
    executor.start(order)
    (started,) = events_of(executor, 10, until=Started)
    with no_descriptors():
        executor.start(order)
        assert not events_of(executor, 1)
    assert events_of(executor, 10, until=Started) == [started]
    executor.cancel(RUN)
    assert [type(event) for event in events_of(executor, 20, until=Ended)] == [Ended]


def test_a_run_of_a_runner_that_died_is_not_over_for_want_of_a_look(executor: Executor, folder: Path) -> None:
    executor.start(Order(RUN, "n", command="exec sleep 600"))
    (started,) = events_of(executor, 10, until=Started)
    assert isinstance(started, Started)
    next_one = Executor(str(folder))
    orphans = Orphans(next_one)
    try:
        with no_descriptors(1):
            assert not orphans.scan()
            # Longer than a parent has to say how its run has ended.
            assert not events_of(next_one, 5)
        assert not events_of(next_one, 1)
        assert [run.pid for run in orphans.running()] == [started.pid]
    finally:
        next_one.close()
