"""What ties a fleet to its stores: sessions, assignments, and the moves that the leader makes of them."""

from __future__ import annotations

import json
import time
from typing import Any

from kazoo.client import KazooClient

from tests.faults import reading
from tests.faults.deaths import log_events, wait_starts
from tests.faults.fleet import Fleet
from tests.faults.trial import Trial
from tests.faults.workload import std

#: What a leader writes into its log when it gives a task to a worker or takes one away.
_MOVES = ("task.assigned", "task.revoked", "tasks.moved")

#: After so long everything that was posted has settled.
_QUIET_S = 3.0


def sessions(fleet: Fleet) -> dict[str, int]:
    """Return the ZooKeeper session that holds each worker's znode; raises what kazoo raises if one has none."""
    hosts, _, chroot = fleet.cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
    client = KazooClient(hosts=hosts, auth_data=[("digest", fleet.cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])])
    client.start(timeout=10)
    try:
        return {worker: client.get(f"/{chroot}/workers/{worker}")[1].ephemeralOwner for worker in fleet.workers}
    finally:
        client.stop()
        client.close()


def moves(fleet: Fleet, since_ms: int) -> list[dict[str, Any]]:
    """Return the moves since an instant (epoch ms) by whichever manager led, oldest first, as they were logged."""
    lines = [
        line
        for name in fleet.managers
        for event in _MOVES
        for line in log_events(fleet.manager(name), event)
        if line["at_ms"] >= since_ms
    ]
    return sorted(lines, key=lambda line: int(line["at_ms"]))


class Bonds:
    """Who had what, by which session, when the trial was quiet; `assert_kept` says that nothing of it has changed."""

    def __init__(self, fleet: Fleet, since_ms: int) -> None:
        self._fleet = fleet
        self._since_ms = since_ms
        self.assigned = reading.assigned(fleet)
        self.sessions = sessions(fleet)

    def assert_no_move(self) -> None:
        """No task has changed hands, and none was taken away and given back. What came later is not looked at."""
        tasks = {task for of_worker in self.assigned.values() for task in of_worker}
        # Many moves at once are told without their tasks: then any of them may have been ours.
        told = [line for line in moves(self._fleet, self._since_ms) if line.get("task") in {None, *tasks}]
        assert told == []
        now = reading.assigned(self._fleet)
        assert {worker: [task for task in now[worker] if task in tasks] for worker in now} == self.assigned

    def assert_same_sessions(self) -> None:
        """Every worker's znode belongs to the session that it belonged to before."""
        assert sessions(self._fleet) == self.sessions


def loaded(trial: Trial) -> Bonds:
    """Give the fleet the standard load and `tick`, each of whose fires must run; return who has what once it runs.

    A claim waits two seconds for a MySQL that is silent. With `forbid`, a fire of `tick` could be skipped for that.
    """
    trial.post("tick", schedule="*/2 * * * * *", misfire="all", concurrency="allow")
    trial.owner("tick")
    std(trial, jobs=10)
    wait_starts(trial, "tick")
    trial.wait(_QUIET_S)
    # What was placed just now must be told, or nobody would see a move later either.
    assert {line.get("task") for line in moves(trial.fleet, int(trial.started_s * 1000))} >= {
        f"{posted.id}/0" for posted in trial.jobs.values()
    }
    return Bonds(trial.fleet, int(time.time() * 1000))


def assert_no_run_was_killed(trial: Trial) -> None:
    """Every process of a job has come to its own end, and the ledger knows it. Call it after `finish`."""
    truth, rows = lines_of(trial, "truth.jsonl"), lines_of(trial, "ledger.jsonl")
    assert len({row["id"] for row in rows}) > 0
    starts = {line["token"]: line for line in truth if line["edge"] == "start"}
    ended = {line["token"] for line in truth if line["edge"] == "end"}
    assert [line for token, line in starts.items() if token not in ended] == []
    odd = [row for row in rows if row["state"] in ("lost", "cancelled", "timed_out") or row["signal"]]
    assert odd == []
    again = [row for row in rows if row["attempt"] > 1]
    assert again == []


def lines_of(trial: Trial, name: str) -> list[dict[str, Any]]:
    """Return the lines of one file of a trial's history, once that is written."""
    return [json.loads(text) for text in (trial.folder / name).read_text().splitlines()]
