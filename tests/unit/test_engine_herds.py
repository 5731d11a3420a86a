"""Many runs at once: what they share, and what each of them keeps."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency, Delivery, JobSpec, JobState, JobType
from cronkeeper.domain.placement import START_WITHIN_S
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_parts import Parts
from cronkeeper_worker.engine_start import PIECE, WINDOW
from cronkeeper_worker.engine_thread import HEAR_EVERY_S, EngineThread
from cronkeeper_worker.fences import Fences
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow
from cronkeeper_worker.orders import Ended, Expired, Order, Started
from cronkeeper_worker.pause_guard import PauseGuard
from cronkeeper_worker.tasks import Here, Installed, install

SIGNER = Signer.from_seed(bytes(range(32)))
VERIFIER = Verifier([SIGNER.public_bytes])
MINUTE = 60_000


@dataclass
class RunnerOfOrders:
    """A runner that keeps what it is told."""

    #: Called with each order before it is taken.
    check: Callable[[Order], None] = lambda _: None
    orders: list[Order] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.check(order)
        self.orders += orders

    def cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)

    def ack(self, run_ids: Iterable[str]) -> None:
        """Nothing is kept."""


class PlainOrders:
    #: Called with each task that is to be ordered.
    look: Callable[[Installed], None] = staticmethod(lambda _: None)
    command: Callable[[Installed], str] = staticmethod(lambda _: "true")

    def obstacle(self, item: Installed) -> Reason | None:
        self.look(item)
        return None

    def make(self, item: Installed, run: Run) -> Order:
        return Order(run.id, run.nonce, command=self.command(item))


class Herd:
    """One node with many tasks that are due every minute."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.journal = Journal(folder / "journal.db")
        self.runner = RunnerOfOrders(self._check)
        self.fences = Fences(self.store.runs, lambda: None, claim_wait_s=5, clock=self.clock)
        self.orders = PlainOrders()
        self.parts = Parts(
            "w1", self.journal, self.fences, self.runner, self.orders, self.store.runs.claim_pending,
            self.clock, WorkerMetrics(CollectorRegistry()),
        )  # fmt: skip
        self.guard = PauseGuard(self.clock, self.clock.boot_s)
        self.boot()
        self.syncs = 0
        self.journal._db.set_trace_callback(self._count)

    def boot(self, *, timers: bool = True) -> None:
        """Start a daemon over what the last one left: all but journal and runner is new."""
        self.engine = Engine(self.parts)
        self.thread = EngineThread(self.engine, self.clock, self.guard, timers=timers)
        self.engine.install([install(row, VERIFIER, Here("w1", 0)) for row in self.journal.tasks()])
        started = set(self.ordered())
        self.engine.resume(self.journal.open_entries(), lambda key: str(key) in started, lambda _key: None)

    def give(
        self,
        jobs: int | Sequence[int],
        *,
        generation: int = 1,
        state: JobState = JobState.ACTIVE,
        fence: int = 1,
        cursor_ms: int | None = None,
        **spec: Any,
    ) -> None:
        """Have these jobs: their numbers, or how many."""
        made = JobSpec(**{"executable": "true", "schedule": "* * * * *", "type": JobType.COMMAND} | spec)
        now_ms, ids = self.clock.now_ms(), range(1, jobs + 1) if isinstance(jobs, int) else jobs
        since_ms = now_ms if cursor_ms is None else cursor_ms
        rows = [
            TaskRow(TaskId(n, 0), generation, fence, SIGNER.seal(Task(n, generation, state, since_ms, made)), since_ms)
            for n in ids
        ]
        self.engine.take([(row, install(row, VERIFIER, Here("w1", 0))) for row in rows], [])

    def turn(self, ms: int = 0, *, times: int = 1) -> None:
        """Let time pass, and the engine's thread go round."""
        self.clock.advance_ms(ms)
        for _ in range(times):
            self.thread._turn()

    def start(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.thread.tell(Started(run_id, 7, self.clock.now_ms()))

    def end(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.thread.tell(Ended(run_id, self.clock.now_ms(), 0, None, False, False, 0, ""))

    def fail(self, *run_ids: str) -> None:
        for run_id in run_ids:
            self.thread.tell(Ended(run_id, self.clock.now_ms(), 3, None, False, False, 0, ""))

    @contextlib.contextmanager
    def no_disk(self) -> Iterator[None]:
        """Have a journal that can be read, and not be written."""
        self.journal._db.execute("PRAGMA query_only = ON")
        yield
        self.journal._db.execute("PRAGMA query_only = OFF")

    def pass_s(self, seconds: int) -> None:
        """Let time pass by seconds: more at once would look like a pause."""
        for _ in range(seconds):
            self.guard.beat()
            self.turn(1000)

    def ordered(self) -> list[str]:
        return [order.run_id for order in self.runner.orders]

    def state(self, run_id: str) -> RunState:
        entry = self.journal.entry(RunKey.parse(run_id))
        assert entry is not None
        return entry.run.state

    def rows(self) -> list[Run]:
        """Return what was claimed."""
        return self.store.runs.open_runs(list(self.engine.tasks))

    @contextlib.contextmanager
    def no_room(self) -> Iterator[None]:
        """Have a runner that has enough to do."""
        starter = self.engine._starter
        window, starter._window = starter._window, 0
        yield
        starter._window = window

    def decided(self) -> int:
        return len(self.journal.open_entries())

    def _check(self, order: Order) -> None:
        """Nothing is ordered that is not decided for good, and claimed."""
        key = RunKey.parse(order.run_id)
        entry, row = self.journal.entry(key), self.store.runs.get(key)
        assert entry is not None
        assert entry.run.nonce == row.nonce == order.nonce
        assert row.state is RunState.CLAIMED
        assert not self.journal._db.in_transaction

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


def test_the_runner_begins_with_the_first_while_the_others_are_decided(herd: Herd) -> None:
    herd.give(250)
    herd.turn(MINUTE)
    assert (herd.decided(), len(herd.ordered())) == (PIECE, PIECE)
    herd.turn()
    assert (herd.decided(), len(herd.ordered())) == (2 * PIECE, WINDOW)
    herd.turn()
    assert (herd.decided(), len(herd.ordered())) == (250, WINDOW), "all is decided, whatever the runner is at"


def test_what_stands_in_line_is_claimed_only_when_the_runner_has_come_so_far(herd: Herd) -> None:
    herd.give(250)
    herd.turn(MINUTE, times=3)
    assert len(herd.rows()) == WINDOW
    assert herd.engine.running() == 250, "they count as those that are to have a process at once"
    first, *others = herd.ordered()
    herd.start(first)
    herd.turn(20)
    assert len(herd.rows()) == WINDOW, "not one by one: each claim is two statements"
    herd.start(*others[:49])
    herd.turn(20)
    assert len(herd.rows()) == len(set(herd.ordered())) == 250
    herd.end(*herd.ordered())
    herd.turn(20)
    assert herd.engine.running() == 0


def test_no_order_is_old_before_its_turn(herd: Herd) -> None:
    """Issue 6: of 5,000 due together most were ordered twice and three times, being 4 s old."""
    herd.give(600)
    herd.turn(MINUTE, times=6)
    while herd.engine.running():
        orders = {order.run_id: order for order in herd.runner.orders}
        some = [run for run in herd.ordered() if herd.state(run) is RunState.PENDING][:50]
        assert all((orders[run].expires_boot_s or 0) >= herd.clock.boot_s() for run in some)
        herd.start(*some)
        herd.end(*some)
        herd.turn(1000)  # it makes 50 a second
    assert len(herd.ordered()) == 600


def test_a_runner_that_never_answers_holds_up_nobody_for_longer_than_its_orders_are_good_for(herd: Herd) -> None:
    herd.give(250)
    herd.turn(MINUTE, times=3)
    herd.guard.beat()
    herd.turn(round(START_WITHIN_S * 1000))
    assert len(herd.ordered()) == WINDOW
    herd.guard.beat()
    herd.turn(1)
    assert len(herd.ordered()) == 250


def test_by_calls_of_cron_alone_all_is_decided_too_and_by_cron(herd: Herd) -> None:
    herd.boot(timers=False)
    herd.give(250)
    herd.clock.advance_ms(MINUTE)
    herd.thread.look()
    herd.turn(times=4)
    entries = herd.journal.open_entries()
    assert [entry.run.trigger for entry in entries] == [Trigger.CRON] * 250
    herd.turn(times=2)
    assert not herd.thread._looks


def test_who_nobody_stays_with_is_given_all_orders_at_once(herd: Herd) -> None:
    """The daemon's stand-in goes: nobody would hand over the others."""
    herd.engine = Engine(herd.parts, window=None)
    herd.give(450)
    herd.clock.advance_ms(MINUTE)
    herd.engine.look(Trigger.CRON)
    assert len(herd.ordered()) == 450


def line_of(herd: Herd, **spec: Any) -> list[str]:
    """Have 250 jobs due, and return the runs that stand in line."""
    herd.give(250, **spec)
    herd.turn(MINUTE, times=3)
    return [entry.run.id for entry in herd.journal.open_entries() if entry.run.id not in herd.ordered()]


def test_a_daemon_that_dies_with_a_line_leaves_it_to_the_next_one(herd: Herd) -> None:
    line = line_of(herd)
    herd.boot()
    assert len(line) == 50
    assert sorted(herd.ordered()) == sorted({*herd.ordered(), *line})


def test_what_is_due_before_an_edit_goes_before_the_edit(herd: Herd) -> None:
    line = line_of(herd)
    herd.give([RunKey.parse(line[0]).task.job_id], generation=2, executable="false")
    assert herd.ordered()[WINDOW:] == line[:1]
    assert herd.engine.running() == 250


def test_what_is_due_before_a_pause_goes_before_the_pause(herd: Herd) -> None:
    line = line_of(herd)
    herd.give([RunKey.parse(line[0]).task.job_id], generation=2, state=JobState.PAUSED)
    assert herd.ordered()[WINDOW:] == line[:1]


def with_room(herd: Herd, seconds: int = 0, **spec: Any) -> list[str]:
    """Have 50 runs stand in line for so long, although the runner has room for them."""
    line = line_of(herd, **spec)
    with herd.no_room():
        herd.pass_s(seconds)
        herd.start(*herd.ordered())
        herd.turn(20)
    return line


def test_what_is_due_before_a_task_leaves_goes_before_it_leaves(herd: Herd) -> None:
    line = with_room(herd)
    herd.engine.take([], [RunKey.parse(run).task for run in line])
    assert sorted(herd.ordered()) == sorted({*herd.ordered(), *line})
    assert herd.engine.running() == 250
    herd.start(*line)
    herd.end(*line)
    herd.turn(20)
    assert herd.engine.running() == WINDOW


@pytest.mark.parametrize("busy", [True, False])
def test_what_leaves_beyond_the_runners_room_or_after_long_is_for_the_next_owner(herd: Herd, busy: bool) -> None:
    """Its order would be too old, and end as failed; and after a pause the task may have been another's for long."""
    line = line_of(herd) if busy else with_room(herd, round(START_WITHIN_S) + 1)
    tasks = [RunKey.parse(run).task for run in line]
    herd.engine.take([], tasks)
    assert set(line).isdisjoint(herd.ordered())
    assert herd.store.runs.open_runs(tasks) == [], "whoever has them next finds no rows in the way"
    assert {run.id for run in herd.journal.doubts(herd.clock.now_ms(), 1000)} == set(line)
    assert herd.engine.running() == WINDOW
    herd.start(*herd.ordered())
    herd.turn(20)
    assert set(line).isdisjoint(herd.ordered())


def test_a_run_that_stands_in_line_is_cancelled_at_once_and_for_good(herd: Herd) -> None:
    first, *_ = line_of(herd)
    herd.engine.cancel(RunKey.parse(first))
    assert herd.state(first) is RunState.CANCELLED
    herd.start(*herd.ordered())
    herd.turn(20)
    herd.turn(20)
    assert first not in herd.ordered()
    assert len(herd.ordered()) == 249


@pytest.mark.parametrize(
    ("concurrency", "of_the_first", "of_the_next"),
    [
        (Concurrency.FORBID, RunState.PENDING, RunState.SKIPPED),
        (Concurrency.QUEUE, RunState.PENDING, RunState.PENDING),
        (Concurrency.REPLACE, RunState.CANCELLED, RunState.PENDING),
        (Concurrency.ALLOW, RunState.PENDING, RunState.PENDING),
    ],
)
def test_a_run_that_stands_in_line_counts_as_one_that_runs(
    herd: Herd, concurrency: Concurrency, of_the_first: RunState, of_the_next: RunState
) -> None:
    first, *_ = line_of(herd, concurrency=concurrency)
    herd.guard.beat()
    with herd.no_room():
        for _ in range(20):  # a minute, without the pause that such a step would look like
            herd.turn(3000, times=3)
    key = RunKey.parse(first)
    following = str(RunKey(key.task, key.fire_ms + MINUTE, 1))
    assert (herd.state(first), herd.state(following)) == (of_the_first, of_the_next)
    waits = herd.engine.tasks[key.task].waiting
    assert [str(key) for key in waits] == ([following] if concurrency is Concurrency.QUEUE else [])
    assert first not in herd.runner.cancelled, "there is nothing that could be ended"


def test_after_a_pause_of_the_process_nobody_in_line_is_claimed_before_a_look_at_the_tasks(herd: Herd) -> None:
    line_of(herd)
    herd.guard.beat()
    herd.start(*herd.ordered())
    herd.turn(30_000)
    herd.end(*herd.ordered())
    herd.turn(1000)
    assert len(herd.rows()) == WINDOW
    herd.guard.around(lambda: 10.0)()
    herd.turn(100)
    assert len(herd.rows()) == 250


def test_whoever_leaves_for_good_still_starts_what_stands_in_line(herd: Herd) -> None:
    line_of(herd)
    herd.thread._retired.set()
    herd.start(*herd.ordered())
    herd.turn(20)
    assert len(herd.ordered()) == 250


@pytest.mark.parametrize(("seconds", "state"), [(3, RunState.PENDING), (5, RunState.SKIPPED)])
def test_who_stood_in_line_beyond_its_grace_starts_as_long_as_an_order_would_have_been_good(
    herd: Herd, seconds: int, state: RunState
) -> None:
    line = line_of(herd, grace_s=2)
    with herd.no_room():
        for _ in range(seconds):
            herd.guard.beat()
            herd.turn(1000)
    herd.start(*herd.ordered())
    herd.turn(20)
    assert {herd.state(run) for run in line} == {state}
    assert set(line).isdisjoint(herd.ordered()) is (state is RunState.SKIPPED)


def test_a_journal_that_cannot_be_written_loses_nobody_in_line(herd: Herd) -> None:
    line_of(herd)
    herd.fences.mysql_ok = False  # granted by nobody, it is written down before it is ordered
    herd.start(*herd.ordered())
    herd.turn(20, times=0)
    herd.thread._hear()
    herd.journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.Error, match="readonly"):
        herd.thread._turn()
    assert len(herd.ordered()) == WINDOW
    herd.journal._db.execute("PRAGMA query_only = OFF")
    herd.runner.check = lambda _: None
    herd.turn(1)
    assert len(herd.ordered()) == len(set(herd.ordered())) == 250


def test_a_run_that_waits_for_the_one_before_it_asks_for_no_look(herd: Herd) -> None:
    """It would be looked at again and again: its time has come, and it cannot go."""
    herd.give(1, schedule="*/10 * * * *", retry=Retry(limit=1, backoff_s=60))
    while not herd.ordered():
        herd.guard.beat()
        herd.turn(3000)
    (first,) = herd.ordered()
    herd.start(first)
    herd.thread.tell(Ended(first, herd.clock.now_ms(), 3, None, False, False, 0, ""))
    herd.turn(20)
    key = RunKey.parse(first)
    herd.engine.demand([RunKey(key.task, key.fire_ms + 1, 1)], Trigger.CATCH_UP)
    for _ in range(30):
        herd.guard.beat()
        herd.turn(3000)
    assert (herd.engine.next_look_ms() or 0) > herd.clock.now_ms()
    second = herd.ordered()[1]
    herd.start(second)
    herd.end(second)
    herd.turn(20)
    assert herd.ordered()[2:] == [str(RunKey(key.task, key.fire_ms, 2))]


def test_a_retry_that_stood_in_line_for_long_is_not_late(herd: Herd) -> None:
    """Its fire is long ago in any case: a retry waits for its back-off, and the grace speaks of the fire."""
    herd.give(1, grace_s=1, retry=Retry(limit=2, backoff_s=5))
    herd.turn(MINUTE)
    (first,) = herd.ordered()
    herd.start(first)
    herd.fail(first)
    herd.turn(20)
    second = first.removesuffix("1") + "2"
    with herd.no_room():
        herd.pass_s(11)
        assert herd.engine.tasks[RunKey.parse(first).task].queued, "it stands in line"
    herd.turn(20)
    assert herd.ordered() == [first, second]
    herd.guard.beat()
    expiry_s = next(order.expires_boot_s or 0 for order in herd.runner.orders if order.run_id == second)
    herd.pass_s(round(expiry_s - herd.clock.boot_s()) + 1)
    herd.thread.tell(Expired(second))
    herd.turn(20)
    assert herd.ordered() == [first, second, second], "nor is it after an order that was"


def test_an_end_that_is_told_twice_at_once_has_one_retry(herd: Herd) -> None:
    herd.give(1, retry=Retry(limit=2, backoff_s=5))
    herd.turn(MINUTE)
    (first,) = herd.ordered()
    herd.start(first)
    herd.fail(first, first)
    herd.turn(20)
    herd.pass_s(10)
    assert herd.ordered() == [first, first.removesuffix("1") + "2"]
    assert herd.parts.metrics.runs.labels("failed")._value.get() == 1


def test_a_call_of_cron_stands_until_the_journal_can_be_written(herd: Herd) -> None:
    """Cron calls once a minute."""
    herd.boot(timers=False)
    herd.give(3)
    herd.clock.advance_ms(MINUTE)
    herd.thread.look()
    with herd.no_disk(), pytest.raises(sqlite3.Error, match="readonly"):
        herd.thread._turn()
    herd.turn(1000)
    assert len(herd.ordered()) == 3


def test_a_call_of_cron_outlives_whatever_else_fails_in_its_turn(herd: Herd) -> None:
    herd.boot(timers=False)
    herd.give(3)
    herd.clock.advance_ms(MINUTE)
    herd.thread.look()
    herd.thread.post(lambda: herd.give(4))
    with herd.no_disk(), pytest.raises(sqlite3.Error, match="readonly"):
        herd.thread._turn()
    herd.turn(1000)
    assert len(herd.ordered()) == 3


def give_anew(herd: Herd, task: TaskId, *, cursor_ms: int, **spec: Any) -> None:
    """The leader had given the task to another worker, and gives it back: its fires are decided up to `cursor_ms`."""
    fence = herd.engine.tasks[task].fence + 1
    herd.give([task.job_id], fence=fence, cursor_ms=cursor_ms, **spec)


def test_a_task_that_is_given_anew_while_its_run_stands_in_line_has_one_run(herd: Herd) -> None:
    first, *_ = line_of(herd, concurrency=Concurrency.ALLOW)
    key = RunKey.parse(first)
    assert herd.journal.newest_claims()[key.task] == key.fire_ms
    give_anew(herd, key.task, cursor_ms=key.fire_ms - MINUTE, concurrency=Concurrency.ALLOW)
    herd.start(*herd.ordered())
    herd.turn(20)
    herd.turn(20)
    assert herd.ordered().count(first) == 1
    herd.boot()
    herd.end(first)
    herd.turn(20)
    assert herd.state(first) is RunState.SUCCEEDED


def test_a_run_that_waited_before_it_stood_in_line_is_not_decided_again_either(herd: Herd) -> None:
    herd.give(1, concurrency=Concurrency.QUEUE)
    herd.turn(MINUTE)
    (first,) = herd.ordered()
    herd.start(first)
    for _ in range(20):
        herd.guard.beat()
        herd.turn(3000)
    key = RunKey.parse(first)
    second = str(RunKey(key.task, key.fire_ms + MINUTE, 1))
    with herd.no_room():
        herd.end(first)
        herd.turn(20)
        assert herd.engine.tasks[key.task].queued
    give_anew(herd, key.task, cursor_ms=key.fire_ms, concurrency=Concurrency.QUEUE)
    herd.turn(20)
    assert herd.ordered() == [first, second]
    assert not herd.engine.tasks[key.task].waits, "it does not wait for itself"
    herd.start(second)
    herd.end(second)
    herd.turn(20)
    herd.turn(20)
    assert herd.state(second) is RunState.SUCCEEDED


def test_what_is_refused_leaves_alone_what_runs_under_another_nonce(herd: Herd) -> None:
    herd.give(1)
    herd.turn(MINUTE)
    (run,) = herd.ordered()
    herd.start(run)
    herd.turn(20)
    entry = herd.journal.entry(RunKey.parse(run))
    assert entry is not None
    other = Entry(entry.run.evolve(nonce="another", state=RunState.SKIPPED, reason=Reason.FENCE_REFUSED), Phase.OVER)
    herd.journal.settle([], [other], [], Reason.FENCE_REFUSED, herd.clock.now_ms())
    herd.journal.give_up([other], Reason.FENCE_REFUSED, herd.clock.now_ms())
    assert herd.journal.entry(entry.run.key) == entry


def test_a_look_ends_however_slow_it_is_while_no_fence_answers(herd: Herd) -> None:
    """What waits for a fence is due again after a second: the first of many before the last has had its turn."""
    herd.give(250, delivery=Delivery.AT_MOST_ONCE)
    herd.fences.mysql_ok = False
    looked: list[TaskId] = []

    def slow(item: Installed) -> None:
        looked.append(item.id)
        assert len(looked) <= 250
        herd.clock.advance_ms(11)

    herd.orders.look = slow
    herd.clock.advance_ms(MINUTE)
    herd.engine.look(Trigger.TIMER)
    assert len(looked) == 250


def test_before_a_change_of_some_tasks_nothing_is_decided_about_the_others(herd: Herd) -> None:
    """The engine hears nobody meanwhile."""
    herd.give(5)
    herd.clock.advance_ms(MINUTE)
    herd.engine.look_at([TaskId(2, 0), TaskId(4, 0), TaskId(77, 0)], Trigger.TIMER)
    assert [RunKey.parse(run).task.job_id for run in herd.ordered()] == [2, 4]
    herd.turn()
    assert len(herd.ordered()) == len(set(herd.ordered())) == 5


def test_what_stands_in_line_before_an_edit_is_ordered_with_the_body_of_before(herd: Herd) -> None:
    """Where root starts the runs, it executes what is sealed, and that is read from the journal."""
    line = line_of(herd)
    herd.orders.command = lambda item: str(
        VERIFIER.open(herd.journal.envelope(item.id), job_id=item.id.job_id).generation
    )
    herd.give([RunKey.parse(line[0]).task.job_id], generation=2, executable="false")
    assert [(order.run_id, order.command) for order in herd.runner.orders[WINDOW:]] == [(line[0], "1")]


def late_before_the_runner(herd: Herd) -> list[str]:
    """Have 30 runs ordered that the runner finds too old to carry out, and every third too late by now."""
    for n in range(1, 31):
        herd.give([n], grace_s=1 if n % 3 == 0 else 600)
    herd.turn(MINUTE)
    orders = herd.ordered()
    herd.pass_s(round(START_WITHIN_S) + 1)
    for run in orders:
        herd.thread.tell(Expired(run))
    return orders


def test_orders_that_came_too_late_are_lost_to_no_journal_that_fails(herd: Herd) -> None:
    orders = late_before_the_runner(herd)
    with herd.no_disk(), pytest.raises(sqlite3.Error, match="readonly"):
        herd.thread._turn()
    herd.turn(1000, times=2)
    late = [run for run in orders if RunKey.parse(run).task.job_id % 3 == 0]
    assert {herd.state(run) for run in late} == {RunState.SKIPPED}
    assert sorted(herd.ordered()) == sorted([*orders, *(run for run in orders if run not in late)])
    assert herd.engine.running() == 20


def test_what_waits_behind_runs_that_there_will_not_be_is_lost_to_no_journal_that_fails(herd: Herd) -> None:
    """Of two that wait, the first is too late as well: that is to be written down before the second goes."""
    herd.give(1, concurrency=Concurrency.QUEUE, grace_s=100)
    herd.turn(MINUTE)
    (first,) = herd.ordered()
    herd.start(first)
    for _ in range(60):
        herd.guard.beat()
        herd.turn(3000)
    key = RunKey.parse(first)
    assert len(herd.engine.tasks[key.task].waiting) == 3
    herd.thread.tell(Ended(first, herd.clock.now_ms(), 0, None, False, False, 0, ""))
    update = herd.journal.update
    calls: list[int] = []

    def fails(entries: Sequence[Entry], *, report: bool = True) -> None:
        calls.append(len(entries))
        if len(calls) == 2:
            raise sqlite3.OperationalError("disk I/O error")
        update(entries, report=report)

    herd.journal.update = fails  # type: ignore[method-assign]
    with pytest.raises(sqlite3.Error, match="disk"):
        herd.turn(20)
    herd.turn(1000, times=2)
    assert herd.ordered() == [first, str(RunKey(key.task, key.fire_ms + 2 * MINUTE, 1))]


def test_what_is_decided_has_its_place_in_line_whatever_fails_after_that(herd: Herd) -> None:
    """A fire replaces the one before it, and to write that down fails: the others that were decided with it go on."""
    herd.give([1], concurrency=Concurrency.REPLACE)
    with herd.no_room():
        herd.turn(MINUTE)
        for _ in range(19):
            herd.guard.beat()
            herd.turn(3000)
        herd.give([2, 3])
        update = herd.journal.update

        def fails(entries: Sequence[Entry], *, report: bool = True) -> None:
            raise sqlite3.OperationalError(f"disk I/O error: {len(entries)}, {report}")

        herd.journal.update = fails  # type: ignore[method-assign]
        herd.guard.beat()
        with pytest.raises(sqlite3.Error, match="disk"):
            herd.turn(3000)
        herd.journal.update = update  # type: ignore[method-assign]
    herd.turn(1000, times=2)
    assert {RunKey.parse(run).task.job_id for run in herd.ordered()} >= {2, 3}
    assert {entry.run.id for entry in herd.journal.open_entries()} == {
        str(key) for item in herd.engine.tasks.values() for key in (*item.active, *item.queued, *item.waiting)
    }


def test_the_runner_is_heard_while_no_fence_answers(herd: Herd) -> None:
    """What is claimed and not granted takes no room: the whole line would be asked for in one turn, and in the next."""
    herd.boot(timers=False)
    herd.give(1000, delivery=Delivery.AT_MOST_ONCE)
    herd.fences.mysql_ok = False
    asked: list[TaskId] = []
    herd.orders.look = lambda item: asked.append(item.id)
    with herd.no_room():
        herd.clock.advance_ms(MINUTE)
        herd.engine.look(Trigger.CRON)
    syncs = herd.syncs
    herd.turn()
    assert len(asked) == WINDOW
    assert herd.syncs - syncs == WINDOW // PIECE, "a piece is written down with one sync"
    assert herd.thread._wake.is_set(), "the others have their turn at once"
    herd.turn(times=4)
    assert len(set(asked)) == len(asked) == 1000
