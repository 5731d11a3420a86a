"""The agent on the shipped coordinator: a node has just what it is given, and believes no absence unvouched for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType, OnWorkerLoss
from cronkeeper.domain.placement import Assignment, MoveReason, Ownership, WorkerInfo
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Leadership
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun
from cronkeeper_worker import agent
from cronkeeper_worker.agent import CLAIMED_EARLY_MS, PUBLISHED_S, Agent, Node
from cronkeeper_worker.assignments import Changes, Offer, changes
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow
from cronkeeper_worker.tasks import Installed

SIGNER = Signer.from_seed(bytes(range(32)))
T1, T2 = TaskId(1, 0), TaskId(2, 0)


@dataclass
class Demand:
    keys: list[RunKey]
    trigger: Trigger


class World:
    """A leader's hand, a worker's agent, and the node it changes."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.ensemble = MemoryEnsemble()
        self.leader = MemoryCoordinator(self.ensemble, "m1")
        self.leader.start(1.0)
        self.leader.ensure_layout()
        self.leader.campaign(LeaderNote("m1", "host", 1))
        self.worker = MemoryCoordinator(self.ensemble, "w1")
        self.worker.start(1.0)
        self.installed: dict[TaskId, Installed] = {}
        self.demands: list[Demand] = []
        self.retries: dict[RunKey, int] = {}
        self.foreign: dict[TaskId, frozenset[RunKey]] = {}
        self.adopted: list[Run] = []
        self.journal = Journal(folder / "journal.db")
        self.start("e1")

    def start(self, epoch: str) -> None:
        """Start a daemon, which goes on with the tasks that the one before had."""
        node = Node(self._apply, self._have, self._demand, self.retries.update, self._set_foreign, self.adopted.extend)
        self.agent = Agent(
            WorkerInfo("w1", "host", epoch=epoch),
            self.worker,
            self.store,
            self.journal,
            Verifier([SIGNER.public_bytes]),
            node,
            self.clock,
            WorkerMetrics(CollectorRegistry()),
            started_ms=self.clock.now_ms(),
        )

    def leadership(self) -> Leadership:
        found = self.leader.leadership()
        assert found is not None
        return found

    def put(self, task: TaskId, *, generation: int = 1, signer: Signer = SIGNER, **spec: object) -> None:
        base = JobSpec("true", "* * * * *", JobType.COMMAND)
        body = Task(task.job_id, generation, JobState.ACTIVE, 0, replace(base, **spec))  # type: ignore[arg-type]
        self.leader.put_tasks({task: signer.seal(body)})

    def assign(self, *tasks: TaskId, epoch: int = 5, since_ms: int = 0) -> None:
        given = [Assignment(task, "w1", 1, epoch, MoveReason.NEW, self.clock.now_ms(), since_ms) for task in tasks]
        self.leader.move(given, [], self.leadership())

    def ready(self) -> None:
        self.leader.mark_ready(self.leadership())

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        for task in dropped:
            del self.installed[task]
        self.installed |= {item.id: item for _, item in given}

    def _have(self) -> dict[TaskId, Installed]:
        return dict(self.installed)

    def _demand(self, keys: Sequence[RunKey], trigger: Trigger) -> None:
        if keys:
            self.demands.append(Demand(list(keys), trigger))

    def _set_foreign(self, runs: dict[TaskId, frozenset[RunKey]]) -> None:
        self.foreign = runs


class Have(NamedTuple):
    generation: int
    fence: int
    key: str


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    return lambda: World(tmp_path)


@pytest.fixture
def world(make: Callable[[], World]) -> World:
    """A node that owns task 1, in a complete tree."""
    made = make()
    made.put(T1)
    made.assign(T1)
    made.ready()
    made.agent.step()
    return made


def test_it_takes_what_it_is_given_and_says_so(world: World) -> None:
    assert (set(world.installed), world.installed[T1].fence) == ({T1}, 5)
    assert set(world.leader.owned("w1")) == {T1}
    assert world.leader.workers()["w1"].epoch == "e1"


def test_it_lets_go_what_is_revoked_and_says_so(world: World) -> None:
    world.leader.move([], [("w1", T1)], world.leadership())
    world.agent.step()
    assert (world.installed, world.leader.owned("w1")) == ({}, {})


def test_an_edit_reaches_the_node_and_an_older_body_does_not(world: World) -> None:
    world.put(T1, generation=3, executable="new")
    world.agent.step()
    world.put(T1, generation=2, executable="old")
    world.agent.step()
    assert world.installed[T1].work.executable == "new"


