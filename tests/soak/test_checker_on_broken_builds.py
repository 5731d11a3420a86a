"""The checker fails a build whose claim, catch-up or fence is switched off, and passes a sound one in each scene."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults import broken_worker
from tests.faults.checker import Kind, check
from tests.faults.checker.history import FaultKind, read_history
from tests.faults.deaths import claimed_without_start, pause_runner, pause_worker, wait_for, wait_starts
from tests.faults.fixtures import MakeTrial
from tests.faults.fleet import Fleet
from tests.faults.nemesis import wait_well
from tests.faults.trial import Bounds, Trial

BOUNDS = Bounds(recovery_s=8.0, propagation_s=5.0)
#: Until everything that could still be caught up is too late, too.
STEADY_S = 14.0
GRACE_S = 14
SCRIPT = Path(broken_worker.__file__)


@contextlib.contextmanager
def built_with(fleet: Fleet, flaw: str, workers: Sequence[str]) -> Iterator[None]:
    """Have these workers run a build with a flaw; sound ones again afterwards."""
    sound = fleet.cluster.worker_argv
    fleet.cluster.worker_argv = (sys.executable, str(SCRIPT), flaw)
    try:
        restart(fleet, workers)
        yield
    finally:
        fleet.cluster.worker_argv = sound
        restart(fleet, workers)


def restart(fleet: Fleet, workers: Sequence[str]) -> None:
    """Start nodes anew, each after a goodbye: nobody is to be taken for lost. Returns when the fleet is well."""
    with fleet.entered():
        for worker in workers:
            fleet.cluster.workers[worker].stop()
            fleet.cluster.nodes[worker].stop()
            fleet.cluster.boot(worker)
            wait_well(fleet)


def zombie(trial: Trial) -> None:
    """A worker is paused between a claim and its process, for longer than the leader waits, and wakes up."""
    for number in range(6):
        trial.post(f"tick-{number}", schedule="*/2 * * * * *", misfire="all", grace_s=30, concurrency="allow")
    names = [name for name in trial.jobs if trial.owner(name) == "w1"]
    wait_starts(trial, names[0])
    trial.settle()
    runner = pause_runner(trial.fleet, "w1")
    try:
        wait_for(lambda: claimed_without_start(trial, names[0]), "a fire is claimed", 10)
        fault = pause_worker(trial, "w1")
        wait_for(lambda: all(trial.owner(name) != "w1" for name in names), "others have its tasks", 30)
        # Long enough for the new owners to have run what was due meanwhile.
        trial.wait(4.0)
        fault.heal()
    finally:
        runner.heal()


def dead_node(trial: Trial) -> None:
    """A node dies with its fires due every second."""
    for number in range(6):
        trial.post(f"tick-{number}", schedule="* * * * * *", misfire="all", grace_s=GRACE_S, concurrency="allow")
    names = [name for name in trial.jobs if trial.owner(name) == "w1"]
    wait_starts(trial, names[0])
    trial.settle()
    with trial.fault(FaultKind.NODE_KILLED, ["w1"]):
        wait_for(lambda: all(trial.owner(name) != "w1" for name in names), "others have its tasks", 30)
        trial.wait(4.0)


Scene = Callable[[Trial], None]


@pytest.mark.parametrize("scene", [zombie, dead_node])
def test_a_sound_build_passes(make_trial: MakeTrial, scene: Scene) -> None:
    """What the broken builds fail is no fault of the scene."""
    trial = make_trial(bounds=BOUNDS)
    scene(trial)
    trial.finish(steady_s=STEADY_S)


@pytest.mark.parametrize(
    ("flaw", "workers", "scene", "seen"),
    [
        ("every_claim_is_granted", ["w1"], zombie, {Kind.DUPLICATE}),
        ("no_order_expires", ["w1"], zombie, {Kind.ATTEMPT_ORDER}),
        ("given_up_claims_count", ["w1"], zombie, {Kind.ATTEMPT_ORDER}),
        ("no_catch_up", ["w2", "w3"], dead_node, {Kind.MISSED, Kind.SILENT_MISS}),
    ],
)
def test_the_checker_fails_a_broken_build(
    fleet: Fleet, make_trial: MakeTrial, flaw: str, workers: list[str], scene: Scene, seen: set[Kind]
) -> None:
    """Each flaw is found, and called by its name."""
    assert flaw in broken_worker.FLAWS
    with built_with(fleet, flaw, workers):
        trial = make_trial(bounds=BOUNDS)
        scene(trial)
        with pytest.raises(AssertionError):
            trial.finish(steady_s=STEADY_S)
        report = check(read_history(trial.folder))
        assert not report.ok
        assert seen & {violation.kind for violation in report.violations}, report.text()
