"""The API through HAProxy: POST, GET and a page of 50, with 1, 8 and 32 clients, at several numbers of jobs.

Beside it, in turn, a bare Flask handler that does one committed insert and creates one znode for each POST: the
floor, on the same MariaDB, the same three ZooKeeper servers, behind the same HAProxy, with as many processes and
threads. Each stretch lasts some seconds; a ratio is that of two neighbouring stretches. Bulk is one `POST /apply` of
10,000 jobs (see bench/bulk.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from bench import bulk
from bench.kit.figures import Figure, Options, ratios
from bench.kit.floors import floor
from bench.kit.load import Load, load, request
from bench.kit.town import apply, fleet, never_due, stores
from tests.harness.cluster import Cluster

_CLIENTS = (1, 8, 32)
_BULK = 10_000
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long stretches last, in seconds, and how many there are of each."""

    seconds: float
    rounds: int
    clients: tuple[int, ...]


def run(options: Options) -> Iterator[Figure]:
    """Measure at each size, the smallest first: the jobs of one are among those of the next."""
    sizes = (100, 1_000) if options.quick else (100, *options.sizes)
    lengths = Lengths(2, 1, (8,)) if options.quick else Lengths(5, options.rounds, _CLIENTS)
    pages: dict[int, float] = {}
    with stores() as on, fleet(on, workers=0, managers=0, apis=2) as cluster, floor(on, cluster) as beside:
        there = 0
        for size in sizes:
            apply(cluster, [never_due(number) for number in range(there, size)])
            there = size
            for clients in lengths.clients:
                yield from _posts(cluster, beside.port, size, clients, lengths)
            for clients in lengths.clients:
                yield from _reads(cluster, size, clients, lengths, pages)
        yield from bulk.measure(on, cluster, 1_000 if options.quick else _BULK, lengths.rounds)
    few, many = sizes[min(1, len(sizes) - 2)], sizes[-1]
    yield Figure(f"page of 50 at {many:,} jobs ÷ at {few:,}", "", (pages[many] / pages[few],), 1.1)


def new_job(token: str) -> bytes:
    """Return a POST of a job that nobody has yet."""
    job = never_due(number := next(_names)) | {"name": f"posted-{number}"}
    return request("POST", "/jobs", token, json.dumps(job).encode())


def _port(cluster: Cluster) -> int:
    assert cluster.haproxy is not None
    return cluster.haproxy.port


def checked(done: Load) -> Load:
    """Return what was done, if all of it was."""
    assert done.bad == 0, f"answers that were no success: {done.statuses}"
    return done


def _posts(cluster: Cluster, floor_port: int, size: int, clients: int, lengths: Lengths) -> list[Figure]:
    ours, theirs = [], []
    for _ in range(lengths.rounds):
        ours.append(checked(load(_port(cluster), clients, lengths.seconds, lambda _: new_job(cluster.token))))
        theirs.append(checked(load(floor_port, clients, lengths.seconds, lambda _: new_job("x"))))
    what = f"POST /jobs, {clients} client{'s' if clients > 1 else ''}, at {size:,} jobs"
    rates, floors = [one.rate for one in ours], [one.rate for one in theirs]
    return [
        Figure(f"{what}: a second", "", tuple(rates)),
        Figure(f"{what}: p99", "ms", tuple(one.at(0.99) for one in ours)),
        Figure(f"{what}: the floor's, a second", "", tuple(floors)),
        ratios(f"{what}: ÷ the floor's", rates, floors, 1.0, at_least=True),
    ]


def _reads(cluster: Cluster, size: int, clients: int, lengths: Lengths, pages: dict[int, float]) -> list[Figure]:
    first = cluster.get("/jobs?limit=1").json()[0]["id"]
    # The page at the end: a reader of all jobs gets there.
    last = max(int(one["id"]) for one in cluster.get(f"/jobs?limit=200&after={int(first) + size - 60}").json())
    one = request("GET", f"/jobs/{first}", cluster.token)
    page = request("GET", f"/jobs?limit=50&after={last - 55}", cluster.token)
    found = []
    for what, sent in (("GET one job", one), ("page of 50, the last", page)):
        done = [
            checked(load(_port(cluster), clients, lengths.seconds, lambda _, sent=sent: sent))  # type: ignore[misc]
            for _ in range(lengths.rounds)
        ]
        words = f"{what}, {clients} client{'s' if clients > 1 else ''}, at {size:,} jobs"
        found.append(Figure(f"{words}: a second", "", tuple(load.rate for load in done)))
        found.append(Figure(f"{words}: median", "ms", tuple(load.at(0.5) for load in done)))
        if sent is page and clients == lengths.clients[0]:
            pages[size] = found[-1].median
    return found
