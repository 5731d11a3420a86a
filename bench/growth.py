"""Growth: the exponent of each cost between the smallest and the largest number of jobs.

An API, a leader and a worker in one process over real stores, so that each step is told from the next; wall time of
each step, medians of several. The exponent is the slope of the logarithm of the cost over that of the number of
jobs: 0 is flat, 1 is in proportion. The same steps, counted in operations, are a test of the continuous integration:
`tests/integration/test_operation_counts.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from bench.kit.figures import Figure, Options, exponent
from bench.kit.town import never_due, stores
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from tests.harness.folders import make_folder, remove_folder
from tests.harness.one_process import OneProcess

_FLAT, _LINEAR = 0.1, 1.05
_FIRES = 50
_GOALS = {
    "POST": _FLAT,
    "edit: PATCH": _FLAT,
    "edit: the leader's turn": _FLAT,
    "edit: the worker's look, to its journal": _FLAT,
    "page of 50": _FLAT,
    "a fire, of 50 at once": _FLAT,
    "turn at rest": _FLAT,
    "full look": _LINEAR,
}


def run(options: Options) -> Iterator[Figure]:
    """Measure at each size, in one tree and one database that grow."""
    sizes = (100, 1_000) if options.quick else options.sizes
    folder = make_folder("growth")
    costs: dict[str, list[float]] = {name: [] for name in _GOALS}
    try:
        with stores(zookeepers=1) as on:
            url = on.mariadb.create_database("growth")
            with OneProcess(folder, url, on.zookeeper.create_chroot()) as place:
                there = 0
                for number, size in enumerate(sizes):
                    for first in range(there, size, 1_000):
                        place.apply([never_due(n) for n in range(first, min(first + 1_000, size))])
                    there = size
                    place.settle(size, patience_s=120 + size / 100)
                    found = _steps(place, number, 3 if options.quick else 3 * options.rounds)
                    for name, took_s in found.items():
                        costs[name].append(took_s)
                        yield Figure(f"{name}, at {size:,} jobs", "ms", (took_s * 1000,))
    finally:
        remove_folder(folder)
    for name, goal in _GOALS.items():
        yield Figure(f"exponent: {name}", "", (exponent(sizes, costs[name]),), goal)


def _steps(place: OneProcess, number: int, times: int) -> dict[str, float]:
    """Return the median seconds of each step, at the present number of jobs."""
    found: dict[str, list[float]] = {name: [] for name in _GOALS}

    def clocked(name: str, step: Callable[[], object]) -> None:
        begun_s = time.perf_counter()
        step()
        found[name].append(time.perf_counter() - begun_s)

    first = place.api.call("GET", "/jobs?limit=1")[0]["id"]
    for turn in range(times):
        posted = never_due(0) | {"name": f"posted-{number}-{turn}"}
        clocked("POST", lambda posted=posted: place.api.call("POST", "/jobs", posted))  # type: ignore[misc]
        job_id = place.api.call("GET", f"/jobs?q={posted['name']}&limit=1")[0]["id"]
        place.api.call("DELETE", f"/jobs/{job_id}?purge=1")
        place.step()
        place.step()
        clocked("page of 50", lambda: place.api.call("GET", f"/jobs?limit=50&after={first}"))
        clocked("turn at rest", place.leader.step)
        change = {"description": f"{number}-{turn}"}
        clocked("edit: PATCH", lambda change=change: place.api.call("PATCH", f"/jobs/{first}", change))  # type: ignore[misc]
        clocked("edit: the leader's turn", place.leader.step)
        clocked("edit: the worker's look, to its journal", place.worker.agent.step)
        place.leader.clock.forward(61)
        clocked("full look", place.leader.step)
        _fire(place, 10**9 + (number * 1000 + turn) * _FIRES, clocked)
    return {name: statistics.median(all_) for name, all_ in found.items()} | {
        "a fire, of 50 at once": statistics.median(found["a fire, of 50 at once"]) / _FIRES
    }


def _fire(place: OneProcess, first_id: int, clocked: Callable[[str, Callable[[], object]], None]) -> None:
    due = f"@at {rfc3339(time.time_ns() // 1_000_000 // 1000 * 1000 - 2000)}"
    ids = range(first_id, first_id + _FIRES)
    place.worker.give({job_id: JobSpec("true", due, JobType.COMMAND) for job_id in ids})
    place.worker.restart_runner()
    clocked("a fire, of 50 at once", lambda: place.worker.fire(_FIRES))
    place.worker.take(ids)
