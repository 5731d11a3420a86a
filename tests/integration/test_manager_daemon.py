"""Two real manager daemons over a real ZooKeeper and a real MariaDB; the workers are small ones of the test's own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError, NotEmptyError

from cronkeeper.coord import connect
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState, JobType
from cronkeeper.domain.placement import Ownership, WorkerInfo
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import CronkeeperError
from cronkeeper.ports import Coordinator, NewJob, Store
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.store import open_store
from cronkeeper.store.upgrade import upgrade
from cronkeeper_manager.fleet import Fleet
from tests.harness.mariadb import MariaDB
from tests.harness.ports import free_port
from tests.harness.processes import Process
from tests.harness.zookeeper import ZooKeeper

_ROOT = Path(__file__).resolve().parents[2]
_SESSION_S = 4.0
_START = (
    "import os, sys; from cronkeeper.runtime.config import load; from cronkeeper_manager.config import ManagerConfig;"
    " from cronkeeper_manager.daemon import run;"
    " sys.exit(run(load(ManagerConfig, file=None, environ=os.environ, flags={})))"
)


class SmallWorker:
    """A worker as far as the manager can see it: a session, a lease, and a yes to whatever it is given."""

    def __init__(self, name: str, hosts: str, database_url: str) -> None:
        self.name = name
        self.info = WorkerInfo(name, f"host-{name}", {"name": name}, epoch=uuid.uuid4().hex)
        self._coordinator = connect(hosts, session_timeout_s=_SESSION_S, name=name)
        self._store = open_store(database_url, pool_size=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> SmallWorker:
        self._coordinator.start(10.0)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Its session ends at once; its lease is left to time, as when a node dies."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._coordinator.stop()
        self._store.close()

    def _run(self) -> None:
        while not self._stopping.wait(0.3):
            for act in (self._beat, self._answer):
                try:
                    act()
                except CronkeeperError:
                    continue

    def _beat(self) -> None:
        self._store.leases.beat(self.info, local_ms=SystemClock().now_ms())

    def _answer(self) -> None:
        self._coordinator.announce(self.info)
        if not self._coordinator.is_ready():
            return
        given, owned = self._coordinator.assigned(self.name), self._coordinator.owned(self.name)
        fresh = [item for task, item in given.items() if task not in owned]
        self._coordinator.own([Ownership(item.task, self.name, item.generation, self.info.epoch) for item in fresh])
        self._coordinator.disown(self.name, [task for task in owned if task not in given])


class Ground:
    """The stores, managers and workers of one test."""

    def __init__(self, folder: Path, hosts: str, database_url: str) -> None:
        self.hosts, self.database_url = hosts, database_url
        self._folder = folder
        upgrade(database_url)
        self.store: Store = open_store(database_url, pool_size=2)
        self.eyes: Coordinator = connect(hosts, session_timeout_s=_SESSION_S, name="test")
        self.eyes.start(10.0)
        self.fleet = Fleet(self.store, self.eyes, SystemClock())
        self.managers: dict[str, Process] = {}
        self.workers: dict[str, SmallWorker] = {}

    def close(self) -> None:
        for worker in self.workers.values():
            worker.stop()
        for manager in self.managers.values():
            manager.kill()
        self.eyes.stop()
        self.store.close()

    def manager(self, name: str, **settings: str) -> Process:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{_ROOT / 'core'}:{_ROOT / 'manager'}",
            "CRONKEEPER_MANAGER_ID": name,
            "CRONKEEPER_DATABASE_URL": self.database_url,
            "CRONKEEPER_ZOOKEEPER": self.hosts,
            "CRONKEEPER_BLOB_URL": "file:///nowhere",
            "CRONKEEPER_SESSION_TIMEOUT_S": f"{_SESSION_S:g}",
            "CRONKEEPER_LOG_FORMAT": "json",
            **(
                {"CRONKEEPER_TEST_RUN": os.environ["CRONKEEPER_TEST_RUN"]}
                if "CRONKEEPER_TEST_RUN" in os.environ
                else {}
            ),
            **settings,
        }
        process = Process(name, [sys.executable, "-c", _START], log_path=self._folder / f"{name}.log", env=env)
        self.managers[name] = process.start()
        return process

    def worker(self, name: str) -> SmallWorker:
        self.workers[name] = SmallWorker(name, self.hosts, self.database_url).start()
        self.wait(lambda: name in self.eyes.workers(), f"{name} has a session")
        return self.workers[name]

    def create(self, schedule: str = "*/5 * * * *") -> Job:
        now_ms = SystemClock().now_ms()

        def build(job_id: int) -> Job:
            spec = JobSpec("true", schedule, JobType.COMMAND)
            return Job(job_id, spec, 1, JobState.ACTIVE, now_ms, now_ms, now_ms, f"envelope {job_id}".encode())

        return self.store.jobs.create(NewJob("default", None, build))

    def homes(self) -> dict[TaskId, str]:
        return {task: worker for worker, tasks in self.eyes.all_assigned().items() for task in tasks}

    def owners(self) -> dict[TaskId, str]:
        return {task: worker for worker, tasks in self.eyes.all_owned().items() for task in tasks}

    def leader(self) -> str:
        note = self.eyes.leader()
        return "" if note is None else note.id

    def wait(self, check: Callable[[], object], what: str, timeout_s: float = 30.0) -> float:
        """Wait until `check` says yes; return how long that took. Errors of the stores count as no."""
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            try:
                if check():
                    return time.monotonic() - begun
            except CronkeeperError:
                pass
            time.sleep(0.05)
        logs = "\n".join(f"== {name}{process.log_tail()}" for name, process in self.managers.items())
        raise AssertionError(f"after {timeout_s:g} s still not so: {what}\n{logs}")

    def settle(self, jobs: int) -> None:
        self.wait(lambda: len(self.homes()) == jobs and self.owners() == self.homes(), f"{jobs} tasks have an owner")


@pytest.fixture
def ground(tmp_path: Path, zookeeper_chroot: str, mariadb_url: str) -> Iterator[Ground]:
    place = Ground(tmp_path, zookeeper_chroot, mariadb_url)
    try:
        yield place
    finally:
        place.close()


def _elected(ground: Ground, name: str) -> Callable[[], bool]:
    return lambda: "leader.elected" in ground.managers[name].log_text()


def test_killed_leader_is_followed_within_ten_seconds_and_nothing_moves(ground: Ground) -> None:
    ground.manager("m1")
    ground.wait(_elected(ground, "m1"), "m1 leads")
    ground.manager("m2")
    ground.worker("a")
    ground.worker("b")
    for _ in range(10):
        ground.create()
    ground.settle(10)
    before = ground.homes()
    assert set(before.values()) == {"a", "b"}

    ground.managers["m1"].kill()
    took_s = ground.wait(_elected(ground, "m2"), "m2 leads")
    new = ground.create()
    ground.settle(11)

    assert took_s < 10
    assert {task: worker for task, worker in ground.homes().items() if task.job_id != new.id} == before


def test_lost_workers_tasks_move_and_its_runs_are_lost(ground: Ground) -> None:
    ground.manager("m1")
    ground.worker("a")
    ground.worker("b")
    jobs = [ground.create() for _ in range(6)]
    ground.settle(6)
    job = next(job for job in jobs if ground.homes()[TaskId(job.id, 0)] == "a")
    run = Run(
        RunKey(TaskId(job.id, 0), job.created_ms, 1), Trigger.TIMER, RunState.RUNNING, "a", nonce=uuid.uuid4().hex
    )
    ground.store.runs.record([run])

    ground.workers["a"].stop()
    took_s = ground.wait(lambda: set(ground.owners().values()) == {"b"} and len(ground.owners()) == 6, "b owns all")

    assert took_s < 15, "6 s until the lease is stale, and some for a busy machine"
    assert ground.store.runs.get(run.key).state is RunState.LOST
    assert [event.subject for event in ground.store.events.latest(limit=10, kind="worker.lost")] == ["a"]


def test_leader_that_was_paused_writes_nothing_and_begins_afresh(ground: Ground) -> None:
    zombie = ground.manager("m1")
    ground.wait(_elected(ground, "m1"), "m1 leads")
    ground.manager("m2")
    ground.worker("a")
    ground.create()
    ground.settle(1)
    pid = zombie.pid

    zombie.pause()
    ground.wait(_elected(ground, "m2"), "m2 leads")
    ground.worker("b")
    jobs = [ground.create() for _ in range(20)]
    ground.settle(21)
    ground.wait(lambda: len(ground.store.assignments.load()) == 21, "the copies are written")
    before = (ground.homes(), ground.store.assignments.load(), ground.eyes.read_tasks([TaskId(j.id, 0) for j in jobs]))
    zombie.resume()
    ground.wait(lambda: zombie.log_text().count("manager.started") == 2, "m1 has begun afresh")
    time.sleep(3.0)

    assert (
        ground.homes(),
        ground.store.assignments.load(),
        ground.eyes.read_tasks([TaskId(j.id, 0) for j in jobs]),
    ) == before
    assert ground.leader() == "m2"
    assert zombie.running
    assert zombie.pid == pid
    assert "leader.fenced" in zombie.log_text()


def test_leader_that_is_asked_to_stop_hands_over_within_two_seconds(ground: Ground) -> None:
    ground.manager("m1")
    ground.wait(_elected(ground, "m1"), "m1 leads")
    ground.manager("m2")
    ground.wait(lambda: "manager.started" in ground.managers["m2"].log_text(), "m2 runs")
    time.sleep(1.0)

    ground.managers["m1"].send(signal.SIGTERM)
    took_s = ground.wait(_elected(ground, "m2"), "m2 leads")

    assert ground.managers["m1"].wait(10.0) == 0
    assert took_s < 2 + 1, "a second more for a busy machine"


def test_manager_may_be_told_to_exit_instead_of_beginning_afresh(ground: Ground) -> None:
    manager = ground.manager("m1", CRONKEEPER_RESTART_ITSELF="false")
    ground.wait(_elected(ground, "m1"), "m1 leads")
    ground.store.terms.take("somebody else")

    assert manager.wait(20.0) == 75


def test_wiped_zookeeper_is_rebuilt_without_a_move(ground: Ground, zookeeper_server: ZooKeeper) -> None:
    ground.manager("m1")
    ground.manager("m2")
    ground.worker("a")
    ground.worker("b")
    for _ in range(10):
        ground.create()
    ground.settle(10)
    before = ground.homes()
    _wipe(zookeeper_server, "/" + ground.hosts.partition("/")[2])
    ground.wait(lambda: ground.eyes.is_ready() and ground.owners() == before, "all is as it was", 60.0)

    assert ground.homes() == before
    assert ground.eyes.task_names() == set(before)


def _wipe(server: ZooKeeper, path: str) -> None:
    """Remove everything below `path`, however quickly others make it again."""
    client = KazooClient(hosts=server.hosts)
    client.start(timeout=10.0)
    try:
        for _ in range(50):
            try:
                client.delete(path, recursive=True)
            except (NotEmptyError, NoNodeError):
                continue
            return
    finally:
        client.stop()
        client.close()


def test_metrics_are_served(ground: Ground) -> None:
    address = f"127.0.0.1:{free_port()}"
    ground.manager("m1", CRONKEEPER_METRICS_BIND=address)
    ground.worker("a")
    ground.create()
    ground.settle(1)

    def metrics() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
            return str(response.read().decode())

    ground.wait(lambda: "cronkeeper_leading 1.0" in metrics(), "it says that it leads")
    ground.wait(lambda: 'cronkeeper_tasks{placement="placed"} 1.0' in metrics(), "it counts its tasks")
    assert 'cronkeeper_moves_total{kind="assigned",reason="new"} 1.0' in metrics()


def test_leader_without_mysql_replaces_a_lost_worker_after_its_silence(tmp_path: Path, zookeeper_chroot: str) -> None:
    with MariaDB("mariadb-alone") as server:
        ground = Ground(tmp_path, zookeeper_chroot, server.create_database("alone"))
        try:
            ground.manager("m1")
            ground.worker("a")
            ground.worker("b")
            for _ in range(6):
                ground.create()
            ground.settle(6)
            server.kill()
            ground.workers["a"].stop()
            took_s = ground.wait(lambda: set(ground.owners().values()) == {"b"}, "b owns all", 60.0)
            assert took_s > 10, "MySQL's witness counts as silent only after 15 s"
            server.start()
            ground.wait(
                lambda: {item.worker for item in ground.store.assignments.load().values()} == {"b"},
                "the copies were brought home",
                60.0,
            )
        finally:
            ground.close()