def test_a_claim_long_before_its_fire_is_not_carried_home(world: World) -> None:
    due, ahead = RunKey(T2, world.clock.now_ms(), 1), RunKey(T2, world.clock.now_ms() + CLAIMED_EARLY_MS + 1, 1)
    for key in (due, ahead):
        assert world.leader.claim(key, ClaimNote("f" * 32, "w9", RunState.CLAIMED))
    world.put(T2)
    world.assign(T2)
    world.agent.step()

    assert [run.key for run in world.store.runs.history(T2.job_id, limit=9)] == [due]


def test_a_yes_that_somebody_else_said_in_our_name_is_taken_back(world: World) -> None:
    world.leader.own([Ownership(T2, "w1", 1, "forged")])
    world.agent.step()
    assert set(world.leader.owned("w1")) == {T1, T2}
    world.clock.advance_ms(round(PUBLISHED_S * 1000))
    world.agent.step()
    assert set(world.leader.owned("w1")) == {T1}


def test_a_wiped_tree_takes_nothing_away(world: World) -> None:
    world.ensemble.wipe()
    world.leader.ensure_layout()
    world.agent.step()
    assert set(world.installed) == {T1}
    assert set(world.leader.owned("w1")) == {T1}


def test_a_body_that_is_missing_takes_nothing_away(world: World) -> None:
    world.leader.drop_tasks([T1])
    world.agent.step()
    assert set(world.installed) == {T1}


def test_a_zookeeper_that_is_away_is_an_error_and_no_empty_list(world: World) -> None:
    world.worker.cut()
    with pytest.raises(UnavailableError):
        world.agent.step()
    assert set(world.installed) == {T1}


def test_a_new_session_announces_and_owns_again(world: World) -> None:
    world.worker.expire()
    assert world.leader.workers() == {}
    world.worker.heal()
    world.agent.step()
    assert (set(world.leader.workers()), set(world.leader.owned("w1"))) == ({"w1"}, {T1})


def test_a_forged_task_is_refused_and_stops_no_other(world: World) -> None:
    world.put(T2, signer=Signer.from_seed(b"x" * 32))
    world.assign(T2)
    world.put(T1, generation=2)
    world.agent.step()
    assert (set(world.installed), world.installed[T1].generation) == ({T1}, 2)


def test_a_task_that_this_node_cannot_read_stops_no_other(world: World) -> None:
    world.put(T2, schedule="@lunar")
    third = TaskId(3, 0)
    world.put(third)
    world.assign(T2, third)
    world.agent.step()
    assert set(world.installed) == {T1, third}


def test_a_shard_that_the_job_does_not_have_is_not_taken(world: World) -> None:
    beyond = TaskId(1, 1)
    world.leader.put_tasks({beyond: world.leader.read_tasks([T1])[T1]})
    world.assign(beyond)
    world.agent.step()
    assert set(world.installed) == {T1}


def test_a_taken_task_goes_on_after_its_last_recorded_fire(make: Callable[[], World]) -> None:
    world = make()
    recorded_ms = world.clock.now_ms() - 120_000
    world.store.runs.record([Run(RunKey(T1, recorded_ms, 1), Trigger.TIMER, RunState.SUCCEEDED, "w2", "n")])
    world.put(T1)
    world.assign(T1, since_ms=7)
    world.ready()
    world.agent.step()
    assert world.installed[T1].view.cursor_ms == recorded_ms


def test_without_mysql_the_leaders_hint_says_where_to_go_on(make: Callable[[], World]) -> None:
    world = make()
    world.store.set_available(False)
    world.put(T1)
    world.assign(T1, since_ms=world.clock.now_ms() - 9000)
    world.ready()
    world.agent.step()
    assert world.installed[T1].view.cursor_ms == world.clock.now_ms() - 9000


@pytest.mark.parametrize(("policy", "again"), [(OnWorkerLoss.RERUN, 1), (OnWorkerLoss.HOLD, 0)])
def test_a_lost_run_is_run_again_if_the_job_wants_it(
    make: Callable[[], World], policy: OnWorkerLoss, again: int
) -> None:
    world = make()
    lost = RunKey(T1, world.clock.now_ms() - 60_000, 1)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w2", "n")])
    world.store.runs.lose("w2", term=world.store.terms.take("m1"), reason="worker_lost")
    world.put(T1, on_worker_loss=policy)
    world.assign(T1)
    world.ready()
    world.agent.step()
    assert world.demands == [Demand([RunKey(T1, lost.fire_ms, 2)], Trigger.CATCH_UP)] * again


