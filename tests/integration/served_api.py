"""The real API over HTTP with the command that talks to it: SQLite for MySQL, ZooKeeper and workers in memory."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from cronkeeper.blob import open_blobs
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.domain.run import RunState
from cronkeeper.ports import Store
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.runtime.config import load
from cronkeeper.store import open_store
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.task import Signer
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_api.app import create_app
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.services import assemble
from cronkeeper_cli import database
from cronkeeper_cli.main import cli
from cronkeeper_manager.fleet import Fleet
from tests.harness.ports import free_port

FIELDS = ["--schedule", "5 * * * *", "--command", "ls -la"]


@dataclass
class Api:
    """A served API, the store behind it, and the command that talks to it."""

    store: Store
    ensemble: MemoryEnsemble
    database_url: str
    environ: dict[str, str]
    workers: list[MemoryCoordinator] = field(default_factory=list)

    def run(self, *argv: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(
            cli, list(argv), input=stdin, env={**self.environ, **(env or {})}, prog_name="cronkeeper"
        )

    def ok(self, *argv: str, stdin: str | None = None) -> str:
        result = self.run(*argv, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *argv: str) -> Any:
        return json.loads(self.ok(*argv, "-o", "json"))

    def join(self, worker: str, capacity: int = 10_000) -> None:
        """Have a worker join, as its daemon would."""
        coordinator = MemoryCoordinator(self.ensemble, worker)
        coordinator.start(1.0)
        info = WorkerInfo(id=worker, host=worker, epoch=secrets.token_hex(8), capacity=capacity)
        coordinator.announce(info)
        self.store.leases.beat(info, local_ms=SystemClock().now_ms())
        self.workers.append(coordinator)

    def give(self, worker: str, job_id: str) -> None:
        """Have a job belong to a worker, as the leader would."""
        now_ms = SystemClock().now_ms()
        assignment = Assignment(TaskId(int(job_id), 0), worker, 1, now_ms, MoveReason.NEW, now_ms)
        term = self.store.terms.take("test")
        self.store.assignments.save([assignment], term=term)
        leader = MemoryCoordinator(self.ensemble, "leader")
        leader.start(1.0)
        leader.campaign(LeaderNote(id="leader", address="", epoch=term))
        leadership = leader.leadership()
        assert leadership is not None
        leader.move([assignment], [], leadership)
        leader.stop()

    def finish_pending(self, job_id: str, *, exit_code: int, output: bytes, after_s: float = 0.3) -> threading.Thread:
        """Play the worker in the background: wait for a run on demand, run it, report its end."""

        def work() -> None:
            deadline = time.monotonic() + 30
            while not (found := self.store.runs.pending([TaskId(int(job_id), 0)])):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            now_ms = SystemClock().now_ms()
            run = found[0].evolve(worker="node-1", nonce="n" * 32, state=RunState.CLAIMED, claimed_ms=now_ms)
            assert self.store.runs.claim_pending(run)
            run = run.evolve(state=RunState.RUNNING, started_ms=now_ms)
            self.store.runs.record([run])
            self.store.runs.append_output(run.key, offset=0, data=output)
            time.sleep(after_s)
            state = RunState.FAILED if exit_code else RunState.SUCCEEDED
            ended = run.evolve(state=state, ended_ms=now_ms + 300, exit_code=exit_code, output_bytes=len(output))
            self.store.runs.record([ended])

        thread = threading.Thread(target=work)
        thread.start()
        return thread


@contextmanager
def serve(tmp_path: Path) -> Iterator[Api]:
    """Serve an API in this process until the end of the `with`."""
    url = f"sqlite:///{tmp_path / 'db'}"
    database.upgrade(url)
    token = database.create_token(url, name="test", role="admin")
    key_file = tmp_path / "signing-key"
    key_file.write_text(secrets.token_hex(32))
    key_file.chmod(0o600)
    objects = f"file://{tmp_path / 'objects'}"
    flags = {"database_url": url, "zookeeper": "127.0.0.1:1/y", "blob_url": objects, "signing_key_file": key_file}
    config = load(ApiConfig, file=None, environ={}, flags=flags)
    ensemble, clock, store = MemoryEnsemble(), SystemClock(), open_store(url)
    coordinator = MemoryCoordinator(ensemble, "api")
    coordinator.start(1.0)
    coordinator.ensure_layout()
    services = assemble(
        config,
        store=store,
        coordinator=coordinator,
        blobs=open_blobs(objects),
        signer=Signer.from_seed(bytes.fromhex(key_file.read_text())),
        fleet=Fleet(store, coordinator, clock),
        clock=clock,
    )
    port = free_port()
    server = make_server("127.0.0.1", port, create_app(services), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environ = {"CRONKEEPER_URL": f"http://127.0.0.1:{port}", "CRONKEEPER_TOKEN": token, "HOME": str(tmp_path)}
    found = Api(store, ensemble, url, environ)
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for worker in found.workers:
            worker.stop()
        services.close()
