"""How long `cronkeeper standalone` takes to be ready and to run a first job, and how much memory it holds.

    .venv/bin/python bench/standalone.py [RUNS]

Each run starts in a fresh folder. "ready" is counted from the start of the process, "first job" from the POST of the
job to the end of its first run, asked for at once. Memory is the sum over all its processes, ZooKeeper's JVM included,
5 s after that: RSS counts shared pages once for each process, PSS once in all. The machine's crontab is not touched
beyond the time of a run: the entries leave with the worker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TAG = "CRONKEEPER_BENCH_RUN"


@dataclass(frozen=True, slots=True)
class Measure:
    ready_s: float
    first_job_s: float
    rss_mb: float
    pss_mb: float
    processes: int


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found = []
    for number in range(runs):
        found.append(measure())
        print(f"run {number + 1}: {found[-1]}", flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors; minimum / median / maximum:")
    for name in Measure.__slots__:
        values = [float(getattr(item, name)) for item in found]
        print(f"  {name:<12} {min(values):8.2f} {statistics.median(values):8.2f} {max(values):8.2f}")
    return 0


def measure() -> Measure:
    with tempfile.TemporaryDirectory(prefix="cronkeeper-bench-") as folder:
        ready = Path(folder) / "ready"
        tag = str(time.time_ns())
        path = ":".join(str(ROOT / part) for part in ("core", "api", "manager", "worker", "cli"))
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "cronkeeper_cli.main", "standalone", "--port", str(free_port())),
                *("--data-dir", f"{folder}/data", "--ready-file", str(ready)),
            ],
            env={**os.environ, "PYTHONPATH": path, TAG: tag},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(ready.exists, 60.0, child)
            told = json.loads(ready.read_text())
            first_job_s = run_first_job(told["url"], Path(told["token_file"]).read_text().strip())
            time.sleep(5.0)
            pids = tagged(tag)
            return Measure(told["ready_s"], first_job_s, memory_mb(pids, "Rss"), memory_mb(pids, "Pss"), len(pids))
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(30)


def run_first_job(url: str, token: str) -> float:
    """Post a job, ask for a run, and return the seconds until the run has ended."""

    def call(method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    begun = time.monotonic()
    job = call("POST", "/jobs", {"executable": "echo hello", "schedule": "0 0 1 1 *", "type": "command"})
    asked = call("POST", f"/jobs/{job['id']}/run", {})
    run_id = (asked[0] if isinstance(asked, list) else asked)["id"]
    while (run := call("GET", f"/runs/{run_id}"))["state"] in ("pending", "claimed", "running"):
        if time.monotonic() - begun > 60:
            raise SystemExit(f"the first job did not run: {run}")
        time.sleep(0.01)
    if run["state"] != "succeeded":
        raise SystemExit(f"the first job did not succeed: {run}")
    return time.monotonic() - begun


def tagged(tag: str) -> list[int]:
    """Return the processes that carry our mark in their environment, however they were started."""
    needle = f"{TAG}={tag}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if needle in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def memory_mb(pids: list[int], kind: str) -> float:
    total_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024


def wait_for(check: Any, timeout_s: float, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("standalone did not come up")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
