"""An API, a leader and a worker in one process, over real stores: for tests that count what they ask for.

They are put together as their daemons do it, but nothing of them has a loop of its own: each step is the test's.
"""

from __future__ import annotations

import getpass
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from prometheus_client import CollectorRegistry

from cronkeeper.blob import open_blobs
from cronkeeper.coord import connect
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.ports import Role
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.runtime.config import load
from cronkeeper.runtime.metrics import ManagerMetrics, WorkerMetrics
from cronkeeper.store import open_store
from cronkeeper.store.upgrade import upgrade
from cronkeeper.wire.sealed import NO_KEYS
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_api.app import create_app
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.services import assemble
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.fleet import Fleet
from cronkeeper_manager.healing import COMPARE_EACH_TURN
from cronkeeper_manager.leader import Leader
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.reach import Reach
from cronkeeper_manager.service import Tokens
from cronkeeper_worker import node_files, run_files, runner_main
from cronkeeper_worker.agent import Agent, Node
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.engine_thread import EngineThread
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import RunnerEvent, RunnerLost
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.reporter import Reporter
from cronkeeper_worker.runner_client import RunnerClient
from cronkeeper_worker.tasks import Here, Installed, install

_SESSION_S = 10.0
_PATIENCE_S = 60.0


class ForwardClock(SystemClock):
    """The machine's clocks, of which the one since boot can be set forward: what is due every minute is due then."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def boot_s(self) -> float:
        return super().boot_s() + self._ahead_s

    def forward(self, seconds: float) -> None:
        self._ahead_s += seconds


class ApiPart:
    """An API server's use cases, called as HTTP."""

    def __init__(self, folder: Path, database_url: str, zookeeper: str, seed: bytes) -> None:
        key = folder / "signing-key"
        key.write_text(seed.hex())
        key.chmod(0o600)
        flags = {
            "database_url": database_url,
            "zookeeper": zookeeper,
            "blob_url": f"file://{folder}/blobs",
            "signing_key_file": key,
        }
        config, clock = load(ApiConfig, file=None, environ={}, flags=flags), SystemClock()
        store = open_store(database_url, pool_size=4)
        coordinator = connect(zookeeper, session_timeout_s=_SESSION_S, name="api")
        coordinator.start(_SESSION_S)
        coordinator.ensure_layout()
        self._services = assemble(
            config,
            store=store,
            coordinator=coordinator,
            blobs=open_blobs(config.blob_url),
            signer=Signer.from_seed(seed),
            fleet=Fleet(store, coordinator, clock),
            clock=clock,
        )
        self._client = create_app(self._services).test_client()
        self._token = Tokens(store.tokens, clock).create(name="counted", role=Role.ADMIN)[1]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return the answer's JSON; fails on anything but success."""
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._client.open(path, method=method, json=body, headers=headers)
        assert answer.status_code < 300, answer.get_data(as_text=True)
        return answer.get_json()

    def stop(self) -> None:
        self._services.close()


class LeaderPart:
    """A manager that leads."""

    def __init__(self, database_url: str, zookeeper: str, *, auth: str = "") -> None:
        flags = {"database_url": database_url, "zookeeper": zookeeper, "blob_url": "file:///nowhere"}
        config = load(ManagerConfig, file=None, environ={}, flags={**flags, "manager_id": "m1"})
        self.clock = ForwardClock()
        self._store = open_store(database_url, pool_size=3)
        self._coordinator = connect(zookeeper, auth=auth, session_timeout_s=_SESSION_S, name="m1")
        self._coordinator.start(_SESSION_S)
        self._leader = Leader(
            config,
            self._store,
            self._coordinator,
            self.clock,
            ManagerMetrics(CollectorRegistry()),
            mysql=MysqlWatch(self._store, self.clock, background=False),
            reach=Reach(self._store, self.clock, background=False),
        )
        self._coordinator.on_change(self._leader.observer.note_change)

    def step(self) -> float:
        return self._leader.step()

    def stop(self) -> None:
        self._coordinator.stop()
        self._store.close()