def test_what_was_put_off_without_mysql_is_done_by_the_daemon_after_a_restart(make: Callable[[], World]) -> None:
    world = make()
    lost, running = RunKey(T1, world.clock.now_ms() - 60_000, 1), RunKey(T1, world.clock.now_ms() - 30_000, 1)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w2", "n")])
    world.store.runs.lose("w2", term=world.store.terms.take("m1"), reason="worker_lost")
    world.store.runs.record([Run(running, Trigger.TIMER, RunState.RUNNING, "w3", "n")])
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.store.set_available(False)
    world.agent.step()
    world.start("e2")
    world.agent.step()
    assert (set(world.installed), world.demands) == ({T1}, [])
    world.store.set_available(True)
    world.agent.step()
    assert world.demands == [Demand([RunKey(T1, lost.fire_ms, 2)], Trigger.CATCH_UP)]
    assert world.foreign == {T1: frozenset({running})}


def test_a_run_that_goes_on_elsewhere_counts_as_overlap(make: Callable[[], World]) -> None:
    world = make()
    running = RunKey(T1, world.clock.now_ms() - 60_000, 1)
    world.store.runs.record([Run(running, Trigger.TIMER, RunState.RUNNING, "w2", "n")])
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.agent.step()
    assert world.foreign == {T1: frozenset({running})}


def test_runs_of_ours_that_the_journal_has_lost_are_adopted_once(make: Callable[[], World]) -> None:
    world = make()
    known, forgotten, over = RunKey(T1, 60_000, 1), RunKey(T1, 120_000, 1), RunKey(T1, 180_000, 1)
    for key in (known, forgotten, over):
        world.store.runs.claim([Run(key, Trigger.TIMER, RunState.CLAIMED, worker="w1", nonce="n")])
    world.store.runs.record([Run(over, Trigger.TIMER, RunState.RUNNING, worker="w1", nonce="n")])
    world.store.runs.record([Run(over, Trigger.TIMER, RunState.SUCCEEDED, worker="w1", nonce="n")])
    world.agent._journal.update([Entry(world.store.runs.get(known), Phase.CLAIMED)])
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.agent.step()
    world.agent.step()
    assert [run.key for run in world.adopted] == [forgotten]
    assert world.foreign == {}


def test_what_the_last_owner_left_is_looked_after_as_soon_as_mysql_answers(make: Callable[[], World]) -> None:
    world = make()
    running = RunKey(T1, 60_000, 1)
    world.store.runs.claim([Run(running, Trigger.TIMER, RunState.CLAIMED, worker="w2", nonce="n")])
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.store.set_available(False)
    world.agent.step()
    assert (list(world.installed), world.foreign) == ([T1], {})
    world.store.set_available(True)
    world.agent.step()
    assert world.foreign == {T1: frozenset({running})}
    world.foreign = {}
    world.agent.step()
    assert world.foreign == {}


def test_a_queued_run_is_demanded_while_its_row_is_pending(world: World) -> None:
    pending, over = RunKey(T1, 1001, 1), RunKey(T1, 1002, 1)
    world.store.runs.request(Run(pending, Trigger.MANUAL, RunState.PENDING))
    for key in (pending, over):
        world.leader.enqueue(QueuedRun(key, "alice"))
    world.agent.step()
    assert world.demands == [Demand([pending], Trigger.MANUAL)]


def test_a_run_on_demand_whose_news_was_lost_is_found_in_the_ledger(world: World) -> None:
    pending = RunKey(T1, 1001, 1)
    world.store.runs.request(Run(pending, Trigger.MANUAL, RunState.PENDING))
    world.agent.step()
    assert world.demands == [Demand([pending], Trigger.MANUAL)]


def given(*tasks: TaskId, epoch: int = 5) -> dict[TaskId, Assignment]:
    return {task: Assignment(task, "w1", 1, epoch, MoveReason.NEW, 0) for task in tasks}


