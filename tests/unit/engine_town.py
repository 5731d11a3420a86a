"""Workers over one pair of stores, with lines that can be cut: the real engine, agent, lease and reporter of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobSpec, JobState
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Leadership, Store
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_worker.agent import Agent, Node
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.fences import Fence, Fences
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow
from cronkeeper_worker.lease import Lease
from cronkeeper_worker.orders import Ended, Order
from cronkeeper_worker.reporter import Reporter
from cronkeeper_worker.steady_clock import SteadyClock
from cronkeeper_worker.tasks import Here, Installed, install_sound

SIGNER = Signer.from_seed(bytes(range(32)))
TASK = TaskId(17, 0)
MINUTE = 60_000


class Line:
    """The way from one worker to MySQL: every call of a store or sub-store goes through it."""

    def __init__(self, target: object, line: Line | None = None) -> None:
        self._target, self._line = target, line or self
        self.cut = self.deaf = self.mute = False

    def __getattr__(self, name: str) -> Any:
        found, line = getattr(self._target, name), self._line
        if not callable(found):
            return Line(found, line)

        def call(*args: Any, **kwargs: Any) -> Any:
            if line.cut or line.deaf:
                line.deaf = False
                raise UnavailableError("MySQL never hears it")
            result = found(*args, **kwargs)
            if line.mute:
                line.mute = False
                raise UnavailableError("MySQL's answer is lost")
            return result

        return call


@dataclass(frozen=True, slots=True)
class Start:
    """The truth about a start, as the process itself would tell it."""

    key: RunKey
    worker: str
    at_ms: int
    fence: str
    generation: int


@dataclass
class Processes:
    """A node's runner: it starts each order once, refuses those that have expired, and keeps what it has to tell."""

    clock: FakeClock
    started: Callable[[Order], None]
    live: dict[str, Order] = field(default_factory=dict)
    known: dict[str, Order] = field(default_factory=dict)
    #: Orders that are on their way to a runner that is stopped.
    held: list[Order] = field(default_factory=list)
    stopped: bool = False
    news: list[tuple[str, str]] = field(default_factory=list)
    #: How those ended that are over, as their folders say.
    over: dict[str, str] = field(default_factory=dict)

    def start(self, orders: Sequence[Order]) -> None:
        self.held += orders
        if not self.stopped:
            self.go_on()

    def go_on(self) -> None:
        orders, self.held, self.stopped = self.held, [], False
        for order in orders:
            if order.run_id in self.known:
                assert self.known[order.run_id].nonce == order.nonce, f"{order.run_id}: two nonces on one node"
                continue
            if order.expires_boot_s is not None and self.clock.boot_s() > order.expires_boot_s:
                self.news.append(("expired", order.run_id))
                continue
            self.known[order.run_id] = self.live[order.run_id] = order
            self.started(order)
            self.news.append(("started", order.run_id))

    def cancel(self, run_id: str) -> None:
        self.end(run_id, "cancelled")

    def ack(self, run_ids: Iterable[str]) -> None:
        """Nothing is forgotten here: an order that comes again is still one order."""

    def end(self, run_id: str, how: str) -> None:
        if self.live.pop(run_id, None) is not None:
            self.news.append((how, run_id))
            self.over[run_id] = how


class PlainOrders:
    def obstacle(self, item: Installed) -> Reason | None:
        return None

    def make(self, item: Installed, run: Run) -> Order:
        return Order(run.id, run.nonce, command=item.work.executable)


