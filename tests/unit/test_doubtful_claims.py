"""Claims that MySQL may have granted without being heard, and on which nobody will act: they are given up there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import Concurrency, Delivery, JobSpec, JobType, Misfire
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper_worker.journal import SETTLED_MS, Entry, Journal, Phase
from tests.unit.engine_town import MINUTE, TASK, EngineTown, Worker

Make = Callable[[Delivery], EngineTown]


@pytest.fixture
def make() -> Iterator[Make]:
    """Two workers; the first one has a job that fires every minute."""
    made: list[EngineTown] = []

    def town(delivery: Delivery) -> EngineTown:
        spec = JobSpec("true", "* * * * *", JobType.COMMAND, delivery=delivery, misfire=Misfire.ALL)
        assert spec.concurrency is Concurrency.FORBID
        made.append(EngineTown(spec, "a", "b"))
        made[-1].assign("a")
        for worker in made[-1].workers.values():
            works(worker)
        return made[-1]

    yield town
    for one in made:
        for worker in one.workers.values():
            worker.fences.close()
            worker.journal.close()


def works(worker: Worker) -> None:
    """One turn of every loop of a daemon."""
    worker.look()
    for step in (worker.lease.step, worker.agent.step, worker.reporter.step):
        worker.try_to(step)
    worker.look()


def next_minute(town: EngineTown, workers: Sequence[Worker] = ()) -> RunKey:
    """Go to the next fire, and have these look at once."""
    town.clock.set_ms((town.clock.now_ms() // MINUTE + 1) * MINUTE)
    for worker in workers:
        worker.look()
    return RunKey(TASK, town.clock.now_ms(), 1)


def rows(town: EngineTown, fire_ms: int) -> list[tuple[int, str, str]]:
    return [(run.key.attempt, run.worker, run.state.value) for run in town.store.runs.at(TASK.job_id, fire_ms)]


def two_owners(town: EngineTown) -> tuple[Worker, Worker]:
    """Have the first worker given up while it was cut off, and back with ZooKeeper alone before it has looked."""
    former, present = town.workers["a"], town.workers["b"]
    former.line.cut = True
    former.coordinator.cut()
    town.clock.advance_ms(8000)
    town.bury(former)
    town.assign("b")
    works(present)
    former.coordinator.heal()
    former.try_to(former.lease.step)
    return former, present


def both_fall_silent(town: EngineTown) -> tuple[Worker, RunKey]:
    """ZooKeeper grants a fire to the former owner, who dies before its start, and MySQL to the present one, unheard."""
    former, present = two_owners(town)
    former.processes.stopped = True
    key = next_minute(town, [former])
    former.crash()
    former.processes.held.clear()
    present.line.mute = True
    present.look()
    return present, key


def test_a_fire_whose_two_claimants_both_fall_silent_is_run_again(make: Make) -> None:
    """I11 of the protocol's model: ZooKeeper granted it to one who died, MySQL to one who never heard it."""
    town = make(Delivery.AT_LEAST_ONCE)
    present, key = both_fall_silent(town)
    assert (rows(town, key.fire_ms), town.starts) == ([(1, "b", "claimed")], []), "nobody will start it"
    for _ in range(2):
        works(present)
    assert town.store.runs.get(key).reason is Reason.FENCE_REFUSED
    assert [(start.key.attempt, start.worker) for start in town.starts] == [(2, "b")]
    assert rows(town, key.fire_ms) == [(1, "b", "lost"), (2, "b", "claimed")]
    former = town.workers["a"]
    former.boot()
    former.line.cut = False
    works(former)
    assert len(town.starts) == 1


def test_where_the_other_one_lives_and_ran_it_both_starts_are_told(make: Make) -> None:
    """Nobody can tell this from the other's death: guarantees.md says why it is not avoided."""
    town = make(Delivery.AT_LEAST_ONCE)
    former, present = two_owners(town)
    key = next_minute(town, [former])
    present.line.mute = True
    present.look()
    assert [(start.key.attempt, start.worker) for start in town.starts] == [(1, "a")]
    for _ in range(2):
        works(present)
    assert [(start.key.attempt, start.worker) for start in town.starts] == [(1, "a"), (2, "b")]
    former.line.cut = False
    works(former)
    (double,) = town.store.events.latest(limit=100, kind="run.double")
    assert (double.subject, double.detail[:20]) == (str(key), "also started by a: r")
    assert rows(town, key.fire_ms) == [(1, "b", "lost"), (2, "b", "claimed")]


def test_the_daemon_that_was_refused_may_die_before_it_tells(make: Make) -> None:
    town = make(Delivery.AT_LEAST_ONCE)
    present, key = both_fall_silent(town)
    present.crash()
    present.boot()
    for _ in range(2):
        works(present)
    assert rows(town, key.fire_ms) == [(1, "b", "lost"), (2, "b", "claimed")]


