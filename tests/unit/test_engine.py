"""The engine over a real journal and the shipped memory store: decide, claim, start, end, retry, take over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency, Delivery, JobSpec, JobState, JobType, Misfire, OnWorkerLoss
from cronkeeper.domain.placement import START_WITHIN_S, Assignment, MoveReason
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts, order_expiry_s
from cronkeeper_worker.engine_thread import EngineThread
from cronkeeper_worker.fences import Answer, Fence, Fences, Outcome
from cronkeeper_worker.journal import Journal, Phase, TaskRow
from cronkeeper_worker.orders import Ended, Expired, Order, SpawnFailed
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.tasks import Here, Installed, install, never_before

SIGNER = Signer.from_seed(bytes(range(32)))
MINUTE = 60_000
TASK = TaskId(17, 0)


@dataclass
class RunnerOfOrders:
    """A runner that keeps what it is told, and does as little as possible."""

    orders: list[Order] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    away: bool = False

    def start(self, orders: Sequence[Order]) -> None:
        if self.away:
            raise UnavailableError("no runner")
        self.orders += orders

    def cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)

    def ack(self, run_ids: Iterable[str]) -> None:
        """Nothing is kept."""


@dataclass
class PlainOrders:
    """Makes the simplest order; an obstacle can be put in its way."""

    fault: Reason | None = None

    def obstacle(self, item: Installed) -> Reason | None:
        return self.fault

    def make(self, item: Installed, run: Run) -> Order:
        return Order(run.id, run.nonce, command=item.work.executable)


class World:
    """One node over a shared store: what the daemon wires together, without its threads."""

    def __init__(
        self, folder: Path, store: MemoryStore, clock: FakeClock, ensemble: MemoryEnsemble, name: str = "w1"
    ) -> None:
        self.clock, self.store, self.name, self.folder = clock, store, name, folder
        self.coordinator = MemoryCoordinator(ensemble, name)
        self.coordinator.start(1.0)
        self.coordinator.ensure_layout()
        self.runner, self.orders = RunnerOfOrders(), PlainOrders()
        self.here = Here(name, 0)
        self.boot()

    def boot(self) -> None:
        """Start a daemon: everything but the journal is new."""
        self.journal = Journal(self.folder / f"{self.name}.db")
        self.fences = Fences(self.store.runs, lambda: self.coordinator, claim_wait_s=5, clock=self.clock)
        self.parts = Parts(
            worker=self.name,
            journal=self.journal,
            fences=self.fences,
            runner=self.runner,
            orders=self.orders,
            claim_pending=self.store.runs.claim_pending,
            clock=self.clock,
            metrics=WorkerMetrics(CollectorRegistry()),
        )
        self.engine = Engine(self.parts)

    def give(self, spec: JobSpec, *, generation: int = 1, state: JobState = JobState.ACTIVE) -> None:
        """Have the task assigned, as the agent does it."""
        envelope = SIGNER.seal(Task(TASK.job_id, generation, state, self.clock.now_ms(), spec))
        row = TaskRow(TASK, generation, 7, envelope, self.clock.now_ms())
        self.journal.save_tasks([row])
        self.engine.install([install(row, Verifier([SIGNER.public_bytes]), self.here)])

    def install_again(self) -> None:
        """What a daemon does at its start."""
        self.engine.install([install(row, Verifier([SIGNER.public_bytes]), self.here) for row in self.journal.tasks()])

    def pass_minutes(self, minutes: float, *, look: bool = True) -> None:
        self.clock.advance_ms(round(minutes * MINUTE))
        if look:
            self.engine.look(Trigger.TIMER)

    def begin(self, run_id: str) -> None:
        self.engine.hear([(RunKey.parse(run_id), self.clock.now_ms())], [])

    def end(self, run_id: str, exit_code: int | None = 0, *, lost: bool = False, cancelled: bool = False) -> None:
        self.engine.hear([], [Ended(run_id, self.clock.now_ms(), exit_code, None, False, cancelled, 0, "", lost=lost)])

    def ordered(self) -> list[str]:
        return [order.run_id for order in self.runner.orders]

    def state(self, run_id: str) -> RunState:
        entry = self.journal.entry(RunKey.parse(run_id))
        assert entry is not None
        return entry.run.state

    def report(self) -> None:
        """Carry the journal home."""
        dirty = [entry.run for entry in self.journal.dirty(1000)]
        self.store.runs.record(dirty)
        self.journal.mark_reported(dirty)

    def states(self) -> list[str]:
        return [entry.state for entry in self.store.runs.history(TASK.job_id, limit=100)]


def spec(**changes: object) -> JobSpec:
    return replace(JobSpec("true", "* * * * *", JobType.COMMAND), **changes)  # type: ignore[arg-type]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    clock, ensemble = FakeClock(), MemoryEnsemble()
    store = MemoryStore(clock)
    return lambda name="w1": World(tmp_path, store, clock, ensemble, name)


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    return make()


def test_a_due_fire_is_claimed_started_and_recorded(world: World) -> None:
    world.give(spec())
    world.pass_minutes(1)
    (run_id,) = world.ordered()
    assert world.states() == ["claimed"]
    world.begin(run_id)
    world.end(run_id)
    world.report()
    (run,) = world.store.runs.history(TASK.job_id, limit=10)
    assert (run.state, run.worker, run.fence, run.trigger, run.autonomous) == ("succeeded", "w1", 7, "timer", False)


def test_a_second_trigger_for_the_same_minute_does_nothing(world: World) -> None:
    world.give(spec())
    world.pass_minutes(1)
    world.engine.look(Trigger.CRON)
    assert len(world.ordered()) == 1


def test_two_nodes_with_the_same_task_start_a_fire_once(make: Callable[..., World]) -> None:
    first, second = make("w1"), make("w2")
    for node in (first, second):
        node.give(spec())
    first.pass_minutes(1)
    second.engine.look(Trigger.CRON)
    assert (len(first.ordered()), second.ordered()) == (1, [])
    second.report()
    assert first.states() == ["claimed"]


def test_without_mysql_zookeeper_is_the_fence(make: Callable[..., World]) -> None:
    first, second = make("w1"), make("w2")
    for node in (first, second):
        node.give(spec())
    first.store.set_available(False)
    first.pass_minutes(1)
    second.engine.look(Trigger.TIMER)
    assert (len(first.ordered()), second.ordered()) == (1, [])
    first.store.set_available(True)
    first.report()
    assert first.states() == ["claimed"]
    assert not first.store.runs.history(TASK.job_id, limit=1)[0].autonomous


def test_without_any_fence_at_least_once_runs_and_says_so(world: World) -> None:
    world.give(spec())
    world.store.set_available(False)
    world.coordinator.stop()
    world.pass_minutes(1)
    world.end(world.ordered()[0])
    world.store.set_available(True)
    world.report()
    (run,) = world.store.runs.history(TASK.job_id, limit=10)
    assert (run.state, run.autonomous) == ("succeeded", True)


def test_without_mysql_at_most_once_waits_and_runs_when_it_is_back(world: World) -> None:
    world.give(spec(delivery=Delivery.AT_MOST_ONCE, schedule="0 * * * *"))
    world.store.set_available(False)
    world.pass_minutes(60)
    assert world.ordered() == []
    world.store.set_available(True)
    world.fences.mysql_ok = True
    world.pass_minutes(1)
    assert len(world.ordered()) == 1


def test_without_mysql_at_most_once_is_skipped_with_its_reason_when_the_grace_is_over(world: World) -> None:
    world.give(spec(delivery=Delivery.AT_MOST_ONCE, schedule="0 * * * *", grace_s=60))
    world.store.set_available(False)
    world.pass_minutes(60)
    world.pass_minutes(2)
    world.store.set_available(True)
    world.report()
    (run,) = world.store.runs.history(TASK.job_id, limit=10)
    assert (run.state, run.reason, world.ordered()) == ("skipped", Reason.ISOLATED, [])


def test_a_lost_answer_to_a_claim_is_not_a_lost_fire(world: World) -> None:
    world.give(spec())
    world.store.fail_next("runs.claim", landed=True)
    world.pass_minutes(1)
    assert len(world.ordered()) == 1
    world.report()
    assert world.states() == ["claimed"]


@pytest.mark.parametrize("phase", ["decided", "claimed", "started"])
def test_a_daemon_that_dies_at_any_point_loses_and_doubles_nothing(world: World, phase: str) -> None:
    world.give(spec())
    if phase == "decided":
        world.store.set_available(False)
        world.coordinator.stop()
        world.runner.away = True
    world.pass_minutes(1)
    world.runner.away = False
    known = set(world.ordered())
    if phase == "started":
        world.begin(world.ordered()[0])
    world.store.set_available(True)
    world.coordinator.start(1.0)
    world.runner.orders.clear()
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: str(key) in known, lambda _key: None)
    world.engine.look(Trigger.TIMER)
    expected = f"17-0-{world.clock.now_ms() // MINUTE * MINUTE}-1"
    assert known | set(world.ordered()) == {expected}
    world.end(expected)
    world.report()
    assert world.states() == ["succeeded"]


def test_a_daemon_that_was_given_up_while_it_was_away_does_not_start_what_it_had_claimed(world: World) -> None:
    world.give(spec())
    world.runner.away = True
    world.pass_minutes(1)
    world.runner.away = False
    world.store.runs.lose("w1", term=world.store.terms.take("m1"), reason="worker_lost")
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: False, lambda _key: None)
    assert world.ordered() == []
    assert world.states() == ["lost"]


def test_overlap_is_skipped_with_its_reason(world: World) -> None:
    world.give(spec())
    world.pass_minutes(1)
    world.pass_minutes(1)
    world.report()
    assert sorted(world.states()) == ["claimed", "skipped"]
    assert world.store.runs.history(TASK.job_id, limit=1)[0].reason is Reason.OVERLAP


def test_queue_starts_the_next_run_when_the_last_one_ends(world: World) -> None:
    world.give(spec(concurrency=Concurrency.QUEUE))
    world.pass_minutes(1)
    world.pass_minutes(1)
    assert len(world.ordered()) == 1
    world.end(world.ordered()[0])
    assert len(world.ordered()) == 2


@pytest.mark.parametrize("policy", [Concurrency.QUEUE, Concurrency.FORBID])
def test_fires_that_are_caught_up_run_one_after_the_other(world: World, policy: Concurrency) -> None:
    world.give(spec(concurrency=policy, misfire=Misfire.ALL))
    world.pass_minutes(3.5)
    for number in (1, 2, 3):
        assert len(world.ordered()) == number
        world.end(world.ordered()[-1])


def test_fires_of_another_node_hold_up_nothing_that_waits_behind_them(make: Callable[..., World]) -> None:
    theirs, ours = make("w1"), make("w2")
    for node in (theirs, ours):
        node.give(spec(concurrency=Concurrency.FORBID, misfire=Misfire.ALL))
    for _ in range(3):
        theirs.pass_minutes(1)
        theirs.end(theirs.ordered()[-1])
    # The other one is gone for two minutes, and we did not know that it had decided the three before.
    ours.pass_minutes(2)
    assert [RunKey.parse(run_id).fire_ms for run_id in ours.ordered()] == [ours.clock.now_ms() - MINUTE]
    ours.end(ours.ordered()[-1])
    assert [RunKey.parse(run_id).fire_ms for run_id in ours.ordered()[1:]] == [ours.clock.now_ms()]


def test_replace_ends_the_old_run_first(world: World) -> None:
    world.give(spec(concurrency=Concurrency.REPLACE))
    world.pass_minutes(1)
    world.pass_minutes(1)
    (old,) = world.ordered()
    assert world.runner.cancelled == [old]
    world.end(old, None, cancelled=True)
    assert len(world.ordered()) == 2
    world.report()
    assert world.store.runs.get(RunKey.parse(old)).reason is Reason.REPLACED


def test_a_run_of_another_node_counts_as_overlap_until_it_ends(world: World) -> None:
    world.give(spec(concurrency=Concurrency.QUEUE))
    world.engine.set_foreign({TASK: frozenset({RunKey(TASK, 1, 1)})})
    world.pass_minutes(1)
    assert world.ordered() == []
    world.engine.set_foreign({})
    assert len(world.ordered()) == 1


@pytest.mark.parametrize(("misfire", "attempted"), [(Misfire.ALL, [1, 2]), (Misfire.LATEST, [2])])
def test_a_fire_that_meets_a_run_of_another_node_waits_where_all_are_wanted(
    world: World, misfire: Misfire, attempted: list[int]
) -> None:
    """It may have ended long ago: with MySQL away until now, its node could tell nobody."""
    world.give(spec(misfire=misfire))
    first_ms = world.clock.now_ms() // MINUTE * MINUTE
    world.engine.set_foreign({TASK: frozenset({RunKey(TASK, 1, 1)})})
    world.pass_minutes(1)
    assert world.ordered() == []
    world.engine.set_foreign({})
    for run_id in world.ordered():
        world.end(run_id)
    world.pass_minutes(1)
    assert [(RunKey.parse(run_id).fire_ms - first_ms) // MINUTE for run_id in world.ordered()] == attempted


def test_what_waits_for_a_run_of_another_node_is_skipped_once_its_grace_is_over(world: World) -> None:
    world.give(spec(misfire=Misfire.ALL, grace_s=60))
    world.engine.set_foreign({TASK: frozenset({RunKey(TASK, 1, 1)})})
    for _ in range(3):
        world.pass_minutes(1)
    world.clock.advance_ms(1)
    world.engine.set_foreign({})
    world.end(world.ordered()[0])
    assert len(world.ordered()) == 1
    world.report()
    assert world.states() == ["succeeded", "skipped", "skipped"]


def test_a_failed_run_is_tried_again_after_its_back_off(world: World) -> None:
    world.give(spec(schedule="0 * * * *", retry=Retry(1, 30, 60)))
    world.pass_minutes(60)
    world.end(world.ordered()[0], 3)
    world.pass_minutes(0.4)
    assert len(world.ordered()) == 1
    world.pass_minutes(0.2)
    assert [RunKey.parse(run_id).attempt for run_id in world.ordered()] == [1, 2]
    world.end(world.ordered()[1], 3)
    world.pass_minutes(5)
    assert len(world.ordered()) == 2


def test_a_retry_that_waits_when_its_job_is_paused_is_skipped_and_stays_so(world: World) -> None:
    job = spec(schedule="0 * * * *", retry=Retry(3, 30, 60))
    world.give(job)
    world.pass_minutes(60)
    world.end(world.ordered()[0], 3)
    world.give(job, generation=2, state=JobState.PAUSED)
    world.pass_minutes(30)
    world.give(job, generation=3)
    world.pass_minutes(5)
    assert len(world.ordered()) == 1
    world.report()
    skipped = world.store.runs.get(replace(RunKey.parse(world.ordered()[0]), attempt=2))
    assert (skipped.state, skipped.reason, skipped.trigger) == (RunState.SKIPPED, Reason.PAUSED, Trigger.RETRY)


@pytest.mark.parametrize("lost", [False, True])
def test_what_fails_or_is_lost_while_its_job_is_paused_is_not_run_again(world: World, *, lost: bool) -> None:
    job = spec(schedule="0 * * * *", retry=Retry(3, 30, 60))
    world.give(job)
    world.pass_minutes(60)
    world.begin(world.ordered()[0])
    world.give(job, generation=2, state=JobState.PAUSED)
    world.end(world.ordered()[0], None if lost else 3, lost=lost)
    world.pass_minutes(30)
    world.give(job, generation=3)
    world.pass_minutes(5)
    assert len(world.ordered()) == 1
    assert world.journal.open_entries() == []


def test_what_waits_for_its_turn_when_its_job_is_paused_is_skipped(world: World) -> None:
    job = spec(concurrency=Concurrency.QUEUE)
    world.give(job)
    world.pass_minutes(1)
    world.pass_minutes(1)
    world.give(job, generation=2, state=JobState.PAUSED)
    world.end(world.ordered()[0])
    assert len(world.ordered()) == 1
    world.report()
    assert sorted(world.states()) == ["skipped", "succeeded"]


def test_a_retry_of_a_job_that_was_paused_while_the_daemon_was_down_is_skipped(world: World) -> None:
    job = spec(schedule="0 * * * *", retry=Retry(3, 30, 60))
    world.give(job)
    world.pass_minutes(60)
    world.end(world.ordered()[0], 3)
    world.boot()
    world.give(job, generation=2, state=JobState.PAUSED)
    world.engine.resume(world.journal.open_entries(), lambda key: False, lambda _key: None)
    world.pass_minutes(30)
    assert len(world.ordered()) == 1
    assert world.journal.open_entries() == []


def test_a_run_on_demand_of_a_paused_job_runs_also_if_it_has_to_wait(world: World) -> None:
    job = spec(schedule="0 * * * *")
    world.give(job)
    world.pass_minutes(60)
    asked = RunKey(TASK, world.clock.now_ms() + 1, 1)
    world.store.runs.request(Run(asked, Trigger.MANUAL, RunState.PENDING))
    world.engine.demand([asked])
    world.give(job, generation=2, state=JobState.PAUSED)
    assert len(world.ordered()) == 1
    world.end(world.ordered()[0])
    assert world.ordered()[1:] == [str(asked)]


@pytest.mark.parametrize(("policy", "attempts"), [(OnWorkerLoss.RERUN, [1, 2]), (OnWorkerLoss.HOLD, [1])])
def test_a_run_whose_end_nobody_saw(world: World, policy: OnWorkerLoss, attempts: list[int]) -> None:
    world.give(spec(schedule="0 * * * *", on_worker_loss=policy))
    world.pass_minutes(60)
    world.end(world.ordered()[0], None, lost=True)
    world.pass_minutes(0.1)
    assert [RunKey.parse(run_id).attempt for run_id in world.ordered()] == attempts
    assert world.state(world.ordered()[0]) is RunState.LOST


def test_at_most_once_never_runs_a_lost_run_again(world: World) -> None:
    world.give(spec(schedule="0 * * * *", delivery=Delivery.AT_MOST_ONCE, on_worker_loss=OnWorkerLoss.RERUN))
    world.pass_minutes(60)
    world.end(world.ordered()[0], None, lost=True)
    world.pass_minutes(10)
    assert len(world.ordered()) == 1


def test_an_order_is_good_for_four_seconds_after_the_last_sign_of_life(world: World) -> None:
    fences = Fences(world.store.runs, lambda: None, claim_wait_s=5, clock=world.clock)
    parts = replace(world.parts, fences=fences)
    now_s = world.clock.boot_s()
    by_mysql, by_zookeeper, by_nobody = (Answer(Outcome.GRANTED, fence, now_s - 0.5) for fence in Fence)
    assert order_expiry_s(parts, by_mysql) == now_s - 0.5 + START_WITHIN_S
    fences.lease_heard_s = now_s - 1.5
    assert order_expiry_s(parts, by_zookeeper) == now_s - 1.5 + START_WITHIN_S
    assert order_expiry_s(parts, by_nobody) == now_s - 0.5 + START_WITHIN_S
    fences.lease_heard_s = now_s - 60
    assert order_expiry_s(parts, by_mysql) == now_s - 0.5 + START_WITHIN_S
    assert order_expiry_s(parts, by_nobody) == now_s - 0.5 + START_WITHIN_S


@pytest.mark.parametrize("fence", list(Fence))
def test_what_is_heard_after_a_claim_was_asked_does_not_prolong_its_order(world: World, fence: Fence) -> None:
    """Seed 7 of the random schedules: the answer lay there for 18 s, and a new session was alive by then."""
    fences = Fences(world.store.runs, lambda: None, claim_wait_s=5, clock=world.clock)
    asked_s = world.clock.boot_s()
    world.clock.advance_ms(18_000)
    fences.lease_heard_s = world.clock.boot_s()
    expiry_s = order_expiry_s(replace(world.parts, fences=fences), Answer(Outcome.GRANTED, fence, asked_s))
    assert expiry_s == asked_s + START_WITHIN_S


@pytest.mark.parametrize("keeps_a_lease", [True, False], ids=["a daemon", "cron's stand-in"])
def test_a_pause_between_a_claim_and_its_answer_is_none_of_the_order_s_time(
    world: World, monkeypatch: pytest.MonkeyPatch, keeps_a_lease: bool
) -> None:
    """Granted, then paused until another owner has run the fire: the answer was there all the time, and is stale."""
    world.give(spec(schedule="0 * * * *"))
    if keeps_a_lease:
        world.fences.lease_heard_s = world.clock.boot_s() + 3600
        monkeypatch.setattr(world, "coordinator", None)
    claim = world.store.runs.claim

    def claim_and_pause(runs: Sequence[Run]) -> dict[RunKey, bool]:
        answers = claim(runs)
        world.clock.advance_ms(17_000)
        return answers

    monkeypatch.setattr(world.store.runs, "claim", claim_and_pause)
    world.pass_minutes(60)
    (order,) = world.runner.orders
    assert order.expires_boot_s is not None and order.expires_boot_s < world.clock.boot_s() - 10


def test_an_order_without_a_fence_expires_too_and_then_a_fence_is_asked(world: World) -> None:
    world.give(spec(schedule="0 * * * *"))
    world.store.set_available(False)
    world.coordinator.cut()
    world.pass_minutes(60)
    order = world.runner.orders[0]
    assert order.expires_boot_s == world.clock.boot_s() + START_WITHIN_S
    # A runner that was stopped finds it minutes later. Meanwhile another owner has had the fire.
    world.store.set_available(True)
    world.fences.mysql_ok = True
    key = RunKey.parse(order.run_id)
    world.store.runs.claim([Run(key, Trigger.TIMER, RunState.CLAIMED, "w2", "theirs")])
    world.clock.advance_ms(5_000)
    world.engine.on_expired([key])
    assert world.ordered() == [order.run_id]


def test_an_order_that_came_too_late_is_claimed_again_and_started_if_the_claim_stands(world: World) -> None:
    world.give(spec(schedule="0 * * * *"))
    world.pass_minutes(60)
    key = RunKey.parse(world.ordered()[0])
    world.pass_minutes(0.2)
    world.engine.on_expired([key])
    first, second = world.runner.orders
    assert (second.run_id, second.nonce) == (first.run_id, first.nonce)
    assert second.expires_boot_s == pytest.approx((first.expires_boot_s or 0) + 12)
    world.begin(str(key))
    assert world.state(str(key)) is RunState.RUNNING


def test_an_order_that_came_too_late_is_dropped_if_the_run_was_given_up(world: World) -> None:
    """A worker was paused between claim and start, declared lost, and woke up: the fire is another's now."""
    world.give(spec(schedule="0 * * * *"))
    world.pass_minutes(60)
    key = RunKey.parse(world.ordered()[0])
    world.store.runs.lose(world.name, term=world.store.terms.take("m1"), reason="worker_lost")
    world.clock.advance_ms(5_000)
    world.engine.on_expired([key])
    assert len(world.ordered()) == 1
    assert world.engine.running() == 0
    assert world.journal.open_entries() == []
    world.report()
    assert world.states() == ["lost"]


