"""The daemon's stand-in for one look: the same engine over the same journal, fences and runner."""

from __future__ import annotations

import logging
import os
import queue
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.runtime.hardening import no_core_dumps
from cronkeeper.runtime.key_files import read_secrets_keys
from cronkeeper.runtime.logs import setup_logs
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.stores import log_into_database, open_coordinator, open_database, open_objects
from cronkeeper.wire.task import Verifier
from cronkeeper_worker import node_files, node_start, root_rules, run_files
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.journal import Journal
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import Ended, Expired, RunnerEvent, SpawnFailed, Started
from cronkeeper_worker.reporter import Reporter
from cronkeeper_worker.runner_client import RunnerClient
from cronkeeper_worker.tasks import Here, install_sound

log = logging.getLogger(__name__)


class StandIn:
    """Holds the node's files while the daemon is away. The caller holds the node's lock."""

    def __init__(self, state_dir: Path) -> None:
        config = node_files.load_settings(state_dir)
        name = node_files.worker_id(state_dir, config.worker_id)
        setup_logs(config, service="fire", instance=name)
        no_core_dumps()
        log_into_database(config)
        self._config = config
        self._name = name
        self._clock = SystemClock()
        self._metrics = WorkerMetrics(CollectorRegistry())
        self._store = open_database(config, pool_size=2)
        self._coordinator: Coordinator | None = None
        self._journal = Journal(state_dir / node_files.JOURNAL)
        self._events: queue.SimpleQueue[RunnerEvent] = queue.SimpleQueue()
        self._top = root_rules.top_of(str(state_dir))
        self._runner = RunnerClient(self._top, self._events.put, signed=root_rules.is_split(str(state_dir)))
        self._fences = Fences(self._store.runs, self._zookeeper, claim_wait_s=config.claim_wait_s, clock=self._clock)
        self._engine = Engine(self._parts(state_dir), window=None)

    def look(self, stay_s: float) -> None:
        """Decide and start what is due; stay a little, to write down and report what ends soon."""
        verifier = Verifier([bytes.fromhex(key) for key in self._config.verify_keys])
        here = Here(self._name, node_start.note(self._config.state_dir))
        self._engine.install(install_sound(self._journal.each_task(), verifier, here))
        self._runner.ensure()
        self._engine.resume(
            self._journal.open_entries(),
            lambda key: os.path.isdir(run_files.run_folder(self._top, str(key))),
            lambda key: run_files.read_exit(run_files.run_folder(self._top, str(key))),
        )
        self._pump(0.2)
        self._engine.look(Trigger.CRON)
        self._pump(stay_s)
        self._report()
        self._runner.close()
        self._fences.close()
        self._journal.close()
        if self._coordinator is not None:
            self._coordinator.stop()

    def _pump(self, stay_s: float) -> None:
        """Take in what the runner tells, until nothing is in progress or the time is over."""
        deadline = time.monotonic() + stay_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return
            match event:
                case Started():
                    self._engine.hear([(RunKey.parse(event.run_id), event.started_ms)], [])
                case SpawnFailed():
                    self._engine.on_spawn_failed(event)
                case Expired():
                    self._engine.on_expired([RunKey.parse(event.run_id)])
                case Ended():
                    self._engine.hear([], [event])
            if not self._engine.running():
                return

    def _report(self) -> None:
        """Tell MySQL, if it can hear; otherwise the journal keeps it."""
        reporter = Reporter(
            self._journal,
            self._store,
            self._coordinator,
            self._clock,
            self._metrics,
            output_file=lambda key: Path(run_files.run_folder(self._top, str(key))) / run_files.OUTPUT,
            acknowledge=self._runner.ack,
            # The daemon, once it is back, tells MySQL a second time, and looks after them then.
            given_up=lambda _tasks: None,
        )
        try:
            while self._journal.dirty_count():
                reporter.step()
        except UnavailableError as exc:
            log.warning(
                "MySQL is away; the journal keeps what happened", extra={"event": "mysql.away", "error": str(exc)}
            )

    def _zookeeper(self) -> Coordinator | None:
        """Connect to the second fence, once, and only when the first one does not answer."""
        if self._coordinator is None:
            config = self._config
            coordinator = open_coordinator(config, name=f"fire-{self._name}")
            try:
                coordinator.start(config.claim_wait_s)
            except UnavailableError:
                log.warning("ZooKeeper is away, too", extra={"event": "zookeeper.away"})
            self._coordinator = coordinator
        return self._coordinator

    def _parts(self, state_dir: Path) -> Parts:
        config = self._config
        blobs = open_objects(config)
        return Parts(
            worker=self._name,
            journal=self._journal,
            fences=self._fences,
            runner=self._runner,
            orders=NodeOrders(
                worker=self._name,
                account=config.node_account,
                accounts=config.node_accounts,
                artifact_path=ArtifactCache(state_dir / node_files.ARTIFACTS, blobs).path,
                secrets_keys=read_secrets_keys(config.secrets_key_files),
                sealed=self._journal.envelope if self._runner.signed else None,
            ),
            claim_pending=self._store.runs.claim_pending,
            clock=self._clock,
            metrics=self._metrics,
        )
