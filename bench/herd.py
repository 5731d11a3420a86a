"""What a fire costs the worker's daemon where many are due at one instant: processor time of its own; the first start.

    .venv/bin/python -m bench.herd [jobs [rounds]]

API, leader and worker are one process here, of which only the worker does anything meanwhile; the runner is a process
of its own, as always, and not counted. Wall times depend on whatever else the machine does.
"""

from __future__ import annotations

import sys
import time

from bench.kit.town import stores
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from tests.harness.folders import make_folder, remove_folder
from tests.harness.one_process import OneProcess

_PATIENCE_S = 120


def run(jobs: int, rounds: int) -> None:
    """Print a line for each round."""
    folder = make_folder("herd")
    try:
        with stores(zookeepers=1) as on:
            url = on.mariadb.create_database("herd")
            with OneProcess(folder, url, on.zookeeper.create_chroot()) as place:
                for number in range(rounds):
                    _round(place, 10**9 + number * jobs, jobs)
    finally:
        remove_folder(folder)


def _round(place: OneProcess, first_id: int, jobs: int) -> None:
    worker, ids = place.worker, range(first_id, first_id + jobs)
    due = f"@at {rfc3339(time.time_ns() // 1_000_000_000 * 1000 - 2000)}"
    worker.give({job_id: JobSpec("/bin/true x", due, JobType.COMMAND) for job_id in ids})
    worker.restart_runner()
    begun_s, spent_s, deadline = time.time(), time.process_time(), time.monotonic() + _PATIENCE_S
    worker.thread.look()
    while worker.journal.dirty_count() < jobs or worker.thread.ask(worker.engine.running):
        if time.monotonic() > deadline:
            raise TimeoutError("the runs did not end")
        time.sleep(0.1)
    fired_s = time.process_time() - spent_s
    starts = sorted(entry.run.started_ms or 0 for entry in worker.journal.dirty(jobs))
    while worker.journal.dirty_count():
        worker.reporter.step()
    told_s = time.process_time() - spent_s - fired_s
    first, last = (one / 1000 - begun_s for one in (starts[0], starts[-1]))
    worker.take(ids)
    sys.stdout.write(
        f"{jobs} jobs: first start after {first:.3f} s, last {last:.2f} s; processor time of a fire"
        f" {fired_s / jobs * 1000:.3f} ms, of its report {told_s / jobs * 1000:.3f} ms\n"
    )


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    run(*words, *(1000, 3)[len(words) :])