def test_after_a_pause_an_order_that_came_too_late_waits_for_a_look_at_the_tasks(world: World) -> None:
    """MySQL is away and ZooKeeper knows nothing of the fire: asked at once, it would grant what another one has run."""
    world.give(spec(schedule="0 * * * *"))
    world.pass_minutes(60)
    heard_s = world.clock.boot_s()
    guard = PauseGuard(world.clock, lambda: heard_s)
    thread = EngineThread(world.engine, world.clock, guard, timers=False)
    guard.beat()
    world.fences.mysql_ok = False
    world.clock.advance_ms(18_000)
    thread.tell(Expired(world.ordered()[0]))
    thread._turn()
    assert len(world.ordered()) == 1
    guard.beat()
    world.clock.advance_ms(500)
    heard_s = world.clock.boot_s()
    world.engine.uninstall([TASK])
    guard.around(lambda: 10.0)()
    thread._turn()
    assert len(world.ordered()) == 1
    assert world.engine.running() == 0


def test_an_order_that_came_too_late_while_the_journal_cannot_be_written_is_asked_for_again(world: World) -> None:
    world.give(spec(concurrency=Concurrency.ALLOW))
    world.pass_minutes(1)
    world.begin(world.ordered()[0])
    world.pass_minutes(1)
    ends, expires = world.ordered()
    world.clock.advance_ms(5_000)
    thread = EngineThread(world.engine, world.clock, PauseGuard(world.clock, world.clock.boot_s), timers=False)
    thread.tell(Ended(ends, world.clock.now_ms(), 0, None, False, False, 0, ""))
    thread.tell(Expired(expires))
    world.journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.Error, match="readonly"):
        thread._turn()
    world.journal._db.execute("PRAGMA query_only = OFF")
    thread._turn()
    assert world.ordered() == [ends, expires, expires]
    assert world.state(ends) is RunState.SUCCEEDED


