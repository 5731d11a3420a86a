"""Start and failover: of a leader, of a worker, a full look, and the loss of one node of three, at several numbers
of tasks.

Leader: from the start of its process, with no other one there, to the end of its first turn over all tasks. Worker:
from the start of its daemon, after a kill -9, until its crontab is installed and it is ready. Full look: one turn of
a leader that reads everything, its processor and waiting time together. Failover: a node is killed with kill -9,
daemon, runner, cron and all; from then to the first fire of each of its tasks that fire every second on another
node.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator

from bench.kit.figures import Figure, Options, percentile
from bench.kit.stamps import Stamps
from bench.kit.town import fill, fleet, job, stores
from tests.harness.cluster import Cluster
from tests.harness.folders import make_folder, remove_folder
from tests.harness.one_process import LeaderPart

_TICKING = 30
_KILLS = 20
_GONE_S = 15.0
_START_GOALS_S = {10_000: (None, 1.5), 100_000: (5.0, None)}


def run(options: Options) -> Iterator[Figure]:
    """Measure at each size; the distribution over twenty kills at the smallest."""
    sizes = (100,) if options.quick else options.sizes
    with stores() as on:
        for number, size in enumerate(sizes):
            kills = (2 if options.quick else _KILLS) if number == 0 else 3
            folder = make_folder("failover")
            try:
                with fleet(on, workers=3, managers=2) as cluster:
                    yield from _at(cluster, Stamps(folder), size, 1 if options.quick else options.rounds, kills)
            finally:
                remove_folder(folder)


def _at(cluster: Cluster, stamps: Stamps, size: int, rounds: int, kills: int) -> list[Figure]:
    fill(cluster, size)
    ticking = min(_TICKING, size)
    fill(cluster, ticking, lambda n: job(f"t-{n}", stamps.command(f"t-{n}"), "* * * * * *", concurrency="allow"))
    leader_goal, worker_goal = _START_GOALS_S.get(size, (None, None))
    delays = [delay for number in range(kills) for delay in _kill(cluster, stamps, f"w{number % 3 + 1}")]
    starts = tuple(_start_worker(cluster) for _ in range(rounds))
    leaders = tuple(_start_leader(cluster, size) for _ in range(rounds))
    looks = _full_looks(cluster, rounds)
    at = f"at {size:,} tasks"
    return [
        Figure(f"leader's start {at}", "s", leaders, leader_goal),
        Figure(f"worker's start {at}, a third of them its own", "s", starts, worker_goal),
        Figure(f"full look {at}", "s", looks),
        Figure(
            f"failover {at}, {kills} kills, {len(delays)} tasks: to the first fire elsewhere", "s", tuple(delays), 8
        ),
        Figure(f"failover {at}: p99", "s", (percentile(delays, 0.99),)),
        Figure(f"failover {at}: the longest", "s", (max(delays),), 10),
    ]


def _kill(cluster: Cluster, stamps: Stamps, name: str) -> list[float]:
    """Kill a node; return how long each of its ticking tasks stood still. It is back, with tasks, afterwards."""
    mine = {stamp.name for stamp in stamps.read() if stamp.at_s > time.time() - 3 and stamp.worker == name}
    while not mine:
        time.sleep(1)
        mine = {stamp.name for stamp in stamps.read() if stamp.at_s > time.time() - 3 and stamp.worker == name}
    killed_s = time.time()
    cluster.nodes[name].stop()

    def moved() -> dict[str, float]:
        first: dict[str, float] = {}
        for stamp in stamps.read():
            if stamp.name in mine and stamp.at_s > killed_s and stamp.worker != name:
                first.setdefault(stamp.name, stamp.at_s - killed_s)
        return first

    cluster.wait(lambda: moved().keys() >= mine, "its tasks fire elsewhere", 60)
    found = list(moved().values())
    time.sleep(max(0.0, killed_s + _GONE_S - time.time()))
    cluster.boot(name)
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "it is back", 60)
    # It is given nothing by itself: what it had goes back, so that the next kill meets a whole node.
    for one in sorted(mine)[: max(1, len(mine) // 2)]:
        job_id = cluster.get(f"/jobs?q={one}&limit=1").json()[0]["id"]
        cluster.request("POST", f"/jobs/{job_id}/reassign", {"worker": name, "dry_run": False})
    stamps.forget()
    time.sleep(5)
    return found


def _start_worker(cluster: Cluster) -> float:
    worker = cluster.workers["w1"]
    worker.kill()
    before = worker.log_text().count("worker.ready")
    begun_s = time.monotonic()
    worker.start()
    _poll(lambda: worker.log_text().count("worker.ready") > before, 120)
    return time.monotonic() - begun_s


def _start_leader(cluster: Cluster, tasks: int) -> float:
    for manager in cluster.managers:
        manager.stop()
    manager, address = cluster.managers[0], cluster.metrics["m1"]
    begun_s = time.monotonic()
    manager.start()
    _poll(lambda: _placed(address) >= tasks, 300)
    return time.monotonic() - begun_s


def _placed(address: str) -> float:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return sum(float(line.split()[-1]) for line in lines if line.startswith('cronkeeper_tasks{placement="placed"}'))


def _full_looks(cluster: Cluster, rounds: int) -> tuple[float, ...]:
    """A leader in this process, with all others stopped: only so a turn can be told from the next."""
    for manager in cluster.managers:
        manager.stop()
    env = cluster.env
    leader = LeaderPart(
        env["CRONKEEPER_DATABASE_URL"], env["CRONKEEPER_ZOOKEEPER"], auth=env["CRONKEEPER_ZOOKEEPER_AUTH"]
    )
    found = []
    try:
        for _ in range(3):
            leader.step()
        for _ in range(rounds):
            leader.clock.forward(61)
            begun_s = time.monotonic()
            leader.step()
            found.append(time.monotonic() - begun_s)
    finally:
        leader.stop()
    return tuple(found)


def _poll(check: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s")
        time.sleep(0.02)
