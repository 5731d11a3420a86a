"""A node's tasks and runs at the start of its daemon: a real journal and real folders of runs."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.blob import open_blobs
from cronkeeper.domain.job import Concurrency, JobSpec
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import RunState
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_worker import run_files
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.crontab_place import SystemFiles
from cronkeeper_worker.engine_thread import EngineThread
from cronkeeper_worker.node_crontab import NodeCrontab
from cronkeeper_worker.node_tasks import NodeTasks
from cronkeeper_worker.orders import Ended
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.runner_client import RunnerClient
from tests.unit.test_engine import TASK, World, spec

QUEUE = spec(concurrency=Concurrency.QUEUE)
RETRY = spec(concurrency=Concurrency.QUEUE, retry=Retry(2, 0, 0))


@pytest.fixture
def ensemble() -> MemoryEnsemble:
    return MemoryEnsemble()


@pytest.fixture
def world(tmp_path: Path, ensemble: MemoryEnsemble) -> World:
    clock = FakeClock()
    return World(tmp_path, MemoryStore(clock), clock, ensemble, "w1")


def assign(ensemble: MemoryEnsemble, worker: str) -> None:
    """Have a leader give the task to the worker, in a complete tree."""
    leader = MemoryCoordinator(ensemble, "m1")
    leader.start(1.0)
    leader.campaign(LeaderNote("m1", "host", 1))
    leadership = leader.leadership()
    assert leadership is not None
    leader.move([Assignment(TASK, worker, 1, 8, MoveReason.NEW, 0)], [], leadership)
    leader.mark_ready(leadership)


def start_daemon(world: World) -> None:
    """As the daemon does it, once ZooKeeper is connected."""
    world.journal.close()
    world.boot()
    world.install_again()
    top, metrics = world.folder, WorkerMetrics(CollectorRegistry())
    thread = EngineThread(world.engine, world.clock, PauseGuard(world.clock, world.clock.boot_s), timers=False)
    settings: dict[str, Any] = {"state_dir": top / "daemon", "cron": "none"}
    config = WorkerConfig(**settings)
    crontab = NodeCrontab(
        config,
        "w1",
        world.journal,
        world.clock,
        metrics,
        lambda: list(world.engine.tasks.values()),
        lambda _files: None,
    )
    cache = ArtifactCache(top / "artifacts", open_blobs((top / "blobs").as_uri()))
    runner = RunnerClient(top, lambda _event: None)
    tasks = NodeTasks(world.engine, thread, world.journal, cache, runner, crontab, str(top))
    # MySQL is away from this node from now on: ZooKeeper grants whatever nobody has asked it for.
    world.fences.mysql_ok = False
    tasks.begin(world.coordinator, "w1")


def test_the_crontab_follows_a_change_that_failed_half_way(world: World, tmp_path: Path) -> None:
    """The engine has let go of the task, so nobody asks for that again."""
    world.give(spec())
    (tmp_path / "cron.d").mkdir()
    settings: dict[str, Any] = {"state_dir": tmp_path / "daemon", "cron": "system", "cron_dir": tmp_path / "cron.d"}
    files = SystemFiles(tmp_path / "cron.d", lambda _name, _text: None)
    thread = EngineThread(world.engine, world.clock, PauseGuard(world.clock, world.clock.boot_s), timers=False)
    metrics = WorkerMetrics(CollectorRegistry())
    crontab = NodeCrontab(
        WorkerConfig(**settings),
        "w1",
        world.journal,
        world.clock,
        metrics,
        lambda: list(world.engine.tasks.values()),
        lambda texts: files.install(texts or ()),
    )
    cache = ArtifactCache(tmp_path / "artifacts", open_blobs((tmp_path / "blobs").as_uri()))
    runner = RunnerClient(tmp_path, lambda _event: None)
    node = NodeTasks(world.engine, thread, world.journal, cache, runner, crontab, str(tmp_path)).as_seen_by_the_agent()
    crontab.write()
    assert str(TASK) in str(files.read())
    # As the journal of a full disk: nothing can be written down.
    world.journal.close()
    engine = threading.Thread(target=thread.run)
    engine.start()
    try:
        with pytest.raises(sqlite3.Error):
            node.apply([], [TASK])
    finally:
        thread.stop()
        engine.join(30)
    assert TASK not in world.engine.tasks
    crontab.step()
    assert str(TASK) not in str(files.read())


@pytest.mark.parametrize("paused", [False, True])
def test_after_a_pause_nothing_is_decided_of_a_task_that_is_another_s(
    world: World, tmp_path: Path, paused: bool
) -> None:
    """Its new owner may be asking another fence than we would."""
    world.give(spec())
    guard = PauseGuard(world.clock, world.clock.boot_s)
    guard.beat()
    for _ in range(1 if paused else 60):
        world.clock.advance_ms(60_000 if paused else 1000)
        guard.beat()
    thread = EngineThread(world.engine, world.clock, guard, timers=False)
    settings: dict[str, Any] = {"state_dir": tmp_path / "daemon", "cron": "none"}
    crontab = NodeCrontab(
        WorkerConfig(**settings),
        "w1",
        world.journal,
        world.clock,
        WorkerMetrics(CollectorRegistry()),
        lambda: list(world.engine.tasks.values()),
        lambda _files: None,
    )
    cache = ArtifactCache(tmp_path / "artifacts", open_blobs((tmp_path / "blobs").as_uri()))
    runner = RunnerClient(tmp_path, lambda _event: None)
    node = NodeTasks(world.engine, thread, world.journal, cache, runner, crontab, str(tmp_path)).as_seen_by_the_agent()
    engine = threading.Thread(target=thread.run)
    engine.start()
    try:
        node.apply([], [TASK])
    finally:
        thread.stop()
        engine.join(30)
    assert len(world.ordered()) == (0 if paused else 1)


def end_without_daemon(world: World, run_id: str, exit_code: int) -> None:
    folder = Path(run_files.run_folder(str(world.folder), run_id))
    folder.mkdir(parents=True)
    ended = Ended(run_id, world.clock.now_ms(), exit_code, None, False, False, 0, "")
    run_files.write_exit(str(folder), ended, flush=False)


@pytest.mark.parametrize(("job", "exit_code"), [(QUEUE, 0), (RETRY, 1)], ids=["a fire that waited", "a retry"])
@pytest.mark.parametrize("owner", ["w1", "w2"])
def test_the_news_of_an_end_starts_nothing_of_a_task_that_went_to_another(
    world: World, ensemble: MemoryEnsemble, job: JobSpec, exit_code: int, owner: str
) -> None:
    """Its new owner asks MySQL, from which we are cut off, and nobody looks into ZooKeeper who reaches MySQL."""
    world.give(job)
    world.pass_minutes(1)
    (first,) = world.ordered()
    world.begin(first)
    world.pass_minutes(1)
    assert world.ordered() == [first], "the second waits for the first"
    world.runner.orders.clear()
    end_without_daemon(world, first, exit_code)
    assign(ensemble, owner)
    start_daemon(world)
    assert world.state(first) is (RunState.FAILED if exit_code else RunState.SUCCEEDED)
    assert len(world.ordered()) == (1 if owner == "w1" else 0)
    assert (TASK in world.engine.tasks) == (owner == "w1")
