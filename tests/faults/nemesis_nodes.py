"""What can be done to a node's clock, disks and fsync. Clocks and disks need a fleet that was made with them."""

from __future__ import annotations

import contextlib
import errno
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.operation import Healing, Operation
from tests.faults.parts import runner_pids
from tests.harness.cron import CRON_D, Node
from tests.harness.network import Fault
from tests.harness.processes import Process, ServerError

_BALLAST = ".ballast"
_BLOCK = 65536
_FSYNC_DELAY_S = 1.0


def step_clock(fleet: Fleet, operation: Operation) -> Fault:
    """Set the targets' wall clocks by `how` seconds, such as `+600` or `-30`, at once; healing sets them right."""
    clocks = [fleet.clocks[name] for name in operation.targets]
    for clock in clocks:
        clock.set(clock.offset_s + float(operation.how or "+30"))
    return Healing(*(_setter(clock.set) for clock in clocks))


def _setter(set_offset: Callable[[float], None]) -> Callable[[], None]:
    return lambda: set_offset(0.0)


def fill_disk(fleet: Fleet, operation: Operation) -> Fault:
    """Leave no byte free on a disk of the targets: `state`, `tmp` or `cron`."""
    return _filled(fleet, operation, fill)


def use_up_inodes(fleet: Fleet, operation: Operation) -> Fault:
    """Leave no inode free on a disk of the targets: `state`, `tmp` or `cron`."""
    return _filled(fleet, operation, use_inodes)


def slow_disk(fleet: Fleet, operation: Operation) -> Fault:
    """Let each fsync of the targets' workers and runners take `how` seconds longer (1 unless told)."""
    delay_us = int(float(operation.how or _FSYNC_DELAY_S) * 1_000_000)
    tracers = [_trace(fleet, name, delay_us) for name in operation.targets]
    return Healing(*(tracer.stop for tracer in tracers))


def _trace(fleet: Fleet, name: str, delay_us: int) -> Process:
    program = shutil.which("strace")
    if program is None:
        raise ServerError("strace is not installed; run deploy/install-packages test")
    pids = [fleet.cluster.workers[name].pid, *runner_pids(fleet.cluster.nodes[name])]
    argv = [program, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]
    argv += ["-e", f"inject=fsync,fdatasync:delay_exit={delay_us}"]
    argv += [word for pid in pids for word in ("-p", str(pid))]
    return Process(f"strace-{name}", argv, log_path=fleet.cluster.folder / f"strace-{name}.log").start()


def exhaust_files(fleet: Fleet, operation: Operation) -> Fault:
    """Let the targets' `worker` or `runner` (unless told: both) open no file more than it has open."""
    steps = []
    for name in operation.targets:
        pids = {"worker": [fleet.cluster.workers[name].pid], "runner": runner_pids(fleet.cluster.nodes[name])}
        for pid in pids[operation.how] if operation.how else [*pids["worker"], *pids["runner"]]:
            limits = _files_limits(pid)
            # The limit is one of numbers: a free one below the highest that is in use would be given out still.
            used = {int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir()}
            lowest_free = next(number for number in range(limits[1]) if number not in used)
            _limit_files(pid, (lowest_free, limits[1]))
            steps.append(_limiter(pid, limits))
    return Healing(*steps)


def _limiter(pid: int, limits: tuple[int, int]) -> Callable[[], None]:
    def limit() -> None:
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            _limit_files(pid, limits)

    return limit


def _files_limits(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard = next(line for line in lines if line.startswith("Max open files")).split()[3:5]
    return int(soft), int(hard)


def _limit_files(pid: int, limits: tuple[int, int]) -> None:
    """Set the limit as the process's own account: in some containers root may not set those of others."""
    owner = Path(f"/proc/{pid}").stat()
    argv = ["prlimit", f"--pid={pid}", f"--nofile={limits[0]}:{limits[1]}"]
    subprocess.run(argv, user=owner.st_uid, group=owner.st_gid, extra_groups=[], check=True)


def _filled(fleet: Fleet, operation: Operation, use: Callable[[Path], None]) -> Fault:
    steps = []
    for name in operation.targets:
        folder = _disk(fleet, name, operation.how or "state")
        use(folder)
        steps.append(_remover(folder / _BALLAST))
    return Healing(*steps)


def _disk(fleet: Fleet, name: str, which: str) -> Path:
    node: Node = fleet.cluster.nodes[name]
    return node.inside({"state": str(fleet.cluster.state_dir(name)), "tmp": "/tmp", "cron": CRON_D}[which])


def _remover(path: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(path, ignore_errors=True)


def fill(folder: Path) -> None:
    """Write until not a byte is left."""
    ballast = folder / _BALLAST
    ballast.mkdir()
    with (ballast / "block").open("wb", buffering=0) as file:
        size = _BLOCK
        while size:
            try:
                if file.write(bytes(size)) < size:
                    size //= 2
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                size //= 2


def use_inodes(folder: Path) -> None:
    """Make files until there is no inode left."""
    ballast = folder / _BALLAST
    ballast.mkdir()
    number = 0
    while True:
        try:
            (ballast / str(number)).touch()
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            return
        number += 1