class Worker:
    """A node: its journal and its processes outlive the daemon."""

    def __init__(self, town: EngineTown, name: str) -> None:
        self.town, self.name, self.up = town, name, True
        self.line = Line(town.store)
        self.journal = Journal(Path(":memory:"))
        self.processes = Processes(town.clock, self._on_start)
        self.coordinator = MemoryCoordinator(town.ensemble, name, clock=town.clock)
        self.coordinator.start(1.0)
        self.epochs = 0
        self.generation = 0
        self.no_zookeeper = False
        self.silent_since_ms: int | None = None
        self.boot()

    def boot(self) -> None:
        """Start a daemon over what the last one left."""
        self.up, self.epochs = True, self.epochs + 1
        store, clock, metrics = cast(Store, self.line), self.town.clock, WorkerMetrics(CollectorRegistry())
        info = WorkerInfo(self.name, self.name, epoch=f"{self.name}-{self.epochs}")
        self.fences = Fences(store.runs, lambda: self.coordinator, claim_wait_s=5, clock=clock)
        parts = Parts(
            self.name, self.journal, self.fences, self.processes, PlainOrders(), store.runs.claim_pending, clock,
            metrics,
        )  # fmt: skip
        self.engine = Engine(parts)
        engine = self.engine
        node = Node(self._apply, self._have, engine.demand, engine.retry, engine.set_foreign, self._adopt)
        verifier = Verifier([SIGNER.public_bytes])
        self.agent = Agent(info, self.coordinator, store, self.journal, verifier, node, clock, metrics, started_ms=0)
        self.lease = Lease(
            info, store, self.fences, SteadyClock(clock), metrics, every_s=2, cancel=self.engine.cancel,
            foreign=self.engine.has_foreign, refresh_foreign=self.agent.refresh_foreign, reborn=self._reborn,
        )  # fmt: skip
        self.reporter = Reporter(
            self.journal, store, self.coordinator, clock, metrics,
            output_file=lambda key: Path("/nonexistent") / str(key), acknowledge=self.processes.ack,
            given_up=self.agent.look_after,
        )  # fmt: skip
        self.engine.install(install_sound(self.journal.tasks(), verifier, Here(self.name, 0)))
        self._go_on_with(self.journal.open_entries())

    def crash(self) -> None:
        """kill -9 of the daemon: what the runner tells meanwhile waits for the next one."""
        self.up = False
        self.fences.close()

    def journal_trigger(self, key: RunKey) -> Trigger | None:
        entry = self.journal.entry(key)
        return None if entry is None else entry.run.trigger

    @property
    def cut_off(self) -> bool:
        """Whether neither witness can see it."""
        return not self.up or (self.line.cut and not self.coordinator.connected)

    def hear(self) -> None:
        """Take the runner's news as the engine's thread does: what did happen before what did not."""
        news, self.processes.news = sorted(self.processes.news, key=lambda one: one[0] == "expired"), []
        now_ms = self.town.clock.now_ms()
        for kind, run_id in news:
            key = RunKey.parse(run_id)
            if kind == "started":
                self.engine.hear([(key, now_ms)], [])
            elif kind == "expired":
                self.engine.on_expired([key])
            else:
                self.engine.hear([], [self._ended(run_id, kind)])

    def look(self, trigger: Trigger = Trigger.TIMER) -> None:
        self.hear()
        self.engine.look(trigger)
        self.hear()

    def try_to(self, step: Callable[[], float]) -> None:
        """One turn of a loop, which waits and tries again when a store is away."""
        try:
            step()
        except UnavailableError:
            return

    def _on_start(self, order: Order) -> None:
        key = RunKey.parse(order.run_id)
        # A grant by MySQL is not journaled before the start; an order without an expiry was granted by nobody.
        entry = self.journal.entry(key)
        fence = entry.claim_fence if entry is not None and entry.phase is Phase.CLAIMED else Fence.MYSQL.value
        generation = self.engine.tasks[key.task].generation if key.task in self.engine.tasks else 0
        self.town.on_start(Start(key, self.name, self.town.clock.now_ms(), fence, generation), self)

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        self.engine.take(given, dropped)

    def _have(self) -> dict[TaskId, Installed]:
        return dict(self.engine.tasks)

    def _adopt(self, runs: Sequence[Run]) -> None:
        """As the daemon does: a claim whose answer was lost, and that was given up, is found in the ledger again."""
        entries = [
            Entry(run, Phase.STARTED if run.state is RunState.RUNNING else Phase.CLAIMED, claim_fence=Fence.MYSQL.value)
            for run in runs
        ]
        self.journal.update(entries, report=False)
        self._go_on_with(entries)

    def _go_on_with(self, entries: Sequence[Entry]) -> None:
        self.engine.resume(entries, lambda key: str(key) in self.processes.known, self._how_it_ended)

    def _how_it_ended(self, key: RunKey) -> Ended | None:
        how = self.processes.over.get(str(key))
        return None if how is None else self._ended(str(key), how)

    def _ended(self, run_id: str, how: str) -> Ended:
        code = {"ok": 0, "failed": 3}.get(how)
        lost, cancelled = how == "lost", how == "cancelled"
        return Ended(run_id, self.town.clock.now_ms(), code, None, False, cancelled, 0, "", lost=lost)

    def _reborn(self) -> str:
        self.epochs += 1
        self.agent.reborn(f"{self.name}-{self.epochs}")
        return self.agent.info.epoch


