"""Deaths at the boundaries of a process's system calls: before an fsync, a rename, a write to a socket (T60)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cronkeeper_worker import node_files
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import traced, wait_for, wait_starts
from tests.faults.operation import Healing
from tests.faults.parts import runner_pids
from tests.faults.trial import Trial
from tests.faults.workload import GRACE_S
from tests.harness.processes import alive

#: A call that is not made within so long is not on the way of this process.
REACHED_S = 12.0
_ATTACH_S = 10.0
#: A runner makes the processes of other accounts in a thread of its own, which is there from the first of them on.
OF_A_THREAD = frozenset({"clone"})


@dataclass(frozen=True, slots=True)
class Failpoint:
    """kill -9 at the nth of these calls that one thread makes; the call itself is not carried out."""

    syscall: str
    nth: int

    def __str__(self) -> str:
        return f"{self.syscall}:{self.nth}"


def points(calls: Iterable[str], numbers: Iterable[int]) -> list[Failpoint]:
    """Return a failpoint at each of these numbers of each of these calls."""
    counted = list(numbers)
    return [Failpoint(call, nth) for call in calls for nth in counted]


def workload(trial: Trial) -> str:
    """Post jobs of both kinds of delivery, long and short, and return their worker: it is the same for all.

    Those that queue are required to run at every fire; the others may skip while it is not known how a run ended.
    """
    fields: dict[str, Any] = {"grace_s": GRACE_S, "selector": "zone == a"}
    every: dict[str, Any] = {**fields, "misfire": "all", "concurrency": "queue"}
    trial.post("tick", schedule="*/2 * * * * *", **fields)
    trial.post("every", schedule="*/3 * * * * *", **every)
    trial.post("once", schedule="1-59/2 * * * * *", delivery="at_most_once", **every)
    trial.post("long", schedule="*/10 * * * * *", sleep_s=3, exit_status=4, **fields)
    trial.post("minute", schedule="* * * * *", **fields)
    (worker,) = {trial.owner(name) for name in trial.jobs}
    wait_starts(trial, "every", 2)
    return worker


def watched(pid: int) -> list[str]:
    """Return strace's options for all threads that a process has."""
    with contextlib.suppress(FileNotFoundError):  # it has ended
        return [word for tid in os.listdir(f"/proc/{pid}/task") for word in ("-p", tid)]
    return ["-p", str(pid)]


@contextlib.contextmanager
def killed_inside(pid: int, point: Failpoint, *, threads: bool) -> Iterator[Callable[[], bool]]:
    """Have a process killed at a failpoint. What is given says whether it is dead. Needs strace.

    Each thread counts for itself. With `threads` so do those that are still to come, and what the process forks is
    counted and killed too.
    """
    argv = ["strace", "-qq", "-o", os.devnull, *(["-f"] if threads else []), *watched(pid)]
    argv += ["-e", f"trace={point.syscall}", "-e", f"inject={point.syscall}:signal=KILL:when={point.nth}"]
    tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: not alive(pid) or traced(pid), f"strace watches {pid}", _ATTACH_S, every_s=0.01)
        yield lambda: not alive(pid)
    finally:
        tracer.terminate()
        try:
            tracer.wait(2)
        except subprocess.TimeoutExpired:
            # It waits for a thread to stop that died meanwhile. The kernel lets go of all that a dead tracer held.
            tracer.kill()
            tracer.wait()


def sweep_worker(trial: Trial, worker: str, wanted: Iterable[Failpoint]) -> list[Failpoint]:
    """kill -9 a worker's daemon at each point, counted from when it has a journal; return those that it came to."""
    process = trial.fleet.cluster.workers[worker]
    reached = []
    process.kill(group=False)
    fault = trial.note_fault(FaultKind.WORKER_KILLED, [worker], Healing(process.start))
    for point in wanted:
        fault.heal()
        # From here on: what a daemon does at its start is the more delicate half. Its imports under strace take long.
        wait_for(lambda: _has_journal(process.pid), "the daemon opens its journal", 30, every_s=0.005)
        with killed_inside(process.pid, point, threads=True) as is_dead:
            dead = _within(REACHED_S, is_dead)
        process.kill(group=False)
        fault = trial.note_fault(FaultKind.WORKER_KILLED, [worker], Healing(process.start))
        reached += [point] if dead else []
    fault.heal()
    return reached


def sweep_runner(trial: Trial, worker: str, wanted: Iterable[Failpoint]) -> list[Failpoint]:
    """kill -9 a worker's runner at each point, counted from when it has been found anew; return those it came to."""
    node = trial.fleet.cluster.nodes[worker]
    reached = []
    _kill_runner(trial, worker)
    for point in wanted:
        pid = wait_for(lambda: runner_pids(node), "there is a runner", 20)[0]
        if point.syscall in OF_A_THREAD:
            wait_for(partial(_has_threads, pid), "the runner has made a run", 20)
        with killed_inside(pid, point, threads=False) as is_dead:
            dead = _within(REACHED_S, is_dead)
        if dead:
            reached.append(point)
            trial.note_fault(FaultKind.RUNNER_KILLED, [worker], Healing())
        else:
            _kill_runner(trial, worker)
    return reached


def _kill_runner(trial: Trial, worker: str) -> None:
    """Have the next point be counted from the start of a runner, which is the more delicate half."""
    for pid in runner_pids(trial.fleet.cluster.nodes[worker]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for(partial(_is_gone, pid), "the runner is dead", 10, every_s=0.01)
    trial.note_fault(FaultKind.RUNNER_KILLED, [worker], Healing())


def _is_gone(pid: int) -> bool:
    return not alive(pid)


def _has_threads(pid: int) -> bool:
    return not alive(pid) or len(watched(pid)) > 2


def _has_journal(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(os.readlink(fd).endswith(f"/{node_files.JOURNAL}") for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _within(timeout_s: float, check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False