def test_an_order_of_a_run_on_demand_counts_from_the_asking(world: World) -> None:
    world.give(spec(schedule="0 0 1 1 *"))
    key = RunKey(TASK, world.clock.now_ms() + 7, 1)
    world.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING))
    asked_s = world.clock.boot_s()

    def claim_and_pause(run: Run) -> bool:
        mine = world.store.runs.claim_pending(run)
        world.clock.advance_ms(17_000)
        return mine

    engine = Engine(replace(world.parts, claim_pending=claim_and_pause))
    engine.install(world.engine.tasks.values())
    engine.demand([key])
    (order,) = world.runner.orders
    assert order.expires_boot_s == asked_s + START_WITHIN_S


def test_an_order_that_came_too_late_for_a_task_that_has_left_is_told_as_failed(world: World) -> None:
    world.give(spec(schedule="0 * * * *"))
    world.pass_minutes(60)
    key = RunKey.parse(world.ordered()[0])
    world.engine.uninstall([TASK])
    world.clock.advance_ms(5_000)
    world.engine.on_expired([key])
    assert len(world.ordered()) == 1
    world.report()
    run = world.store.runs.get(key)
    assert (run.state, run.reason) == (RunState.FAILED, Reason.SPAWN_FAILED)


def crash(world: World, *, started: Sequence[str] = (), ended: Sequence[Ended | SpawnFailed] = ()) -> None:
    """Kill the daemon and start it again; `started` are the runs that have folders, `ended` what those say."""
    ends = {end.run_id: end for end in ended}
    world.journal.close()
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: str(key) in started, lambda key: ends.get(str(key)))


