"""Pauses, storms and power loss at full length (T05 to T09)."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.ports import ABANDONED_MS
from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, log_events, pause_worker, stop_inside, wait_for, wait_starts
from tests.faults.fixtures import MakeTrial
from tests.faults.fleet import Fleet, Sizes
from tests.faults.leaders import leader_now, leader_storm, next_election
from tests.faults.nemesis import Healing
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

pytestmark = pytest.mark.timeout(1200)

PAUSED_S = 30.0
#: What was due so shortly before it woke up may have been nobody's yet.
FRESH_S = 3.0
KEYS, CLIENTS = 400, 4


def test_t05_worker_sigstop_30s(trial: Trial) -> None:
    """A worker that sleeps beyond the leader's patience wakes up as a stranger: what others have it leaves alone."""
    std(trial, jobs=12)
    assert reading.assigned(trial.fleet)["w1"]
    fault = pause_worker(trial, "w1")
    asleep_s = time.time()
    trial.wait(PAUSED_S)
    assert not reading.assigned(trial.fleet)["w1"]
    awake_s = time.time()
    fault.heal()
    trial.finish()
    woken = [
        line
        for name in trial.jobs
        for line in trial.starts(name)
        if line["node"] == "w1"
        and line["wall_s"] > awake_s
        and asleep_s < parse_rfc3339(line["fire_time"]) / 1000 < awake_s - FRESH_S
    ]
    assert woken == []


def test_t06_leader_kill9_storm_5min(trial: Trial) -> None:
    """Each leader is replaced within ten seconds, fifteen times in a row, and no fire notices."""
    trial.post("tick", schedule="*/2 * * * * *")
    std(trial, jobs=10)
    since_s = time.time()
    leader_storm(trial, kills=15, every_s=20.0)
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    print(f"lateness of {len(late)} fires meanwhile: at most {max(late):.2f} s")
    assert max(late) <= trial.bounds.on_time_s
    trial.finish()


def test_t07_leader_sigstop_in_its_writes(trial: Trial) -> None:
    """A leader that is stopped between two of its writes and wakes up under another one's term changes nothing."""
    std(trial, jobs=6)
    for turn in range(4):
        leader = wait_for(lambda: leader_now(trial), "a manager leads", 20) or ""
        process = trial.fleet.manager(leader)
        with stop_inside(process, "sendto", trial.chance.randint(2, 9)) as stopped:
            trial.post(f"burst-{turn}", schedule="*/7 * * * * *", shards=12)
            wait_for(stopped, f"{leader} is stopped", 30)
        stopped_ms = time.time_ns() // 1_000_000
        fault = trial.note_fault(FaultKind.MANAGER_PAUSED, [leader], Healing(process.resume))
        next_election(trial, stopped_ms - 1000)
        wait_for(lambda turn=turn: len(_assigned(trial, f"burst-{turn}")) == 12, "the burst is placed", 30)  # type: ignore[misc]
        trial.wait(4.0)
        before = _written(trial)
        fenced = len(log_events(process, "leader.fenced"))
        fault.heal()
        wait_for(lambda: len(log_events(process, "leader.fenced")) > fenced, f"{leader} is fenced", 20)  # noqa: B023
        trial.wait(2.0)
        assert _written(trial) == before
    trial.finish()


def test_t08_api_kill_during_post_storm(tmp_path: Path) -> None:
    """Whoever repeats a request by its key until it is answered has one job for each key, however many servers die."""
    with Fleet(Sizes(apis=2, workers=2)) as fleet, Trial(fleet, tmp_path / "history") as trial:
        trial.post("tick", schedule="*/2 * * * * *")
        wait_starts(trial, "tick")
        keys = [uuid.uuid4().hex for _ in range(KEYS)]
        answers: dict[str, list[str]] = {key: [] for key in keys}
        clients = [
            threading.Thread(target=_post_all, args=(fleet, keys[number::CLIENTS], answers))
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        kills = 0
        while any(client.is_alive() for client in clients):
            with trial.fault(FaultKind.API_KILLED, [fleet.apis[kills % 2]]):
                trial.wait(trial.chance.uniform(0.3, 1.5))
            kills += 1
            # Long enough for it to come back: somebody serves, most of the time.
            trial.wait(trial.chance.uniform(3.0, 6.0))
        for client in clients:
            client.join()
        assert kills >= 3
        jobs = [job for job in reading.pages(fleet.cluster, "/jobs?limit=1000") if job["name"] in answers]
        print(f"{KEYS} keys, {kills} kills, {sum(map(len, answers.values()))} answers, {len(jobs)} jobs")
        assert sorted(job["name"] for job in jobs) == sorted(keys)
        assert {job["name"]: {job["id"]} for job in jobs} == {key: set(ids) for key, ids in answers.items()}
        trial.finish()


def test_t09_everything_kill9_at_once(make_trial: MakeTrial) -> None:
    """Power loss, and every part comes back in a random order: what was saved is there, and fires."""
    trial = make_trial(bounds=Bounds(recovery_s=40.0))
    std(trial, jobs=12)
    everything = [*trial.fleet.workers, *trial.fleet.managers, *trial.fleet.apis, *trial.fleet.stores]
    with trial.fault(FaultKind.EVERYTHING_KILLED, everything):
        trial.wait(10)
    trial.finish()


def _assigned(trial: Trial, name: str) -> list[str]:
    job = f"{trial.jobs[name].id}/"
    return sorted(task for tasks in reading.assigned(trial.fleet).values() for task in tasks if task.startswith(job))


def _written(trial: Trial) -> tuple[Any, Any, Any]:
    """Return what only leaders write: the assignments in both stores, and whose term it is."""
    cluster = trial.fleet.cluster
    rows = cluster.mariadb.execute("SELECT * FROM assignments ORDER BY job_id, shard", cluster.database)
    term = cluster.mariadb.execute("SELECT term, holder FROM term", cluster.database)
    return reading.assigned(trial.fleet), rows, term


def _post_all(fleet: Fleet, keys: list[str], answers: dict[str, list[str]]) -> None:
    """Post a job for each key, again and again until it is known to be there; and once more."""
    with fleet.entered():
        for key in keys:
            # One whose server died before it saved anything is nobody's for so long.
            deadline = time.monotonic() + ABANDONED_MS / 1000 + 30
            while len(answers[key]) < 2 and time.monotonic() < deadline:
                body = {"executable": "true", "type": "command", "schedule": "@yearly", "name": key}
                try:
                    answer = fleet.cluster.request("POST", "/jobs", body, headers={"Idempotency-Key": key})
                except OSError:
                    time.sleep(0.2)
                    continue
                if answer.status == 201:
                    answers[key].append(answer.json()["id"])
                else:
                    time.sleep(0.2)
