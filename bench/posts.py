"""`POST /jobs` by 8 clients over HAProxy: this version, another one beside it, and the floor, in turns, in one run.

    .venv/bin/python -m bench.posts [ROUNDS] [SECONDS] [OTHER]

OTHER is a checkout of another version in which `tests/run setup` has been run. Each has two API servers, all stand on
one MariaDB and three ZooKeeper servers; what the floor is says `bench/api.py`. Beside each rate stands the processor
time for each POST of the API servers, HAProxy, MariaDB, ZooKeeper and the clients: on a busy machine it says more.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.api import checked, new_job
from bench.kit import report
from bench.kit.figures import Figure, ratios
from bench.kit.floors import floor
from bench.kit.load import load
from bench.kit.processes import processor_ms, with_offspring
from bench.kit.town import Stores, apply, fleet, never_due, stores
from tests.harness.cluster import CRONKEEPER, Cluster

_CLIENTS, _JOBS = 8, 1_000
_SUM = "all of these"


@dataclass(frozen=True, slots=True)
class _Side:
    """Where to post to, with which token, and whose processor time that is."""

    port: int
    token: str
    parts: Mapping[str, set[int]]


def measure(sides: Mapping[str, _Side], rounds: int, seconds: float) -> list[Figure]:
    """Measure each in turn; the first time only warms up."""
    rates, costs = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for round_ in range(-1, rounds):
        for name, side in sides.items():
            before = {part: processor_ms(pids) for part, pids in side.parts.items()}
            done = checked(load(side.port, _CLIENTS, seconds, lambda _, side=side: new_job(side.token)))  # type: ignore[misc]
            if round_ < 0:
                continue
            rates[name].append(done.rate)
            spent = {part: (processor_ms(side.parts[part]) - ms) / len(done.took_s) for part, ms in before.items()}
            for part, ms in {**spent, _SUM: sum(spent.values())}.items():
                costs[f"{name}: processor time of a POST, {part}"].append(ms)
    first = next(iter(rates))
    return [
        *(Figure(f"{name}: POSTs a second", "", tuple(values)) for name, values in rates.items()),
        *(ratios(f"{first} beside {name}", rates[first], rates[name], 1.0, at_least=True) for name in [*rates][1:]),
        *(Figure(what, "ms", tuple(values)) for what, values in costs.items()),
    ]


def _side(on: Stores, port: int, token: str, servers: set[int], haproxy: int) -> _Side:
    stores = {"MariaDB": {on.mariadb.process.pid}, "ZooKeeper": set(on.zookeeper.pids)}
    return _Side(port, token, {"API servers": servers, "HAProxy": {haproxy}, **stores, "clients": {os.getpid()}})


def _side_of(on: Stores, cluster: Cluster) -> _Side:
    assert cluster.haproxy is not None
    apply(cluster, [never_due(number) for number in range(_JOBS)])
    servers = with_offspring(server.pid for server in cluster.apis)
    return _side(on, cluster.haproxy.port, cluster.token, servers, cluster.haproxy.process.pid)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    programs = {"this version": CRONKEEPER}
    if len(sys.argv) > 3:
        programs["the other"] = str(Path(sys.argv[3]).resolve() / ".venv/bin/cronkeeper")
    with stores() as on, ExitStack() as stack:
        clusters = {
            name: stack.enter_context(fleet(on, workers=0, managers=0, apis=2, program=program))
            for name, program in programs.items()
        }
        beside = stack.enter_context(floor(on, clusters["this version"]))
        for cluster in clusters.values():
            cluster.wait(lambda cluster=cluster: cluster.get("/readyz").status == 200, "the API is ready", 60)  # type: ignore[misc]
        sides = {name: _side_of(on, cluster) for name, cluster in clusters.items()}
        sides["the floor"] = _side(on, beside.port, "x", set(beside.servers), beside.haproxy)
        before = os.getloadavg()[0]
        report.show("posts", measure(sides, rounds, seconds))
        sys.stdout.write(f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after\n")


if __name__ == "__main__":
    main()