def test_a_claim_that_was_not_acted_on_before_the_task_left_and_the_daemon_died_is_told_as_lost(world: World) -> None:
    world.give(spec(schedule="0 * * * *"))
    world.runner.away = True
    world.pass_minutes(60)
    assert world.states() == ["claimed"]
    world.engine.uninstall([TASK])
    world.journal.save_tasks([], [TASK])
    crash(world)
    world.report()
    (run,) = world.store.runs.lost_runs([TASK], since_ms=0)
    assert (run.state, run.reason, run.worker) == (RunState.LOST, Reason.RUNNER_LOST, "w1")
    assert (world.journal.open_entries(), world.ordered()) == ([], [])


@pytest.mark.parametrize("misfire", [Misfire.ALL, Misfire.LATEST])
def test_a_run_that_ended_while_no_daemon_was_here_is_no_overlap(world: World, misfire: Misfire) -> None:
    """T01: a daemon was killed in a run and back a second later; the next fire seemed to meet the run that was over."""
    world.give(spec(misfire=misfire))
    world.pass_minutes(1)
    (first,) = world.ordered()
    world.begin(first)
    world.clock.advance_ms(MINUTE)
    ended = Ended(first, world.clock.now_ms() - 30_000, 0, None, False, False, 0, "")
    crash(world, started=[first], ended=[ended])
    world.engine.look(Trigger.TIMER)
    assert len(world.ordered()) == 2
    assert world.state(first) is RunState.SUCCEEDED
    # The runner tells it all the same, once it is reached.
    world.engine.hear([], [ended])
    assert world.engine.running() == 1