@pytest.mark.parametrize("heard", [False, True], ids=["never heard", "answer lost"])
def test_a_claim_whose_answer_was_lost_holds_up_no_next_owner(make: Make, heard: bool) -> None:
    """Under `at_most_once` it waits for MySQL; the task goes to another one meanwhile, whose runs may not overlap."""
    town = make(Delivery.AT_MOST_ONCE)
    last, heir = town.workers["a"], town.workers["b"]
    last.line.mute, last.line.deaf = heard, not heard
    key = next_minute(town, [last])
    assert [entry.phase for entry in last.journal.open_entries()] == [Phase.WAITING]
    last.line.cut = True
    town.revoke()
    last.try_to(last.agent.step)
    town.assign("b")
    works(heir)
    assert rows(town, key.fire_ms) == ([(1, "a", "claimed")] if heard else [(1, "b", "claimed")])
    last.line.cut = False
    works(last)
    for run_id in sorted(heir.processes.live):
        heir.processes.end(run_id, "ok")
    works(heir)
    works(heir)
    assert rows(town, key.fire_ms) == ([(1, "a", "lost")] if heard else [(1, "b", "succeeded")])
    after = next_minute(town, [heir])
    assert rows(town, after.fire_ms) == [(1, "b", "claimed")]
    assert [start.key for start in town.starts] == ([after] if heard else [key, after]), "once at the most"


def test_a_run_that_waited_and_was_given_up_is_run_again_by_whom_the_task_comes_back_to(make: Make) -> None:
    town = make(Delivery.AT_LEAST_ONCE)
    worker = town.workers["a"]
    worker.processes.stopped = True
    key = next_minute(town, [worker])
    # Its order expires, and by then a run of another node is in the way: it waits, and its row says claimed.
    town.clock.advance_ms(5000)
    worker.processes.go_on()
    worker.engine.set_foreign({TASK: frozenset({RunKey(TASK, 1, 1)})})
    worker.hear()
    assert list(worker.engine.tasks[TASK].waiting) == [key]
    town.revoke()
    worker.agent.step()
    worker.reporter.step()
    assert rows(town, key.fire_ms) == [(1, "a", "lost")]
    town.assign("a")
    works(worker)
    assert [(start.key.attempt, start.worker) for start in town.starts] == [(2, "a")]


def test_a_claim_that_lands_after_its_task_was_given_anew_is_given_up(make: Make) -> None:
    """It was decided again, under another nonce, and MySQL refuses that one: its row would say claimed for ever."""
    town = make(Delivery.AT_MOST_ONCE)
    worker = town.workers["a"]
    worker.line.deaf = True
    key = next_minute(town, [worker])
    (waits,) = worker.journal.open_entries()
    town.revoke()
    town.assign("a")
    worker.agent.step()
    assert town.store.runs.claim([waits.run.evolve(state=RunState.CLAIMED)]) == {key: True}
    for _ in range(2):
        works(worker)
        town.clock.advance_ms(1000)
    assert (rows(town, key.fire_ms), town.starts) == ([(1, "a", "lost")], [])
    after = next_minute(town, [worker])
    assert rows(town, after.fire_ms) == [(1, "a", "claimed")]


def test_a_daemon_that_finds_its_task_gone_at_its_start_gives_up_what_waited(make: Make) -> None:
    town = make(Delivery.AT_MOST_ONCE)
    worker = town.workers["a"]
    worker.line.mute = True
    key = next_minute(town, [worker])
    worker.crash()
    # What went to others meanwhile is dropped before anything fires.
    worker.journal.save_tasks([], [TASK])
    worker.boot()
    worker.reporter.step()
    assert (rows(town, key.fire_ms), town.starts) == ([(1, "a", "lost")], [])


def test_who_dies_right_after_telling_has_it_run_again_by_the_second_telling(make: Make) -> None:
    town = make(Delivery.AT_LEAST_ONCE)
    present, key = both_fall_silent(town)
    present.try_to(present.lease.step)
    present.reporter.step()
    assert rows(town, key.fire_ms) == [(1, "b", "lost")]
    # Whom it was to look after was in its memory only; and cron's stand-in, which may have told it, has no agent.
    present.crash()
    present.boot()
    town.clock.advance_ms(SETTLED_MS)
    for _ in range(2):
        present.try_to(present.reporter.step)
        present.try_to(present.agent.step)
        present.hear()
    assert [start.key.attempt for start in town.starts if start.key.fire_ms == key.fire_ms] == [2]


