"""What a control group for each run costs a start, in turns with none, and what moving a process costs. Needs root.

    .venv/bin/python -m bench.control_groups [starts]

Alone: one start every 0.3 s, as most fires are; the time until it is told. In a crowd: all at one instant; the median.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time

from cronkeeper_worker.control_groups import own_group
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Order, Started
from tests.harness.folders import make_folder, remove_folder

ROUNDS = 5


def starts(count: int, gap_s: float, *, groups: bool) -> tuple[float, float]:
    """Return milliseconds of a start: the median until it is told, and of our processor time."""
    folder = make_folder("bench-groups")
    executor = Executor(str(folder))
    if not groups:
        executor.groups.close()
    waits: list[float] = []
    cpu, ended, begun = time.process_time(), 0, 0.0

    def poll() -> None:
        nonlocal ended
        for event in executor.poll(0.2):
            if isinstance(event, Started):
                waits.append(time.perf_counter() - begun)
            ended += isinstance(event, Ended)

    begun = time.perf_counter()
    for number in range(count):
        if gap_s:
            time.sleep(gap_s)
            begun = time.perf_counter()
        executor.start(Order(f"{number}-0-1-1", "n", command="true", run_as="nobody"))
        while gap_s and ended <= number:
            poll()
    while ended < count or not executor.idle:
        poll()
    executor.close()
    remove_folder(folder)
    return statistics.median(waits) * 1000, (time.process_time() - cpu) / count * 1000


def moves(name: str, gap_s: float) -> float:
    """Return the median milliseconds in which we, one thread, step into a group."""
    top = os.path.join(own_group(), f"cronkeeper.bench-{os.getpid()}")
    for path in (top, f"{top}/a", f"{top}/b"):
        os.mkdir(path)
    if name == "cgroup.threads":
        for place in "ab":
            write(f"{top}/{place}/cgroup.type", "threaded")
        write(f"{top}/cgroup.procs", "0")
    found = []
    try:
        for number in range(31):
            time.sleep(gap_s)
            begun = time.perf_counter()
            write(f"{top}/{'ab'[number % 2]}/{name}", "0")
            found.append(time.perf_counter() - begun)
    finally:
        write(f"{os.path.dirname(top)}/cgroup.procs", "0")
        for path in (f"{top}/a", f"{top}/b", top):
            with contextlib.suppress(OSError):
                os.rmdir(path)
    return statistics.median(found) * 1000


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def main(count: int) -> None:
    for what, name in (("a process", "cgroup.procs"), ("a thread of ours", "cgroup.threads")):
        alone, crowd = moves(name, 0.3), moves(name, 0.0)
        print(f"moving {what}: {alone:.3f} ms alone, {crowd:.3f} ms at once after another")
    for what, number, gap_s in (("alone", 20, 0.3), ("in a crowd", count, 0.0)):
        found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for groups, pairs in found.items():
                pairs.append(starts(number, gap_s, groups=groups))
        for groups, pairs in found.items():
            wait, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
            kind = f"{what}, {'with' if groups else 'without'} groups"
            print(f"{kind}: told after {wait:.2f} ms, {cpu:.2f} ms of processor time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