def test_a_run_that_could_not_begin_while_no_daemon_was_here_is_no_overlap(world: World) -> None:
    world.give(spec())
    world.pass_minutes(1)
    (first,) = world.ordered()
    world.clock.advance_ms(MINUTE)
    crash(world, started=[first], ended=[SpawnFailed(first, "no such file", 0)])
    world.engine.look(Trigger.TIMER)
    assert len(world.ordered()) == 2
    assert world.state(first) is RunState.FAILED


def test_after_a_crash_what_waits_does_not_start_beside_what_had_its_turn(world: World) -> None:
    world.give(spec(schedule="* * * * *", retry=Retry(1, 1, 1), concurrency=Concurrency.QUEUE))
    world.pass_minutes(1)
    first = world.ordered()[0]
    world.begin(first)
    world.pass_minutes(1)
    world.runner.orders.clear()
    crash(world)
    world.pass_minutes(0.1)
    assert len(world.ordered()) == 1
    assert world.engine.running() == 1


def test_a_run_whose_order_was_carried_out_before_the_crash_is_not_decided_again(world: World) -> None:
    world.give(spec(schedule="0 * * * *", grace_s=60))
    world.pass_minutes(60)
    run_id = world.ordered()[0]
    world.clock.advance_ms(10 * MINUTE)
    crash(world, started=[run_id])
    assert len(world.ordered()) == 1
    world.end(run_id)
    assert world.state(run_id) is RunState.SUCCEEDED