@pytest.mark.parametrize(
    ("case", "offered", "have", "epoch", "expected"),
    [
        ("new", {T1: Offer(1, "a")}, {}, 5, Changes((T1,), (), ())),
        ("nothing new", {T1: Offer(1, "a")}, {T1: Have(1, 5, "a")}, 5, Changes((), (), ())),
        ("edited", {T1: Offer(2, "a")}, {T1: Have(1, 5, "a")}, 5, Changes((), (T1,), ())),
        ("replayed", {T1: Offer(1, "a")}, {T1: Have(2, 5, "a")}, 5, Changes((), (), ())),
        ("given anew", {T1: Offer(1, "a")}, {T1: Have(1, 5, "a")}, 6, Changes((), (T1,), ())),
        ("signed anew", {T1: Offer(1, "b")}, {T1: Have(1, 5, "a")}, 5, Changes((), (T1,), ())),
        ("an older one, signed anew", {T1: Offer(1, "b")}, {T1: Have(2, 5, "a")}, 5, Changes((), (), ())),
        ("no body, unknown", {}, {}, 5, Changes((), (), ())),
        ("no body, known", {}, {T1: Have(1, 5, "a")}, 5, Changes((), (), ())),
        ("another is dropped", {T1: Offer(1, "a")}, {T2: Have(1, 5, "a")}, 5, Changes((T1,), (), (T2,))),
    ],
)
def test_changes(
    case: str, offered: dict[TaskId, Offer], have: dict[TaskId, Have], epoch: int, expected: Changes
) -> None:
    assert changes(given(T1, epoch=epoch), offered, have) == expected


def test_where_the_ledger_has_nothing_the_grace_is_looked_at_again(make: Callable[[], World]) -> None:
    world = make()
    world.put(T1, grace_s=600)
    world.assign(T1, since_ms=world.clock.now_ms() - 9000)
    world.ready()
    world.agent.step()
    assert world.installed[T1].view.cursor_ms <= world.clock.now_ms() - 600_000


def test_a_fire_that_zookeeper_granted_to_the_last_owner_is_carried_home_and_not_decided_again(
    make: Callable[[], World],
) -> None:
    world = make()
    key = RunKey(T1, world.clock.now_ms() - 30_000, 1)
    other = MemoryCoordinator(world.ensemble, "w2")
    other.start(1.0)
    other.claim(key, ClaimNote("theirs", "w2", RunState.CLAIMED))
    world.put(T1)
    world.assign(T1, since_ms=key.fire_ms - 60_000)
    world.ready()
    world.agent.step()
    row = world.store.runs.get(key)
    assert (row.worker, row.nonce, row.state) == ("w2", "theirs", RunState.CLAIMED)
    assert world.installed[T1].view.cursor_ms == key.fire_ms


def test_a_worker_that_was_given_up_looks_for_its_lost_runs_though_it_kept_the_task(make: Callable[[], World]) -> None:
    world = make()
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.agent.step()
    lost = RunKey(T1, world.clock.now_ms() - 60_000, 1)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w1", "n")])
    world.store.runs.lose("w1", term=world.store.terms.take("m1"), reason="worker_lost")
    world.agent.step()
    assert not any(demand.trigger is Trigger.CATCH_UP and demand.keys for demand in world.demands)
    world.agent.reborn("again")
    world.agent.step()
    assert Demand([RunKey(T1, lost.fire_ms, 2)], Trigger.CATCH_UP) in world.demands


def test_a_second_attempt_that_zookeeper_granted_is_carried_home_though_mysql_was_away_at_the_take_over(
    make: Callable[[], World],
) -> None:
    world = make()
    first = RunKey(T1, world.clock.now_ms() - 30_000, 1)
    second = RunKey(T1, first.fire_ms, 2)
    world.store.runs.record([Run(first, Trigger.TIMER, RunState.RUNNING, "w2", "n")])
    world.store.runs.lose("w2", term=world.store.terms.take("m1"), reason="worker_lost")
    other = MemoryCoordinator(world.ensemble, "w3")
    other.start(1.0)
    other.claim(second, ClaimNote("theirs", "w3", RunState.CLAIMED))
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.store.set_available(False)
    world.agent.step()
    world.store.set_available(True)
    world.agent.step()
    assert world.demands == []
    assert world.store.runs.get(second).worker == "w3"


