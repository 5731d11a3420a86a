"""Measures `cronkeeper-fire` with a listening daemon: wall time, processor time and peak memory of 40 calls.

    .venv/bin/python bench/fire_client.py

Prints one line of JSON. The calls are made from a small process of their own: a child's peak memory is never reported
as less than its parent had.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cronkeeper_worker.fire_listener import FireListener, install_fire

CALLS = 40
GOAL_MS, GOAL_MIB = 30.0, 12.0

_CALLER = """
import os, sys, time
for number in range(int(sys.argv[2])):
    began = time.perf_counter()
    pid = os.posix_spawn(sys.argv[1], [sys.argv[1], str(number)], {"PATH": "/usr/bin:/bin"})
    _, status, usage = os.wait4(pid, 0)
    print((time.perf_counter() - began) * 1000, (usage.ru_utime + usage.ru_stime) * 1000, usage.ru_maxrss, status)
"""


def main() -> int:
    """Exit status 1 when a call failed or went unheard, or when a goal was missed."""
    looks: list[int] = []
    with tempfile.TemporaryDirectory(prefix="cronkeeper-bench-") as folder:
        listener = FireListener(Path(folder) / "fire.sock", looks.append)
        listener.start()
        try:
            command = install_fire(Path(folder), sys.executable)
            argv = [sys.executable, "-ISsc", _CALLER, str(command), str(CALLS)]
            lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
        finally:
            listener.stop()
    rows = [tuple(map(float, line.split())) for line in lines]
    wall, cpu, peak = ([row[column] for row in rows] for column in range(3))
    result = {
        "calls": len(rows),
        "heard": len(looks),
        "wall_ms": _spread(wall),
        "cpu_ms": _spread(cpu),
        "peak_mib": _spread([kib / 1024 for kib in peak]),
    }
    print(json.dumps(result))
    well = all(row[3] == 0 for row in rows) and looks == list(range(CALLS))
    return 0 if well and statistics.median(wall) < GOAL_MS and max(peak) / 1024 < GOAL_MIB else 1


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": round(min(values), 2), "median": round(statistics.median(values), 2), "max": round(max(values), 2)}


if __name__ == "__main__":
    sys.exit(main())