class EngineTown:
    """The stores, the leader's hand, and the workers."""

    def __init__(self, spec: JobSpec, *names: str) -> None:
        self.clock, self.ensemble = FakeClock(), MemoryEnsemble()
        self.store = MemoryStore(self.clock)
        self.leader = MemoryCoordinator(self.ensemble, "m1", clock=self.clock)
        self.leader.start(1.0)
        self.leader.ensure_layout()
        self.leader.campaign(LeaderNote("m1", "host", 1))
        self.leader.mark_ready(self.leadership())
        self.term = self.store.terms.take("m1")
        self.starts: list[Start] = []
        self.on_start: Callable[[Start, Worker], None] = lambda start, _: self.starts.append(start)
        self.spec, self.generation, self.state = spec, 0, JobState.ACTIVE
        self.since_ms, self.epoch = self.clock.now_ms(), 0
        self.effective_ms = 0
        self.edit(spec)
        self.workers = {name: Worker(self, name) for name in names}

    def leadership(self) -> Leadership:
        found = self.leader.leadership()
        assert found is not None
        return found

    def edit(self, spec: JobSpec, state: JobState = JobState.ACTIVE) -> None:
        """Save a new generation, and tell it."""
        self.spec, self.state, self.generation = spec, state, self.generation + 1
        self.effective_ms = self.clock.now_ms()
        task = Task(TASK.job_id, self.generation, state, self.effective_ms, spec)
        self.leader.put_tasks({TASK: SIGNER.seal(task)})

    def home(self) -> str | None:
        return next((name for name, tasks in self.leader.all_assigned().items() if TASK in tasks), None)

    def owners(self) -> list[str]:
        return [name for name, tasks in self.leader.all_owned().items() if TASK in tasks]

    def assign(self, name: str) -> None:
        self.epoch += 1
        now_ms = self.clock.now_ms()
        item = Assignment(TASK, name, self.generation, self.epoch, MoveReason.NEW, now_ms, self.since_ms)
        self.leader.move([item], [], self.leadership())

    def revoke(self) -> None:
        home = self.home()
        if home is not None:
            self.since_ms = self.clock.now_ms()
            self.leader.move([], [(home, TASK)], self.leadership())

    def bury(self, worker: Worker) -> None:
        """Declare a worker lost that neither witness has seen for long: lease, runs and znodes, in this order."""
        if worker.coordinator.connected:
            worker.coordinator.cut()
        worker.coordinator.expire()
        for lease in self.store.leases.leases():
            if lease.worker == worker.name:
                self.store.leases.declare_lost(
                    worker.name, incarnation=lease.incarnation, stale_ms=6000, term=self.term
                )
        self.store.runs.lose(worker.name, term=self.term, reason=Reason.WORKER_LOST.value)
        if worker.silent_since_ms is not None and self.home() == worker.name:
            self.since_ms = max(self.since_ms, worker.silent_since_ms)
        self.leader.clear_worker(worker.name, self.leadership())