def test_a_task_whose_body_is_missing_is_looked_after_when_it_is_back(make: Callable[[], World]) -> None:
    world = make()
    world.put(T1)
    world.put(T2)
    world.assign(T1, T2)
    world.ready()
    world.agent.step()
    lost = RunKey(T1, world.clock.now_ms() - 60_000, 1)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w1", "n")])
    world.store.runs.lose("w1", term=world.store.terms.take("m1"), reason="worker_lost")
    world.leader.drop_tasks([T1])
    world.agent.reborn("again")
    world.agent.step()
    assert world.demands == []
    world.put(T1)
    world.agent.step()
    assert world.demands == [Demand([RunKey(T1, lost.fire_ms, 2)], Trigger.CATCH_UP)]


def test_fires_that_waited_when_the_last_owner_died_are_looked_at_again(make: Callable[[], World]) -> None:
    world = make()
    now_ms = world.clock.now_ms()
    # It ran one; the next two waited for nothing but their turn, and the one after them was skipped because they did.
    world.store.runs.claim([Run(RunKey(T1, now_ms - 240_000, 1), Trigger.TIMER, RunState.CLAIMED, "w2", "n")])
    skipped = Run(RunKey(T1, now_ms - 60_000, 1), Trigger.TIMER, RunState.SKIPPED, "w2", "m", reason=Reason.OVERLAP)
    world.store.runs.record([skipped])
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.agent.step()
    assert world.installed[T1].view.cursor_ms == now_ms - 240_000


def test_what_a_former_owner_ran_after_the_task_was_ours_hides_nothing(make: Callable[[], World]) -> None:
    world = make()
    now_ms = world.clock.now_ms()
    world.store.runs.claim([Run(RunKey(T1, now_ms - 60_000, 1), Trigger.TIMER, RunState.CLAIMED, "w2", "n")])
    world.put(T1)
    world.assign(T1)
    world.clock.advance_ms(180_000)
    # It was cut off from everything, and tells it now.
    theirs = Run(RunKey(T1, now_ms + 120_000, 1), Trigger.TIMER, RunState.SUCCEEDED, "w2", "m", autonomous=True)
    world.store.runs.record([theirs])
    world.ready()
    world.agent.step()
    assert world.installed[T1].view.cursor_ms == now_ms - 60_000


def test_a_lost_run_that_we_were_refused_once_is_run_again_here(make: Callable[[], World]) -> None:
    world = make()
    lost = RunKey(T1, world.clock.now_ms() - 60_000, 1)
    refused = Run(lost, Trigger.TIMER, RunState.SKIPPED, "w1", "ours", reason=Reason.FENCE_REFUSED)
    world.agent._journal.update([Entry(refused, Phase.OVER)], report=False)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w2", "theirs")])
    world.store.runs.lose("w2", term=world.store.terms.take("m1"), reason="worker_lost")
    world.put(T1)
    world.assign(T1)
    world.ready()
    world.agent.step()
    assert world.demands == [Demand([RunKey(T1, lost.fire_ms, 2)], Trigger.CATCH_UP)]


def test_a_task_that_is_given_anew_goes_on_where_the_owner_between_ended(make: Callable[[], World]) -> None:
    world = make()
    now_ms = world.clock.now_ms()
    world.put(T1)
    world.assign(T1, epoch=5)
    world.ready()
    world.agent.step()
    # We were given up, another had it, and has died: its last claim is where it ended. We never let go of the task.
    theirs = Run(RunKey(T1, now_ms + 60_000, 1), Trigger.TIMER, RunState.CLAIMED, "w2", "n")
    world.store.runs.claim([theirs])
    world.clock.advance_ms(300_000)
    world.assign(T1, epoch=9)
    world.agent.step()
    given = world.installed[T1]
    assert (given.fence, given.view.cursor_ms) == (9, theirs.key.fire_ms)


def test_what_is_given_bit_by_bit_is_installed_in_one_go_at_each_look(
    make: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "PIECE", 4)
    world = make()
    world.ready()
    tasks = [TaskId(number, 0) for number in range(1, 31)]
    applied: list[int] = []
    whole = world._apply

    def apply(given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        applied.append(len(given))
        whole(given, dropped)

    monkeypatch.setattr(world, "_apply", apply)
    world.start("e1")
    for task in tasks:
        world.put(task)
    world.assign(*tasks[:20])
    world.agent.step()
    assert sum(applied) == 20 and max(applied) < 9, "never many at once"
    applied.clear()
    for some in (tasks[20:22], tasks[22:25]):
        world.assign(*some)
        world.agent.step()
    assert applied == [2, 3], "however many there are besides"
    world.leader.move([], [("w1", task) for task in tasks], world.leadership())
    world.agent.step()
    assert world.installed == {}
