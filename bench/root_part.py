"""What the root part of a worker costs, beside a runner that believes whatever it is told. Needs root.

    .venv/bin/python -m bench.root_part [starts]

Each burst is so many jobs due at one instant, as `nobody`, of a generation each that was never seen before (shown by
the daemon, or not), or of one that ran before. Processor time is that of the runner alone, without its jobs.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from pathlib import Path

from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.runtime.config import load
from cronkeeper.wire.task import Signer, Task
from cronkeeper_worker import root_start
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.orders import TOLD, Ended, Order, RunnerEvent, Started
from cronkeeper_worker.runner_client import RunnerClient
from tests.harness.folders import make_folder, remove_folder

_SIGNER = Signer.from_seed(bytes(range(32)))
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ROUNDS = 5


class Desk:
    """A runner in a folder, and what it tells."""

    def __init__(self, top: Path, *, signed: bool) -> None:
        self.started: dict[str, float] = {}
        self.ended: set[str] = set()
        self.client = RunnerClient(top, self._hear, signed=signed)
        self.client.ensure()
        (self.pid,) = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(top).encode() in (words := path.read_bytes().split(b"\0")) and words[0] != b"/bin/sh"
        ]

    def _hear(self, event: RunnerEvent) -> None:
        if isinstance(event, Started):
            self.started[event.run_id] = time.monotonic()
        elif isinstance(event, Ended):
            self.ended.add(event.run_id)

    def burst(self, orders: list[Order]) -> tuple[float, float]:
        """Return milliseconds for each start: of processor time, and until the median one was told."""
        before, begun = self.cpu_s(), time.monotonic()
        self.client.start(orders)
        while not self.ended.issuperset(order.run_id for order in orders):
            time.sleep(0.005)
        self.client.ack([order.run_id for order in orders])
        time.sleep(0.5)
        waits = [self.started[order.run_id] - begun for order in orders]
        return (self.cpu_s() - before) / len(orders) * 1000, statistics.median(waits) * 1000

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def memory(self) -> str:
        kib = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            kib[name] = int(rest.split()[0])
        private = kib["Private_Clean"] + kib["Private_Dirty"]
        return f"RSS {kib['Rss'] / 1024:.1f} MiB, PSS {kib['Pss'] / 1024:.1f}, private {private / 1024:.1f}"


def orders(count: int, burst: int, generation: int) -> list[Order]:
    found = []
    for job in range(1, count + 1):
        spec = JobSpec("true", "* * * * *", JobType.COMMAND, name=f"job-{job}")
        sealed = _SIGNER.seal(Task(job, generation, JobState.ACTIVE, 0, spec)).decode()
        env = dict.fromkeys(TOLD, "2026-03-01T00:00:00Z")
        run_id = f"{job}-0-{burst}-1"
        found.append(Order(run_id, "n", command="true", run_as="nobody", env=env, sealed=sealed))
    return found


def main(count: int) -> None:
    folder = make_folder("bench-root-part")
    plain, split = folder / "plain", folder / "split"
    plain.mkdir()
    flags = {
        "database_url": "sqlite:////none", "zookeeper": "127.0.0.1:1/x", "blob_url": "file:///none", "cron": "none",
        "state_dir": split, "verify_keys": _SIGNER.public_bytes.hex(),
    }  # fmt: skip
    config = load(WorkerConfig, file=None, environ={}, flags=flags)
    begun = time.monotonic()
    root_start.lay_out(split, config, 65_533, 65_533)
    print(f"laid out, and the root part answers, after {time.monotonic() - begun:.2f} s")
    desks = {"a runner that believes": Desk(plain, signed=False), "the root part": Desk(split, signed=True)}
    print(*(f"{name} before the first run: {desk.memory()}" for name, desk in desks.items()), sep="\n")
    burst = 0
    for kind in ("to warm up", "new generations", "new generations, shown before", "known generations"):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in desks}
        for _ in range(ROUNDS):
            burst += 1
            generation = 1 if kind == "to warm up" else 1000 if kind == "known generations" else burst + 1
            for name, desk in desks.items():
                batch = orders(count, burst, generation)
                if kind.endswith("shown before") and desk.client.signed:
                    desk.client.learn([order.sealed.encode() for order in batch])
                    time.sleep(1)
                found[name].append(desk.burst(batch))
        for name, pairs in found.items():
            cpu, wait = (statistics.median(values) for values in zip(*pairs, strict=True))
            print(f"{kind}: {name}: {cpu:.2f} ms of processor time a start, the median one told after {wait:.0f} ms")
    print(*(f"{name} after {burst * count} runs: {desk.memory()}" for name, desk in desks.items()), sep="\n")
    for desk in desks.values():
        desk.client.close()
        os.kill(desk.pid, signal.SIGTERM)
    remove_folder(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