def test_while_mysql_is_away_a_doubt_is_kept(make: Make) -> None:
    town = make(Delivery.AT_MOST_ONCE)
    worker = town.workers["a"]
    worker.line.mute = True
    key = next_minute(town, [worker])
    worker.line.cut = True
    town.revoke()
    worker.try_to(worker.agent.step)
    worker.try_to(worker.reporter.step)
    assert rows(town, key.fire_ms) == [(1, "a", "claimed")]
    worker.line.cut = False
    worker.reporter.step()
    assert rows(town, key.fire_ms) == [(1, "a", "lost")]


def test_a_telling_counts_from_its_beginning(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim may land between MySQL's look for it and the end of that call: who began too early tells it again."""
    town = make(Delivery.AT_MOST_ONCE)
    worker = town.workers["a"]
    worker.line.deaf = True
    next_minute(town, [worker])
    town.revoke()
    worker.agent.step()
    give_up = town.store.runs.give_up

    def slowly(runs: Sequence[Run]) -> list[RunKey]:
        lost = give_up(runs)
        town.clock.advance_ms(SETTLED_MS)
        return lost

    monkeypatch.setattr(town.store.runs, "give_up", slowly)
    worker.reporter.step()
    assert len(worker.journal.doubts(town.clock.now_ms(), 10)) == 1
    worker.reporter.step()
    assert worker.journal.doubts(town.clock.now_ms() + SETTLED_MS, 10) == []


@pytest.fixture
def journal() -> Iterator[Journal]:
    made = Journal(Path(":memory:"))
    yield made
    made.close()


def entry(nonce: str) -> Entry:
    return Entry(Run(RunKey(TASK, MINUTE, 1), Trigger.CRON, RunState.PENDING, "a", nonce), Phase.OVER)


def test_a_doubt_is_told_at_once_and_again_when_no_claim_can_be_under_way_any_more(journal: Journal) -> None:
    journal.give_up([entry("n1")], Reason.ISOLATED, 1000)
    assert journal.dirty_count() == 1
    (doubt,) = journal.doubts(1000, 10)
    assert (doubt.key, doubt.nonce, doubt.reason, doubt.trigger) == (
        RunKey(TASK, MINUTE, 1), "n1", Reason.ISOLATED, Trigger.CRON,
    )  # fmt: skip
    journal.mark_given_up([doubt], 1000)
    assert (journal.doubts(999 + SETTLED_MS, 10), journal.dirty_count()) == ([], 0)
    assert journal.doubts(1000 + SETTLED_MS, 10) == [doubt]
    journal.mark_given_up([doubt], 1000 + SETTLED_MS)
    assert journal.doubts(1000 + SETTLED_MS, 10) == []


def test_a_later_decision_about_the_same_fire_leaves_the_doubt(journal: Journal) -> None:
    journal.give_up([entry("n1")], Reason.ISOLATED, 1000)
    decided = entry("n2")
    journal.decide([Entry(decided.run, Phase.DECIDED)], [])
    (open_entry,) = journal.open_entries()
    assert (open_entry.run.nonce, journal.doubts(1000, 10)[0].nonce) == ("n2", "n1")


def test_two_claims_of_one_fire_are_two_doubts(journal: Journal) -> None:
    for nonce in ("n1", "n2"):
        journal.give_up([entry(nonce)], Reason.ISOLATED, 1000)
    assert [doubt.nonce for doubt in journal.doubts(1000, 10)] == ["n1", "n2"]


# --------------------------------------------------------------------------------------- given back unheard


def give(town: EngineTown, name: str) -> None:
    """Give the task to somebody, and note it in MySQL, too, which tells former owners by that."""
    town.epoch += 1
    item = Assignment(TASK, name, town.generation, town.epoch, MoveReason.NEW, town.clock.now_ms(), town.since_ms)
    town.store.assignments.save([item], term=town.term)
    town.leader.move([item], [], town.leadership())


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("delivery", list(Delivery))
def test_what_a_former_owner_was_refused_is_run_if_the_task_comes_back_and_nobody_ran_it(
    delivery: Delivery, make: Make, *, ended: bool
) -> None:
    """It hears late that the task is its own again, when MySQL has granted it a later fire that is not reported yet."""
    town = make(delivery)
    former, present = town.workers["a"], town.workers["b"]
    former.coordinator.cut()
    town.clock.advance_ms(1000)
    town.revoke()
    give(town, "b")
    works(present)
    present.crash()
    refused = next_minute(town, [former])
    assert town.starts == []
    town.clock.advance_ms(9000)
    present.silent_since_ms = town.clock.now_ms() - 9000
    town.bury(present)
    give(town, "a")
    later = next_minute(town, [former])
    assert [start.key for start in town.starts] == [later]
    if ended:
        former.processes.end(str(later), "ok")
    former.coordinator.heal()
    for _ in range(3):
        works(former)
        town.clock.advance_ms(1000)
    if not ended:  # a job that forbids overlaps waits for it
        former.processes.end(str(later), "ok")
        works(former)
        works(former)

    assert sorted(start.key for start in town.starts) == [refused, later]
