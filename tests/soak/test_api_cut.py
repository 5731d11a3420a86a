"""An API server that does not reach a store or the managers (T21)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from tests.faults.checker.history import FaultKind
from tests.faults.deaths import wait_starts
from tests.faults.trial import Trial
from tests.faults.workload import std
from tests.harness.cluster import Answer

CUT_S = 20.0


def test_t21_api_partitioned_from_mysql(trial: Trial) -> None:
    """Nothing can be saved: every answer is 503 with `Retry-After`, never a 4xx that would have a client give up."""
    std(trial, jobs=10)
    trial.wait(3)
    with trial.fault(FaultKind.CUT_MYSQL, trial.fleet.apis):
        answers = list(_asked(trial, "without-mysql", CUT_S))
    assert len(answers) >= 3
    for answer in answers:
        assert answer.status == 503, (answer.status, answer.body)
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/unavailable", answer.body
    assert all(name not in _names(trial) for name in ("without-mysql",))
    assert trial.post("afterwards", schedule="*/2 * * * * *") is not None
    wait_starts(trial, "afterwards")
    trial.finish()


def test_t21_api_partitioned_from_zookeeper(trial: Trial) -> None:
    """A job is saved as soon as its row is committed; whoever leads takes the news to ZooKeeper."""
    std(trial, jobs=10)
    trial.wait(3)
    with trial.fault(FaultKind.CUT_ZOOKEEPER, trial.fleet.apis):
        trial.wait(5)
        for number in range(3):
            assert trial.post(f"posted-{number}", schedule="*/5 * * * * *") is not None
            trial.wait(1)
        for number in range(3):
            wait_starts(trial, f"posted-{number}", timeout_s=75)
    trial.finish()


def test_t21_api_partitioned_from_managers(trial: Trial) -> None:
    """They never talk to each other: nothing changes."""
    std(trial, jobs=10)
    cut = trial.fleet.network.cut(trial.fleet.apis, trial.fleet.managers)
    fault = trial.note_fault(FaultKind.PARTITION, trial.fleet.apis, cut)
    for number in range(3):
        assert trial.post(f"posted-{number}", schedule="*/5 * * * * *") is not None
        wait_starts(trial, f"posted-{number}")
    fault.heal()
    trial.finish()


def _asked(trial: Trial, name: str, seconds: float) -> Iterable[Answer]:
    """Post a job and read the list of jobs again and again; give what is answered. Each job is a new one."""
    body = {"executable": "/bin/true", "type": "command", "schedule": "0 0 1 1 *", "name": name}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        cluster = trial.fleet.cluster
        yield cluster.request("POST", "/jobs", body, headers={"Idempotency-Key": uuid.uuid4().hex})
        yield cluster.get("/jobs")
        trial.wait(0.5)


def _names(trial: Trial) -> set[str]:
    deadline = time.monotonic() + 30
    while (answer := trial.fleet.cluster.get("/jobs")).status != 200:
        assert time.monotonic() < deadline, answer.body
        trial.wait(0.5)
    return {job["name"] for job in answer.json()}