class WorkerPart:
    """A worker without a crontab: its engine has its own thread and a real runner, all else is stepped."""

    def __init__(self, folder: Path, database_url: str, zookeeper: str, seed: bytes) -> None:
        self._folder, self._clock, metrics = folder, SystemClock(), WorkerMetrics(CollectorRegistry())
        self._signer = Signer.from_seed(seed)
        self._verifier = Verifier([self._signer.public_bytes])
        node_files.prepare(folder)
        self.info = WorkerInfo("w1", "host-w1", capacity=10_000_000, epoch=secrets.token_hex(8))
        self.store = open_store(database_url, pool_size=4)
        self.coordinator = connect(zookeeper, session_timeout_s=_SESSION_S, name="w1")
        self.coordinator.start(_SESSION_S)
        self.journal = Journal(folder / node_files.JOURNAL)
        self._fences = Fences(self.store.runs, lambda: self.coordinator, claim_wait_s=10, clock=self._clock)
        self._runner = RunnerClient(folder, self._on_event, idle_s=0.2)
        account = getpass.getuser()
        orders = NodeOrders(
            worker="w1",
            account=account,
            accounts=(account,),
            artifact_path=ArtifactCache(folder / node_files.ARTIFACTS, open_blobs(f"file://{folder}/blobs")).path,
            secrets_keys=NO_KEYS,
        )
        parts = Parts(
            "w1", self.journal, self._fences, self._runner, orders, self.store.runs.claim_pending, self._clock, metrics
        )
        self.engine = Engine(parts)
        guard = PauseGuard(self._clock, lambda: self._clock.boot_s())
        self.thread = EngineThread(self.engine, self._clock, guard, timers=False)
        node = Node(self._apply, self._have, self._ignore, self._ignore, self._ignore, self._ignore)
        self.agent = Agent(
            self.info,
            self.coordinator,
            self.store,
            self.journal,
            self._verifier,
            node,
            self._clock,
            metrics,
            started_ms=0,
        )
        self.reporter = Reporter(
            self.journal,
            self.store,
            self.coordinator,
            self._clock,
            metrics,
            output_file=lambda key: Path(run_files.run_folder(str(folder), str(key))) / run_files.OUTPUT,
            acknowledge=self._runner.ack,
            given_up=self.agent.look_after,
        )
        self._running = threading.Thread(target=self.thread.run, name="engine")
        self._running.start()

    def beat(self) -> None:
        self.store.leases.beat(self.info, local_ms=self._clock.now_ms())

    def restart_runner(self) -> None:
        """Have a new runner, after the one before has gone: whoever traces this process sees all that it does."""
        self._runner.close()
        self.wait(lambda: not (self._folder / runner_main.SOCKET).exists())
        self._runner.ensure()

    def give(self, jobs: Mapping[int, JobSpec]) -> None:
        """Install jobs by their ids, signed, with all their fires of the last minute still to be decided."""
        past_ms = self._clock.now_ms() - 60_000
        tasks = [Task(job_id, 1, JobState.ACTIVE, past_ms, spec) for job_id, spec in jobs.items()]
        rows = [TaskRow(TaskId(task.job_id, 0), 1, 1, self._signer.seal(task), past_ms) for task in tasks]
        self._apply([(row, install(row, self._verifier, Here("w1", 0))) for row in rows], [])

    def take(self, jobs: Collection[int]) -> None:
        """Take jobs away again."""
        self._apply([], [TaskId(job_id, 0) for job_id in jobs])

    def fire(self, runs: int) -> None:
        """Have a call of cron start what is due; return when so many runs have ended and MySQL knows them."""
        self.thread.look()
        self.wait(lambda: self.thread.ask(self.engine.running) == 0 and self.journal.dirty_count() == runs)
        while self.journal.dirty_count():
            self.reporter.step()

    def wait(self, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not check():
            assert time.monotonic() < deadline, "the runs did not end"
            time.sleep(0.02)

    def stop(self) -> None:
        self.thread.stop()
        self._running.join()
        self._runner.close()
        self._fences.close()
        self.journal.close()
        self.coordinator.stop()
        self.store.close()

    def _on_event(self, event: RunnerEvent) -> None:
        if not isinstance(event, RunnerLost):
            self.thread.tell(event)

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        self.thread.ask(lambda: self.engine.take(given, dropped))

    def _have(self) -> Mapping[TaskId, Installed]:
        return dict(self.engine.tasks)

    def _ignore(self, *_: object) -> None:
        """Nothing that the tests here ask for takes these ways."""


class OneProcess:
    """The three of them. `settle` has all of them step until nothing changes any more."""

    def __init__(self, folder: Path, database_url: str, zookeeper: str) -> None:
        upgrade(database_url)
        seed = os.urandom(32)
        self.api = ApiPart(folder, database_url, zookeeper, seed)
        self.leader = LeaderPart(database_url, zookeeper)
        self.worker = WorkerPart(folder / "node", database_url, zookeeper, seed)

    def apply(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Have jobs, by name."""
        self.api.call("POST", "/apply", {"jobs": list(jobs)})

    def settle(self, tasks: int, patience_s: float = _PATIENCE_S) -> None:
        """Step until the worker has so many tasks, and then until everybody has looked at all of them."""
        deadline = time.monotonic() + patience_s
        while len(self.worker.engine.tasks) != tasks:
            assert time.monotonic() < deadline, f"{len(self.worker.engine.tasks)} tasks instead of {tasks}"
            self.step()
        for _ in range(3 + tasks // COMPARE_EACH_TURN):
            self.step()

    def step(self) -> None:
        """One step of everybody."""
        self.worker.beat()
        self.leader.step()
        if self.worker.coordinator.is_ready():
            self.worker.agent.step()
        else:
            self.worker.coordinator.announce(self.worker.info)
        time.sleep(0.05)

    def stop(self) -> None:
        for part in (self.worker, self.leader, self.api):
            part.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
