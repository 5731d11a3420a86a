"""What processes have cost so far, by the kernel's own account: processor time with all that they have waited for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def with_offspring(roots: Iterable[int]) -> set[int]:
    """Return these processes and all that descend from them and live."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int(_stat(int(folder.name))[1])
            except OSError:  # it ended meanwhile
                continue
    found = {pid for pid in roots if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found


def processor_ms(pids: Iterable[int]) -> float:
    """Return the processor time of these processes and of their children that have ended, in milliseconds.

    A child's time comes to its parent when that takes note of its end; so nothing is lost as long as the parents are
    among the processes.
    """
    total = 0.0
    for pid in pids:
        try:
            total += sum(map(int, _stat(pid)[11:15])) * _TICK_MS
        except OSError:
            continue
    return total


def memory_mib(pid: int) -> tuple[float, float]:
    """Return RSS and PSS: shared pages count whole in the one, and as their share in the other."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) / 1024
    return found["Rss"], found["Pss"]


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
