"""A soak: an hour at 200 fires a second, with each part restarted in turn every few minutes, judged by the checker.

A fleet of three workers, two managers and one API server in network namespaces of its own. Every job writes down its
own starts and ends, each with a sync; the checker of the fault trials compares that with what was due and with the
ledger. Memory, descriptors, znodes, watches and rows are looked at each minute; a slope is the last third's median over
the first third's.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.kit.figures import Figure, Options
from bench.kit.probe import build
from bench.kit.processes import memory_mib, open_files
from tests.faults.checker.history import FaultKind
from tests.faults.fleet import Fleet
from tests.faults.trial import Trial
from tests.harness.folders import make_folder, remove_folder

_RATE, _SECONDS, _RESTART_EVERY_S = 200, 3600, 180
_FLAT = 1.15


@dataclass(frozen=True, slots=True)
class Look:
    """What was there at one instant."""

    memory_mib: float
    files: float
    znodes: float
    watches: float
    rows: float


def run(options: Options) -> list[Figure]:
    """Measure an hour, or with `quick` two minutes at 20 fires a second."""
    rate, seconds, every_s = (20, 120, 40) if options.quick else (_RATE, _SECONDS, _RESTART_EVERY_S)
    folder, ok = make_folder("soak"), False
    try:
        probe = build(folder)
        with Fleet() as fleet, Trial(fleet, folder / "history", keeps_jobs=True, probe=probe) as trial:
            # Each job fires every ten seconds, in one of ten groups.
            names = [f"soak-{number}" for number in range(rate * 10)]
            for group in range(10):
                trial.post_herd(names[group::10], schedule=f"{group}-59/10 * * * * *", grace_s=60)
            trial.wait(seconds / 60 + 15)
            looks, restarts = _watch(trial, seconds, every_s)
            ok = trial.finish(demand=False).ok
    finally:
        # What was found wrong is to be looked at.
        if ok:
            remove_folder(folder)
    what = f"{rate} fires a second for {seconds} s, {restarts} restarts"
    slopes = {name: _slope([getattr(look, name) for look in looks]) for name in Look.__slots__ if name != "rows"}
    return [
        Figure(f"{what}: found wrong by the checker", "", (0.0 if ok else 1.0,), 0),
        *(
            Figure(f"{what}: {name.replace('_mib', '')}, end ÷ begin", "", (slope,), _FLAT)
            for name, slope in slopes.items()
        ),
        Figure(f"{what}: rows of the ledger at the end", "", (looks[-1].rows,)),
    ]


def _watch(trial: Trial, seconds: int, every_s: int) -> tuple[list[Look], int]:
    """Restart one part after the other, and look at everything each minute."""
    fleet = trial.fleet
    turns = [
        *((FaultKind.WORKER_KILLED, name) for name in fleet.workers),
        *((FaultKind.LEADER_KILLED, name) for name in fleet.managers),
        *((FaultKind.API_KILLED, name) for name in fleet.apis),
        *((FaultKind.ZOOKEEPER_MEMBER_DOWN, name) for name in fleet.zookeepers),
        (FaultKind.MYSQL_DOWN, "mysql"),
    ]
    looks, restarts, until_s, next_s = [_look(fleet)], 0, time.monotonic() + seconds, time.monotonic() + every_s
    while time.monotonic() < until_s:
        trial.wait(min(60.0, max(1.0, next_s - time.monotonic())))
        looks.append(_look(fleet))
        if time.monotonic() >= next_s:
            kind, target = turns[restarts % len(turns)]
            with trial.fault(kind, [target]):
                trial.wait(2)
            restarts, next_s = restarts + 1, next_s + every_s
    return looks, restarts


def _look(fleet: Fleet) -> Look:
    cluster = fleet.cluster
    pids = [part.pid for part in (*cluster.apis, *cluster.managers, *cluster.workers.values()) if part.running]
    counts = [_zookeeper(member.hosts) for member in fleet.zookeeper.members if member.pid is not None]
    rows = fleet.mariadb.execute("SELECT COUNT(*) FROM `runs`", cluster.database)[0][0]
    return Look(
        sum(memory_mib(pid)[1] for pid in pids),
        sum(open_files(pid) for pid in pids),
        max((znodes for znodes, _ in counts), default=0),
        sum(watches for _, watches in counts),
        float(str(rows)),
    )


def _zookeeper(address: str) -> tuple[float, float]:
    """Return a member's znodes and watches, by its own word."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"mntr")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    found = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return float(found.get("zk_znode_count", 0)), float(found.get("zk_watch_count", 0))


def _slope(values: Sequence[float]) -> float:
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / max(1e-9, statistics.median(values[:third]))
