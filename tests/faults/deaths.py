"""Deaths and pauses at chosen moments, and what the system said about them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cronkeeper.domain.instants import parse_rfc3339
from tests.faults.checker.history import FaultKind
from tests.faults.fleet import Fleet
from tests.faults.nemesis import Healing
from tests.faults.parts import part, runner_pids
from tests.faults.trial import Trial
from tests.harness.network import Fault
from tests.harness.processes import Process, ServerError, alive

T = TypeVar("T")


def wait_for(check: Callable[[], T], what: str, timeout_s: float, *, every_s: float = 0.05) -> T:
    """Return what `check` returns once that is true; raise `AssertionError` after `timeout_s`. Errors pass through."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def pause_pids(pids: Iterable[int]) -> Fault:
    """SIGSTOP these processes; healing is SIGCONT to those that are still there."""
    stopped = list(pids)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return Healing(go_on)


def pause_runner(fleet: Fleet, worker: str) -> Fault:
    """Stop a node's runner alone: what is ordered of it waits in its socket."""
    return pause_pids(runner_pids(fleet.cluster.nodes[worker]))


def kill_runner(fleet: Fleet, worker: str) -> None:
    """kill -9 a node's runner, also one that is paused; its jobs live on."""
    for pid in runner_pids(fleet.cluster.nodes[worker]):
        os.kill(pid, signal.SIGKILL)


def pause_worker(trial: Trial, worker: str) -> Fault:
    """Stop a node's runner and daemon; jobs and cron go on. The runner goes first, so that orders pile up before it."""
    runner = pause_runner(trial.fleet, worker)
    daemon = part(trial.fleet, worker)
    daemon.pause()
    return trial.note_fault(FaultKind.WORKER_PAUSED, [worker], Healing(runner.heal, daemon.resume))


@contextlib.contextmanager
def stop_inside(process: Process, syscall: str, nth: int) -> Iterator[Callable[[], bool]]:
    """Have a process get SIGSTOP at the nth call of `syscall` by one of its threads, from now on.

    What is given says whether it is stopped. After the `with` nobody traces it any more; a stop stays. Needs strace.
    """
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(process.pid), "-e", f"trace={syscall}"]
    argv += ["-e", f"inject={syscall}:signal=STOP:when={nth}"]
    tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: traced(process.pid), f"strace watches {process.name}", 10)
        yield lambda: state_of(process.pid) in ("T", "t")
    finally:
        tracer.terminate()
        _, complaint = tracer.communicate(timeout=10)
        if alive(process.pid) and traced(process.pid):
            raise ServerError(f"strace does not let go of {process.name}: {complaint.decode()}")


def traced(pid: int) -> bool:
    """Return whether somebody traces the process."""
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def state_of(pid: int) -> str:
    """Return the kernel's letter for what a process does: `T` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ------------------------------------------------------------------------------------------ what the system says


def runs_of(trial: Trial, name: str) -> list[dict[str, Any]]:
    """Return the runs of a job as the API shows them, oldest first."""
    answer = trial.fleet.cluster.get(f"/jobs/{trial.jobs[name].id}/runs?limit=5000")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json()
    return sorted(found, key=lambda run: (run["fire_time"], run["shard"], run["attempt"]))


def attempts_of(trial: Trial, name: str, fire_time: str) -> list[dict[str, Any]]:
    """Return the attempts at one fire, in their order."""
    return [run for run in runs_of(trial, name) if run["fire_time"] == fire_time]


def claimed_without_start(trial: Trial, name: str) -> list[dict[str, Any]]:
    """Return the runs of a job that are claimed and have written nothing yet: call it while the runner is paused."""
    return [
        run
        for run in runs_of(trial, name)
        if run["state"] == "claimed" and not starts_of(trial, name, run["fire_time"])
    ]


def starts_of(trial: Trial, name: str, fire_time: str) -> list[dict[str, Any]]:
    """Return the start lines of one fire's runs."""
    fire_ms = parse_rfc3339(fire_time)
    return [line for line in trial.starts(name) if parse_rfc3339(line["fire_time"]) == fire_ms]


def wait_starts(trial: Trial, name: str, count: int = 1, *, timeout_s: float = 30.0) -> None:
    """Return once a job has begun at least `count` runs in this trial."""
    wait_for(lambda: len(trial.starts(name)) >= count, f"{count} runs of {name}", timeout_s)


def lateness_s(line: dict[str, Any]) -> float:
    """Return how long after its fire time a run began, by its own start line."""
    return float(line["wall_s"]) - parse_rfc3339(line["fire_time"]) / 1000


def assert_unbroken(trial: Trial, name: str, step_s: int, *, since_s: float, until_s: float) -> list[float]:
    """Every fire of a job between two instants began exactly once; return how late each was, in seconds."""
    lines = [
        line
        for line in trial.starts(name)
        if since_s <= parse_rfc3339(line["fire_time"]) / 1000 <= until_s - trial.bounds.on_time_s
    ]
    times = [parse_rfc3339(line["fire_time"]) // 1000 for line in lines]
    assert times, (name, since_s, until_s)
    first = next(
        second
        for second in range(int(since_s), int(since_s) + step_s + 1)
        if second >= since_s and second % step_s == 0
    )
    assert sorted(times) == list(range(first, times[-1] + 1, step_s)), (name, times)
    assert max(times) > until_s - trial.bounds.on_time_s - step_s, (name, times, until_s)
    return [lateness_s(line) for line in lines]


def log_events(process: Process, event: str) -> list[dict[str, Any]]:
    """Return the lines of a service's log that carry an event; `at_ms` is when it was written."""
    found = []
    for text in process.log_text().splitlines():
        if f'"{event}"' in text and text.startswith("{"):
            line = json.loads(text)
            if line.get("event") == event:
                found.append({**line, "at_ms": parse_rfc3339(line["timestamp"])})
    return found


def elections(fleet: Fleet) -> list[tuple[int, str]]:
    """Return (epoch ms, manager) of every election so far, oldest first."""
    found = [
        (line["at_ms"], name) for name in fleet.managers for line in log_events(fleet.manager(name), "leader.elected")
    ]
    return sorted(found)


def spread(values: Iterable[float]) -> str:
    """Return count, least, middle and greatest of some seconds, for the printed figures."""
    ordered = sorted(values)
    return (
        f"{len(ordered)} values, min {ordered[0]:.1f}, median {ordered[len(ordered) // 2]:.1f}, max {ordered[-1]:.1f} s"
    )
