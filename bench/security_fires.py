"""The part of `bench/security_cost.py` about fires: from trigger to started process, with checks and without.

With them it is a worker that was started as root: the daemon's part looks at account, file and secret, and sends the
signed task as it stands in the journal; the root part makes of it what it believes. It verifies the signature of a
generation when that is new to it, which is not at each fire (`bench/root_part.py` measures that). Without them, a
runner believes the order. Both orders travel as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Artifact, Concurrency, JobSpec, JobState, JobType
from cronkeeper.domain.run import Reason, Run, Trigger
from cronkeeper.domain.secret_env import Sealed, SecretEnv, SecretUse
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.sealed import SecretsKeys
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker import verified
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import Order, Secret, Started, order_from
from cronkeeper_worker.root_rules import DAEMON_FOLDER, Rules
from cronkeeper_worker.tasks import Here, Installed, install
from cronkeeper_worker.warrants import Warrants

SIGNER, KEYS = Signer.from_seed(bytes(range(32))), SecretsKeys([bytes(range(32))])
TASK = TaskId(1, 0)
#: 2026-03-01T12:00:00Z
NOON_MS = 1_772_366_400_000


class Unchecked(NodeOrders):
    """Makes the order that `NodeOrders` makes, and looks at nothing."""

    def obstacle(self, item: Installed) -> Reason | None:
        return None

    def make(self, item: Installed, run: Run) -> Order:
        return self._order(item, run)

    def _secrets(self, item: Installed) -> dict[str, Secret]:
        return {"PGPASSWORD": Secret("value", False)}


class Blind(verified.Verifier):
    """Opens a file and does not look into it."""

    def open(self, path: str, sha256: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Node:
    """The product's engine and executor, with its checks or without."""

    def __init__(self, folder: Path, *, checks: bool) -> None:
        self.checks = checks
        self.clock, store = FakeClock(NOON_MS), MemoryStore(FakeClock(NOON_MS))
        coordinator = MemoryCoordinator(MemoryEnsemble(), "w1")
        script = b"#!/bin/sh\nexit 0\n" + b"# filling\n" * 1000
        path = folder / DAEMON_FOLDER / "artifacts" / hashlib.sha256(script).hexdigest()
        path.parent.mkdir(parents=True)
        path.write_bytes(script)
        path.chmod(0o555)
        account = pwd.getpwuid(os.geteuid()).pw_name
        self.waiting: list[Order] = []
        self.journal = Journal(folder / "journal.db")
        orders = (NodeOrders if checks else Unchecked)(
            worker="w1", account=account, accounts=(), artifact_path=lambda _: path, secrets_keys=KEYS,
            sealed=self.journal.envelope if checks else None,
        )  # fmt: skip
        keys = (SIGNER.public_bytes.hex(),)
        self.warrants = Warrants(str(folder), Rules(os.geteuid(), os.getegid(), keys, account, (account,), "", (), 0))
        parts = Parts(
            worker="w1",
            journal=self.journal,
            fences=Fences(store.runs, lambda: coordinator, claim_wait_s=5, clock=self.clock),
            runner=self,
            orders=orders,
            claim_pending=store.runs.claim_pending,
            clock=self.clock,
            metrics=WorkerMetrics(CollectorRegistry()),
        )
        self.engine = Engine(parts)
        (folder / "runs").mkdir()
        self.executor = Executor(str(folder))
        if not checks:
            self.executor._launcher._verifier = Blind()
        box = KEYS.seal("value", namespace="default", name="pg", version=1)
        spec = JobSpec(
            "x.sh", "* * * * *", JobType.SCRIPT, artifact=Artifact("k", "u", path.name, len(script), "x.sh"),
            concurrency=Concurrency.ALLOW,
            secrets=SecretEnv({"PGPASSWORD": SecretUse("pg")}, {"pg": Sealed(1, box)}),
        )  # fmt: skip
        row = TaskRow(TASK, 1, 7, SIGNER.seal(Task(1, 1, JobState.ACTIVE, NOON_MS, spec)), NOON_MS)
        self.journal.save_tasks([row])
        self.engine.install([install(row, Verifier([SIGNER.public_bytes]), Here("w1", 0))])

    # -- what the engine asks of a runner

    def start(self, orders: Sequence[Order]) -> None:
        self.waiting += orders

    def cancel(self, run_id: str) -> None:
        """Nothing is cancelled here."""

    def ack(self, run_ids: Iterable[str]) -> None:
        """Told to the executor below."""

    def fire(self) -> tuple[float, float]:
        """Fire once; return the wall and the processor milliseconds from the trigger to the started process."""
        self.clock.advance_ms(60_000)
        wall, processor = time.perf_counter(), time.process_time()
        self.engine.look(Trigger.CRON)
        (order,) = self.waiting
        self.waiting.clear()
        sent = json.dumps(order.as_request() if self.checks else order.as_json()).encode()
        told = json.loads(sent)
        believed = self.warrants.order(told) if self.checks else order_from(told)
        # The engine's clock is not the machine's.
        self.executor.start(believed._replace(expires_boot_s=None))
        while not (events := self.executor.poll(1.0)):
            pass
        if not isinstance(events[0], Started):
            raise RuntimeError(f"the fire did not start: {events}")
        found = (time.perf_counter() - wall) * 1000, (time.process_time() - processor) * 1000
        while not self.executor.idle:
            self.executor.poll(1.0)
        self.executor.forget(order.run_id)
        return found


def measure(fires: int) -> None:
    """Print what a fire takes on both sides, in turns."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        sides = [Node(Path(one), checks=True), Node(Path(other), checks=False)]
        for node in sides:
            for _ in range(5):
                node.fire()
        pairs = []
        for number in range(fires):
            found = {node.checks: node.fire() for node in (sides if number % 2 == 0 else sides[::-1])}
            pairs.append((found[True], found[False]))
    for index, what in enumerate(("wall ms", "processor ms")):
        on, off = [one[index] for one, _ in pairs], [other[index] for _, other in pairs]
        more = statistics.median(on) - statistics.median(off)
        print(
            f"  a fire, {what}: {statistics.median(on):.3f} on, {statistics.median(off):.3f} off, {more:+.3f} (medians)"
        )


if __name__ == "__main__":
    measure(200)
