"""Many runs at once: what they share, and what each of them keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.run import Reason, Run, RunState
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.engine_thread import HEAR_EVERY_S, EngineThread
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.orders import Ended, Order, Started
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.tasks import Here, install

SIGNER = Signer.from_seed(bytes(range(32)))
MINUTE = 60_000


@dataclass
class RunnerOfOrders:
    """A runner that keeps what it is told."""

    orders: list[Order] = field(default_factory=list)

    def start(self, orders: Sequence[Order]) -> None:
        self.orders += orders

    def cancel(self, run_id: str) -> None:
        raise AssertionError(f"nobody asked to end {run_id}")

    def ack(self, run_ids: Iterable[str]) -> None:
        """Nothing is kept."""


class PlainOrders:
    def obstacle(self, item: object) -> Reason | None:
        return None

    def make(self, item: object, run: Run) -> Order:
        return Order(run.id, run.nonce, command="true")


class Herd:
    """One node with many tasks that are due every minute."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.journal = Journal(folder / "journal.db")
        self.runner = RunnerOfOrders()
        self.fences = Fences(self.store.runs, lambda: None, claim_wait_s=5, clock=self.clock)
        self.engine = Engine(
            Parts(
                "w1", self.journal, self.fences, self.runner, PlainOrders(), self.store.runs.claim_pending,
                self.clock, WorkerMetrics(CollectorRegistry()),
            )
        )  # fmt: skip
        guard = PauseGuard(self.clock, self.clock.boot_s)
        self.thread = EngineThread(self.engine, self.clock, guard, timers=True)
        self.syncs = 0
        self.journal._db.set_trace_callback(self._count)

    def give(self, jobs: int, spec: JobSpec | None = None) -> None:
        spec = spec or JobSpec("true", "* * * * *", JobType.COMMAND)
        now_ms = self.clock.now_ms()
        rows = [
            TaskRow(TaskId(n, 0), 1, 1, SIGNER.seal(Task(n, 1, JobState.ACTIVE, now_ms, spec)), now_ms)
            for n in range(1, jobs + 1)
        ]
        verifier = Verifier([SIGNER.public_bytes])
        self.engine.take([(row, install(row, verifier, Here("w1", 0))) for row in rows], [])

    def turn(self, ms: int = 0) -> None:
        """Let time pass, and the engine's thread go round once."""
        self.clock.advance_ms(ms)
        self.thread._turn()

    def start(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.thread.tell(Started(run_id, 7, self.clock.now_ms()))

    def end(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.thread.tell(Ended(run_id, self.clock.now_ms(), 0, None, False, False, 0, ""))

    def ordered(self) -> list[str]:
        return [order.run_id for order in self.runner.orders]

    def state(self, run_id: str) -> RunState:
        entry = self.journal.entry(RunKey.parse(run_id))
        assert entry is not None
        return entry.run.state

    def _count(self, statement: str) -> None:
        self.syncs += statement == "COMMIT"


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    found = Herd(tmp_path)
    yield found
    found.fences.close()
    found.journal.close()


def test_starts_and_ends_that_come_together_are_written_down_with_one_sync(herd: Herd) -> None:
    herd.give(3)
    herd.turn(MINUTE)
    one, two, three = herd.ordered()
    herd.start(one, two, three)
    herd.end(one, two)
    before = herd.syncs
    herd.turn()
    assert herd.syncs == before + 1
    assert [herd.state(run) for run in (one, two, three)] == [RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.RUNNING]
    entry = herd.journal.entry(RunKey.parse(one))
    assert entry is not None
    assert entry.run.started_ms == herd.clock.now_ms(), "the end says what the start has said"


def test_news_is_written_down_at_once_and_what_follows_it_closely_together(herd: Herd) -> None:
    herd.give(3)
    herd.turn(MINUTE)
    one, two, three = herd.ordered()
    herd.start(one)
    herd.turn()
    assert herd.state(one) is RunState.RUNNING
    herd.start(two)
    herd.turn(1)
    herd.start(three)
    herd.turn(1)
    assert herd.state(two) is herd.state(three) is RunState.PENDING
    assert herd.thread._wait_s() <= HEAR_EVERY_S
    before = herd.syncs
    herd.turn(round(HEAR_EVERY_S * 1000))
    assert herd.syncs == before + 1
    assert herd.state(two) is herd.state(three) is RunState.RUNNING


def test_how_many_run_is_known_however_they_come_and_go(herd: Herd) -> None:
    herd.give(4)
    herd.turn(MINUTE)
    assert herd.engine.running() == 4
    first, *others = herd.ordered()
    herd.start(first, first)
    herd.end(first, first)
    herd.turn()
    assert herd.engine.running() == 3
    herd.engine.uninstall([RunKey.parse(run).task for run in others])
    assert herd.engine.running() == 3, "those whose tasks have left count, too"
    herd.give(4)
    assert herd.engine.running() == 3
    herd.end(*others)
    herd.turn(1000)
    assert herd.engine.running() == 0
