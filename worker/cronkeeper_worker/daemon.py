"""The worker daemon: wires the parts of one node together, and takes them down again in order."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry

import cronkeeper
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.runtime.hardening import no_core_dumps
from cronkeeper.runtime.key_files import read_secrets_keys
from cronkeeper.runtime.logs import setup_logs
from cronkeeper.runtime.loop import Loop, spawn_thread
from cronkeeper.runtime.memory import give_back, one_heap
from cronkeeper.runtime.metrics import WorkerMetrics, serve_metrics
from cronkeeper.runtime.signals import on_terminate
from cronkeeper.wire.task import Verifier
from cronkeeper_worker import canary, node_files, node_start, root_rules, run_files
from cronkeeper_worker.agent import Agent
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.engine_thread import EngineThread
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.fire_listener import FireListener
from cronkeeper_worker.lease import Lease
from cronkeeper_worker.leaving import HAND_OVER_S, hand_over
from cronkeeper_worker.node_crontab import NodeCrontab
from cronkeeper_worker.node_stores import Stores, open_stores
from cronkeeper_worker.node_tasks import NodeTasks, zookeeper_may_be_away
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import RunnerEvent, RunnerLost
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.reporter import Reporter, poison_proof
from cronkeeper_worker.runner_client import RunnerClient
from cronkeeper_worker.sound_journal import open_journal
from cronkeeper_worker.steady_clock import SteadyClock
from cronkeeper_worker.tasks import Here, install_sound

log = logging.getLogger(__name__)

#: How long a start waits for a `cronkeeper-fire` that decides in the daemon's place.
LOCK_WAIT_S = 15.0
CONNECT_WAIT_S = 3.0
#: How long a root part may stay away: its parent starts it again at once, if that lives.
ROOT_PART_WAIT_S = 15.0


def run(config: WorkerConfig) -> int:
    """Run the worker until it is told to stop; return the exit status."""
    node_files.prepare(config.state_dir)
    name = node_files.worker_id(config.state_dir, config.worker_id)
    setup_logs(config, service="worker", instance=name)
    no_core_dumps()
    one_heap()
    lock = node_files.NodeLock(config.state_dir)
    if not lock.acquire(LOCK_WAIT_S):
        raise ConfigError(f"state_dir: {config.state_dir} is in use by another worker daemon")
    return Daemon(config, name, open_stores(config, name)).run()


class Daemon:
    def __init__(self, config: WorkerConfig, name: str, stores: Stores) -> None:
        self._config, self._stores = config, stores
        self._clock = SteadyClock(SystemClock())
        secrets_keys = read_secrets_keys(config.secrets_key_files)
        self._registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self._registry)
        self._info = WorkerInfo(
            id=name,
            host=socket.gethostname(),
            labels=config.labels,
            capacity=config.capacity,
            version=cronkeeper.__version__,
            epoch=secrets.token_hex(8),
            pid=os.getpid(),
            started_ms=self._clock.now_ms(),
            secrets_keys=secrets_keys.ids,
        )
        self._here = Here(name, node_start.note(config.state_dir))
        self._verifier = Verifier([bytes.fromhex(key) for key in config.verify_keys], remembered=1_000)
        self._journal = open_journal(config.state_dir / node_files.JOURNAL, name, self._clock.now_ms())
        self._cache = ArtifactCache(config.state_dir / node_files.ARTIFACTS, stores.blobs)
        self._fences = Fences(
            stores.store.runs, lambda: stores.coordinator, claim_wait_s=config.claim_wait_s, clock=self._clock
        )
        #: Where the runner is, and the runs: root's folder, if there is a root part.
        self._top = root_rules.top_of(str(config.state_dir))
        split = root_rules.is_split(str(config.state_dir))
        self._runner = RunnerClient(self._top, self._on_runner_event, signed=split)
        self._runner_heard_s = self._clock.boot_s()
        self._engine = Engine(
            Parts(
                worker=name,
                journal=self._journal,
                fences=self._fences,
                runner=self._runner,
                orders=NodeOrders(
                    worker=name,
                    account=config.node_account,
                    accounts=config.node_accounts,
                    artifact_path=self._cache.path,
                    secrets_keys=secrets_keys,
                    sealed=self._journal.envelope if split else None,
                ),
                claim_pending=stores.store.runs.claim_pending,
                clock=self._clock,
                metrics=self._metrics,
            )
        )
        self._guard = PauseGuard(self._clock, lambda: self._clock.boot_s() - stores.coordinator.silence_s())
        self._thread = EngineThread(self._engine, self._clock, self._guard, timers=config.timers)
        self._runner_loop = Loop("runner", self._runner_step, max_backoff_s=1.0)
        place = self._runner.place if split else None
        self._crontab = NodeCrontab(
            config, name, self._journal, self._clock, self._metrics, lambda: self._tasks.installed(), place
        )
        self._tasks = NodeTasks(
            self._engine, self._thread, self._journal, self._cache, self._runner, self._crontab, self._top
        )
        self._stop, self._broken = threading.Event(), threading.Event()
        self._fault: BaseException | None = None

    # -- life

    def run(self) -> int:
        """Start every part, wait for the end, and take the parts down: firing first, goodbyes last."""
        canary.send_canaries(self._config, self._on_death)
        node_files.save_settings(self._config.state_dir, self._config)
        on_terminate(self._stop.set)
        metrics_server = serve_metrics(self._config.metrics_bind, self._registry)
        self._resume()
        loops = self._loops()
        threads = [spawn_thread("engine", self._thread.run, self._on_death)]
        threads += [spawn_thread(loop.name, loop.run, self._on_death) for loop in loops]
        spawn_thread("artifacts", self._cache.run, self._on_death)
        listener = FireListener(self._config.state_dir / "fire.sock", self._on_look)
        listener.start()
        log.info(
            "the worker is ready",
            extra={"event": "worker.ready", "worker": self._info.id, "tasks": len(self._engine.tasks)},
        )
        self._stop.wait()
        if self._leaving():
            self._hand_over()
        if self._leaving():
            node_files.drop_settings(self._config.state_dir)
            self._thread.retire(self._journal.dirty_count)
        listener.stop()
        self._thread.stop()
        for loop in loops:
            loop.stop()
        self._cache.stop()
        for thread in threads:
            thread.join(5.0)
        self._leave()
        if metrics_server is not None:
            metrics_server.shutdown()
        log.info("the worker has stopped", extra={"event": "worker.stopped", "worker": self._info.id})
        return 0 if self._fault is None else 2 if isinstance(self._fault, ConfigError) else 1

    def _resume(self) -> None:
        """Go on where the last daemon (or `cronkeeper-fire`) left: the journal says what was given and begun."""
        items = install_sound(self._journal.each_task(), self._verifier, self._here)
        self._engine.install(items)
        self._cache.want(artifact for item in items if (artifact := item.work.artifact) is not None)
        # Whatever else stands in the crontab under our name is unscheduled before anything fires.
        self._crontab.install(items)
        # ZooKeeper first: while MySQL is away it is the only fence for what was decided and is claimed now.
        with zookeeper_may_be_away():
            self._stores.coordinator.start(CONNECT_WAIT_S)
        self._tasks.begin(self._stores.coordinator, self._info.id)
        give_back()

    def _hand_over(self) -> None:
        """Give the tasks to others and wait for the runs, firing on meanwhile."""
        self._announce_leave()
        engine = self._engine
        hand_over(
            self._info.id,
            self._stores.coordinator,
            lambda: self._thread.ask(lambda: (len(engine.tasks), engine.running()), HAND_OVER_S),
            lambda seconds: self._clock.wait(self._broken, seconds),
            self._clock.boot_s,
            runs_wait_s=self._config.stop_wait_s,
        )

    def _leave(self) -> None:
        """A clean stop hands the tasks over: no entry stays behind, and the leader need not wait for time-outs."""
        if self._leaving():
            self._crontab.clear()
            self._lease.release()
            self._stores.coordinator.stop()
        self._runner.close()
        self._fences.close()
        self._journal.close()
        self._stores.store.close()

    def _leaving(self) -> bool:
        """Say whether this end is a goodbye. After a fault it is not: the supervisor starts us again."""
        return self._config.on_stop == "leave" and self._fault is None

    def _on_death(self, exc: BaseException) -> None:
        """A thread that dies takes the daemon with it: its supervisor starts it afresh, and nothing is half alive."""
        log.critical("a part of the worker died", exc_info=exc, extra={"event": "worker.fault"})
        self._fault = exc
        self._broken.set()
        self._stop.set()

    # -- the loops

    def _loops(self) -> list[Loop]:
        stores = self._stores
        agent = Agent(
            self._info,
            stores.coordinator,
            stores.store,
            self._journal,
            self._verifier,
            self._tasks.as_seen_by_the_agent(),
            self._clock,
            self._metrics,
            started_ms=self._here.started_ms,
        )
        reporter = Reporter(
            self._journal,
            stores.store,
            stores.coordinator,
            self._clock,
            self._metrics,
            output_file=lambda key: Path(run_files.run_folder(self._top, str(key))) / run_files.OUTPUT,
            acknowledge=self._runner.ack,
            given_up=agent.look_after,
        )

        def reborn() -> str:
            agent.reborn(secrets.token_hex(8))
            return agent.info.epoch

        self._lease = Lease(
            self._info,
            stores.store,
            self._fences,
            self._clock,
            self._metrics,
            every_s=self._config.lease_every_s,
            cancel=lambda key: self._thread.post(lambda: self._engine.cancel(key)),
            foreign=lambda: self._thread.ask(self._engine.has_foreign),
            refresh_foreign=agent.refresh_foreign,
            reborn=reborn,
        )
        agent_loop = Loop("agent", poison_proof(self._guard.around(agent.step)), max_backoff_s=2.0)

        def announce_leave() -> None:
            agent.leave()
            agent_loop.wake()

        self._announce_leave = announce_leave
        stores.coordinator.on_change(agent_loop.wake)
        self._guard.on_pause = agent_loop.wake
        return [
            agent_loop,
            Loop("reporter", poison_proof(reporter.step), max_backoff_s=2.0),
            Loop("lease", poison_proof(self._lease.step), max_backoff_s=self._config.lease_every_s),
            Loop("crontab", self._crontab.step),
            Loop("pulse", self._guard.beat),
            Loop("cron", self._crontab.sentry.step),
            self._runner_loop,
        ]

    def _runner_step(self) -> float:
        """Have a runner, always: a new one tells what an old one left. A root part that stays away can be started by
        root alone: we end, and our supervisor starts us as root."""
        try:
            self._runner.ensure()
        except UnavailableError as exc:
            if self._runner.signed and self._clock.boot_s() - self._runner_heard_s > ROOT_PART_WAIT_S:
                self._on_death(exc)
            raise
        self._runner_heard_s = self._clock.boot_s()
        return 5.0

    # -- what others tell

    def _on_look(self, number: int) -> None:
        self._metrics.looks.inc()
        self._crontab.sentry.called(number)
        self._thread.look(number)

    def _on_runner_event(self, event: RunnerEvent) -> None:
        if isinstance(event, RunnerLost):
            log.warning("the runner is gone", extra={"event": "runner.lost", "reason": event.reason})
            self._runner_loop.wake()
        else:
            self._thread.tell(event)
