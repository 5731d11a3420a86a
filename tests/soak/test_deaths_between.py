"""Nodes and daemons that die between two steps of a run (T03, T04)."""

from __future__ import annotations

import time

from tests.faults.checker.history import FaultKind
from tests.faults.deaths import (
    attempts_of,
    claimed_without_start,
    kill_runner,
    pause_runner,
    starts_of,
    wait_for,
    wait_starts,
)
from tests.faults.fixtures import MakeTrial
from tests.faults.parts import part
from tests.faults.trial import Bounds, Trial

#: A daemon that starts again is well after some seconds.
QUICK = Bounds(recovery_s=10.0, propagation_s=5.0)
STEADY_S = 10.0


def test_t03_node_killed_between_claim_and_spawn(trial: Trial) -> None:
    """A claim whose process never came to be is given up: it runs again elsewhere, or is held if the job says so."""
    trial.post("rerun", schedule="*/10 * * * * *", on_worker_loss="rerun", grace_s=60)
    trial.post("hold", schedule="*/10 * * * * *", on_worker_loss="hold", grace_s=60)
    trial.settle()
    assert _states_of_a_claim_without_process(trial, "rerun") == ["lost", "succeeded"]
    assert _states_of_a_claim_without_process(trial, "hold") == ["lost"]
    trial.finish(steady_s=STEADY_S)


def _states_of_a_claim_without_process(trial: Trial, name: str) -> list[str]:
    """Kill a job's node between a claim and its process; return the states of that fire's attempts in the end."""
    owner = trial.owner(name)
    wait_starts(trial, name)
    runner = pause_runner(trial.fleet, owner)
    try:
        run = wait_for(lambda: claimed_without_start(trial, name), "a fire is claimed", 15)[0]
    finally:
        # What the runner has not read by now it never reads: its node is gone before it could.
        fault = trial.strike(FaultKind.NODE_KILLED, [owner])
        runner.heal()
    wait_for(lambda: attempts_of(trial, name, run["fire_time"])[0]["state"] == "lost", "it is given up", 20)
    wait_for(lambda: trial.owner(name) != owner, "another node has it", 20)
    trial.wait(4.0)
    fault.heal()
    return [one["state"] for one in attempts_of(trial, name, run["fire_time"])]


def test_t04_worker_kill9_between_exit_and_report(make_trial: MakeTrial) -> None:
    """A run that ended while nobody could report it: the runner's note brings the result home, nothing runs again."""
    trial = make_trial(bounds=QUICK)
    trial.post("short", schedule="*/15 * * * * *", sleep_s=3, exit_status=5)
    owner = trial.owner("short")
    trial.settle()
    wait_starts(trial, "short", len(trial.starts("short")) + 1)
    daemon = part(trial.fleet, owner)
    begun = trial.starts("short")[-1]
    run = attempts_of(trial, "short", begun["fire_time"])[0]
    # Shortly before its end: the leader's patience has to last until the next daemon is there.
    trial.wait(max(0.0, begun["wall_s"] + 2.5 - time.time()))
    daemon.pause()
    note = trial.fleet.cluster.state_dir(owner) / "runs" / run["id"] / "exit.json"
    # A blank one lies in every folder that is used again.
    wait_for(lambda: note.exists() and note.read_bytes().strip(), "the runner has noted its end", 10)
    with trial.fault(FaultKind.WORKER_KILLED, [owner]):
        kill_runner(trial.fleet, owner)
    trial.finish(steady_s=STEADY_S)
    (told,) = attempts_of(trial, "short", run["fire_time"])
    assert (told["state"], told["exit_code"], told["attempt"]) == ("failed", 5, 1), told
    assert len(starts_of(trial, "short", run["fire_time"])) == 1
