"""The floor (see `floor`), served behind a HAProxy of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.kit.floor import TABLE
from bench.kit.load import load, request
from bench.kit.processes import with_offspring
from bench.kit.town import Stores, never_due
from tests.harness.cluster import Cluster
from tests.harness.folders import make_folder, remove_folder
from tests.harness.haproxy import HAProxy
from tests.harness.ports import free_port
from tests.harness.processes import Process

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Floor:
    """HAProxy's port, its process, and those of the servers."""

    port: int
    haproxy: int
    servers: frozenset[int]


@contextmanager
def floor(on: Stores, cluster: Cluster) -> Iterator[Floor]:
    """Serve the floor on the cluster's own stores."""
    folder = make_folder("floor")
    on.mariadb.execute(TABLE, cluster.database)
    env, url = cluster.env, on.mariadb.url(cluster.database)
    binds = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    servers = [
        Process(
            f"floor-{number}",
            [sys.executable, "-m", "bench.kit.floor", bind, url, on.zookeeper.hosts],
            log_path=folder / f"floor-{number}.log",
            env={"PATH": env["PATH"]},
            cwd=_ROOT,
        ).start()
        for number, bind in enumerate(binds)
    ]
    try:
        with HAProxy(*binds) as haproxy:
            body = json.dumps(never_due(0) | {"name": "first"}).encode()
            haproxy.process.wait_until(
                lambda: load(haproxy.port, 1, 0, lambda _: request("POST", "/jobs", "x", body)).bad == 0,
                timeout_s=60,
                what="ready",
            )
            pids = frozenset(with_offspring(server.pid for server in servers))
            yield Floor(haproxy.port, haproxy.process.pid, pids)
    finally:
        for server in servers:
            server.stop()
        remove_folder(folder)