def test_a_missing_artifact_holds_only_its_own_task_and_only_for_the_grace(world: World) -> None:
    world.give(spec(schedule="0 * * * *", grace_s=120))
    world.orders.fault = Reason.ARTIFACT_MISSING
    world.pass_minutes(60)
    assert world.ordered() == []
    world.orders.fault = None
    world.pass_minutes(0.1)
    assert len(world.ordered()) == 1
    world.end(world.ordered()[0])
    world.orders.fault = Reason.ARTIFACT_MISSING
    world.pass_minutes(60)
    world.pass_minutes(3)
    world.report()
    assert world.store.runs.history(TASK.job_id, limit=1)[0].reason is Reason.ARTIFACT_MISSING


def test_a_run_on_demand_runs_once_and_waits_for_the_one_before_it(world: World) -> None:
    world.give(spec())
    world.pass_minutes(1)
    key = RunKey(TASK, world.clock.now_ms() + 5, 1)
    world.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING))
    world.engine.demand([key])
    world.engine.demand([key])
    assert len(world.ordered()) == 1
    world.end(world.ordered()[0])
    assert world.ordered()[1:] == [str(key)]


def test_runs_on_demand_that_are_found_together_run_one_after_the_other(world: World) -> None:
    world.give(spec())
    keys = [RunKey(TASK, world.clock.now_ms() + number, 1) for number in (5, 6)]
    for key in keys:
        world.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING))
    world.engine.demand(keys)
    assert world.ordered() == [str(keys[0])]
    world.end(str(keys[0]))
    assert world.ordered() == [str(key) for key in keys]


