"""Daemons, runners and leaders that die or stop at the worst moment (T01 to T06)."""

from __future__ import annotations

import time

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import (
    assert_unbroken,
    attempts_of,
    claimed_without_start,
    kill_runner,
    pause_runner,
    starts_of,
    wait_for,
    wait_starts,
)
from tests.faults.fixtures import MakeTrial
from tests.faults.leaders import leader_storm
from tests.faults.parts import part
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

#: A daemon that starts again is well after some seconds.
QUICK = Bounds(recovery_s=10.0, propagation_s=5.0)
STEADY_S = 10.0


def test_t01_worker_kill9_idle(make_trial: MakeTrial) -> None:
    """A daemon that is killed between two runs and started again keeps its tasks; what was due meanwhile runs, once."""
    trial = make_trial(bounds=QUICK)
    for number in range(6):
        trial.post(f"tick-{number}", schedule="*/5 * * * * *", misfire="all")
    for name in trial.jobs:
        trial.owner(name)
    owner = trial.owner("tick-0")
    trial.settle()
    before = reading.assigned(trial.fleet)
    for kills in range(2):
        wait_starts(trial, "tick-0", 3 * kills + 1)
        trial.wait(1.0)
        with trial.fault(FaultKind.WORKER_KILLED, [owner]):
            trial.wait(1.0)
    trial.finish(steady_s=STEADY_S)
    assert reading.assigned(trial.fleet) == before


def test_t02_worker_kill9_midrun(make_trial: MakeTrial) -> None:
    """The run outlives its daemon: it ends once, and the next daemon tells its exit status."""
    trial = make_trial(bounds=QUICK)
    trial.post("long", schedule="*/15 * * * * *", sleep_s=6, exit_status=3)
    owner = trial.owner("long")
    std(trial, jobs=6)
    wait_starts(trial, "long", len(trial.starts("long")) + 1)
    fire_time = trial.starts("long")[-1]["fire_time"]
    trial.wait(1.0)
    with trial.fault(FaultKind.WORKER_KILLED, [owner]):
        trial.wait(2.0)
    trial.finish(steady_s=STEADY_S)
    assert trial.owner("long") == owner
    (run,) = attempts_of(trial, "long", fire_time)
    assert (run["state"], run["exit_code"], run["attempt"], run["worker"]) == ("failed", 3, 1, owner), run
    assert len(starts_of(trial, "long", fire_time)) == 1


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
    # An empty one lies in every folder that is used again.
    wait_for(lambda: note.exists() and note.stat().st_size, "the runner has noted its end", 10)
    with trial.fault(FaultKind.WORKER_KILLED, [owner]):
        kill_runner(trial.fleet, owner)
    trial.finish(steady_s=STEADY_S)
    (told,) = attempts_of(trial, "short", run["fire_time"])
    assert (told["state"], told["exit_code"], told["attempt"]) == ("failed", 5, 1), told
    assert len(starts_of(trial, "short", run["fire_time"])) == 1


def test_t06_leader_kill9_storm(make_trial: MakeTrial) -> None:
    """Each leader is replaced within ten seconds, and no fire notices."""
    trial = make_trial(bounds=QUICK)
    trial.post("tick", schedule="*/2 * * * * *")
    std(trial, jobs=6)
    trial.settle()
    since_s = time.time()
    leader_storm(trial, kills=5, every_s=10.0)
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    assert max(late) <= trial.bounds.on_time_s
    trial.finish(steady_s=STEADY_S)