def test_a_run_on_demand_that_cannot_start_ends_as_failed_with_its_reason(world: World) -> None:
    world.give(spec())
    world.orders.fault = Reason.USER_REFUSED
    key = RunKey(TASK, world.clock.now_ms(), 1)
    world.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING))
    world.engine.demand([key])
    world.report()
    run = world.store.runs.get(key)
    assert (run.state, run.reason) == (RunState.FAILED, Reason.USER_REFUSED)


def test_cancel_ends_what_waits_at_once_and_what_runs_by_the_runner(world: World) -> None:
    world.give(spec(concurrency=Concurrency.QUEUE))
    world.pass_minutes(1)
    world.pass_minutes(1)
    waiting = next(entry.run.key for entry in world.journal.open_entries() if entry.phase is Phase.WAITING)
    world.engine.cancel(waiting)
    assert world.state(str(waiting)) is RunState.CANCELLED
    world.engine.cancel(RunKey.parse(world.ordered()[0]))
    assert world.runner.cancelled == world.ordered()


def test_a_paused_task_does_not_fire_and_a_resumed_one_does_not_fire_backwards(world: World) -> None:
    world.give(spec(misfire=Misfire.ALL))
    world.give(spec(misfire=Misfire.ALL), generation=2, state=JobState.PAUSED)
    world.pass_minutes(10)
    assert world.ordered() == []
    world.give(spec(misfire=Misfire.ALL), generation=3)
    world.engine.look(Trigger.TIMER)
    assert world.ordered() == []
    world.pass_minutes(1)
    assert len(world.ordered()) == 1


def test_a_task_that_leaves_lets_its_run_end_and_gives_up_what_waits(world: World) -> None:
    world.give(spec(concurrency=Concurrency.QUEUE))
    world.pass_minutes(1)
    world.pass_minutes(1)
    world.engine.uninstall([TASK])
    world.pass_minutes(5)
    assert len(world.ordered()) == 1
    world.end(world.ordered()[0])
    assert world.state(world.ordered()[0]) is RunState.SUCCEEDED
    assert world.journal.open_entries() == []


def test_a_journal_that_cannot_be_written_starts_nothing_and_forgets_nothing(world: World) -> None:
    world.give(spec())
    world.journal.close()
    world.clock.advance_ms(MINUTE)
    with pytest.raises(Exception, match="closed"):
        world.engine.look(Trigger.TIMER)
    assert world.ordered() == []
    assert world.engine.next_look_ms() is not None
    assert world.engine.tasks[TASK].view.cursor_ms < world.clock.now_ms()


def test_a_runner_that_is_away_keeps_the_claim(world: World) -> None:
    world.give(spec())
    world.runner.away = True
    world.pass_minutes(1)
    assert world.states() == ["claimed"]
    assert world.engine.running() == 1


def test_a_task_that_is_given_anew_decides_again_what_was_refused_in_between(make: Callable[..., World]) -> None:
    node = make("w1")
    wanted = spec(misfire=Misfire.ALL)
    node.give(wanted)
    begun_ms = node.clock.now_ms()
    # Another owner was given the task: MySQL refuses what we claim, and we go on.
    other = Assignment(TASK, "w2", 1, 8, MoveReason.WORKER_LOST, begun_ms, 0)
    term = node.store.terms.take("m1")
    node.store.assignments.save([other], term=term)
    node.pass_minutes(1)
    node.pass_minutes(1)
    assert node.ordered() == []
    # It has died without having decided any of that, and the task is ours again.
    node.store.assignments.save([replace(other, worker="w1", epoch=9)], term=term)
    again = TaskRow(TASK, 1, 9, SIGNER.seal(Task(TASK.job_id, 1, JobState.ACTIVE, begun_ms, wanted)), begun_ms)
    node.journal.save_tasks([again])
    assert node.journal.tasks()[0].cursor_ms == begun_ms
    node.engine.install([install(again, Verifier([SIGNER.public_bytes]), node.here)])
    node.engine.look(Trigger.TIMER)
    node.end(node.ordered()[-1])
    assert [RunKey.parse(run_id).fire_ms - begun_ms for run_id in node.ordered()] == [MINUTE, 2 * MINUTE]
    # A crash finds both in the journal as what they are.
    assert [node.state(run_id) for run_id in node.ordered()] == ["succeeded", "pending"]
    assert node.journal.tasks()[0].cursor_ms == begun_ms + 2 * MINUTE


def test_what_this_node_was_granted_before_is_not_decided_again(world: World) -> None:
    world.give(spec())
    world.store.set_available(False)
    world.coordinator.cut()
    world.pass_minutes(1)
    assert len(world.ordered()) == 1
    (item,) = (install(row, Verifier([SIGNER.public_bytes]), world.here) for row in world.journal.tasks())
    item.view = replace(item.view, cursor_ms=0)
    never_before([item], world.journal.newest_claims())
    assert item.view.cursor_ms == world.clock.now_ms()
    assert item.next_ms == world.clock.now_ms() + MINUTE


@pytest.mark.parametrize(("late_s", "outcome"), [(1, "skipped"), (5, "waiting")])
def test_a_fire_that_a_slow_store_held_up_is_no_overlap_where_all_are_wanted(
    world: World, late_s: int, outcome: str
) -> None:
    world.give(spec(misfire=Misfire.ALL))
    world.pass_minutes(1)
    fire_ms = world.clock.now_ms() + MINUTE
    world.clock.advance_ms(MINUTE + late_s * 1000)
    world.engine.look(Trigger.TIMER)
    entry = world.journal.entry(RunKey(TASK, fire_ms, 1))
    assert entry is not None
    assert outcome in (entry.phase, entry.run.state)


def test_late_news_of_an_earlier_order_takes_nothing_from_the_run_that_a_later_one_began(world: World) -> None:
    world.give(spec(schedule="0 * * * *"))
    world.pass_minutes(60)
    key = RunKey.parse(world.ordered()[0])
    # Ordered again at a moment when the first one was held up, and carried out; the first one's end is told late.
    world.engine.on_expired([key])
    assert world.engine.running() == 1
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda _key: True, lambda _key: None)
    world.clock.advance_ms(60_000)
    world.engine.on_expired([key])
    assert (world.engine.running(), len(world.ordered())) == (1, 1)
