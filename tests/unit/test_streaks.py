"""When has a job failed so often in a row that it is paused? On values, without any store."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState, JobType, OnWorkerLoss
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper_manager.streaks import failures_in_a_row

MINUTE_MS = 60_000
#: 2026-03-01T12:00:00Z
NOON_MS = 1_772_366_400_000
STATES = {
    "F": RunState.FAILED,
    "T": RunState.TIMED_OUT,
    "L": RunState.LOST,
    "S": RunState.SUCCEEDED,
    "k": RunState.SKIPPED,
    "c": RunState.CANCELLED,
    "r": RunState.RUNNING,
    "p": RunState.PENDING,
}


def job(generation: int = 1, effective_from_ms: int = NOON_MS, **fields: object) -> Job:
    spec = JobSpec("true", "* * * * *", JobType.COMMAND, pause_after_failures=3).evolve(**fields)
    return Job(1, spec, generation, JobState.ACTIVE, NOON_MS, NOON_MS, effective_from_ms, b"")


def history(*fires: str, trigger: Trigger = Trigger.TIMER, generation: int = 1) -> list[Run]:
    """Return runs, newest first, of one fire a minute: `FS` is attempt 1 and 2, `F|S` are shards 0 and 1."""
    found = []
    for number, fire in enumerate(fires, start=1):
        for shard, attempts in enumerate(fire.split("|")):
            for attempt, state in enumerate(attempts, start=1):
                fire_ms = NOON_MS + number * MINUTE_MS
                run = Run(RunKey(TaskId(1, shard), fire_ms, attempt), trigger, STATES[state], generation=generation)
                found.append(run.evolve(ended_ms=fire_ms + 1000 * attempt, exit_code=attempt))
    return sorted(found, key=lambda run: (run.key.fire_ms, run.key.task.shard, run.key.attempt), reverse=True)


@dataclass(frozen=True)
class Row:
    name: str
    fires: tuple[str, ...]
    count: int
    retries: int = 0
    #: Minutes since the newest fire.
    later: int = 0
    on_worker_loss: OnWorkerLoss = OnWorkerLoss.HOLD


ROWS = [
    Row("failures are counted up to what is enough", ("F",) * 9, 3),
    Row("a job that never ran has none", (), 0),
    Row("a success ends the row", ("F", "S", "F", "F"), 2),
    Row("the newest fire has succeeded", ("F", "F", "F", "S"), 0),
    Row("a time-out is a failure", ("T", "F"), 2),
    Row("a skipped fire neither counts nor ends the row", ("F", "k", "F"), 2),
    Row("nor does a cancelled one", ("F", "c", "F"), 2),
    Row("nor one that is under way", ("F", "r", "F", "p"), 2),
    Row("a lost run that is held is a failure", ("L", "F"), 2),
    Row("a lost run that will be run again is none yet", ("F", "L"), 1, on_worker_loss=OnWorkerLoss.RERUN),
    Row("it is one once its grace is over", ("F", "L"), 2, later=61, on_worker_loss=OnWorkerLoss.RERUN),
    Row("it is one once all reruns were lost, too", ("F", "LLLL"), 2, on_worker_loss=OnWorkerLoss.RERUN),
    Row("a retry that succeeds ends the row", ("F", "FS"), 0, retries=1),
    Row("only the last attempt is a failure", ("FF", "F"), 1, retries=1),
    Row("a retry that never came is not waited for forever", ("FF", "F"), 2, retries=1, later=62),
    Row("a retry that was skipped leaves the failure before it", ("Fk", "Fk"), 2),
    Row("one failed shard is a failure, whatever the others do", ("F|S", "S|F", "r|F"), 3),
    Row("of several failed shards the fire counts once", ("F|F", "F|F"), 2),
    Row("a shard that is under way may still fail", ("F|F", "S|r"), 1),
    Row("a shard that succeeded while another was skipped is a success", ("F|F", "S|k"), 0),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_failures_in_a_row(row: Row) -> None:
    mine = job(retry=Retry(row.retries, 10, 10), on_worker_loss=row.on_worker_loss)
    now_ms = NOON_MS + (len(row.fires) + row.later) * MINUTE_MS + 5000
    assert failures_in_a_row(mine, history(*row.fires), now_ms=now_ms, enough=3).count == row.count


def test_runs_on_demand_and_their_retries_do_not_count() -> None:
    manual = history("F", "S", trigger=Trigger.MANUAL)
    again = [manual[-1].evolve(key=RunKey(TaskId(1, 0), manual[-1].key.fire_ms, 2), trigger=Trigger.RETRY)]
    failed = [run.evolve(key=RunKey(TaskId(1, 0), run.key.fire_ms + 1, 1)) for run in history("F", "F")]
    runs = sorted([*manual, *again, *failed], key=lambda run: (run.key.fire_ms, run.key.attempt), reverse=True)
    assert failures_in_a_row(job(), runs, now_ms=NOON_MS + 5 * MINUTE_MS, enough=9).count == 2


def test_counting_begins_anew_with_each_generation() -> None:
    runs = [*history("F", "F", "F", "F", generation=2)[:2], *history("F", "F", generation=1)]
    fresh = job(2, NOON_MS + 2 * MINUTE_MS)
    assert failures_in_a_row(fresh, runs, now_ms=NOON_MS + 9 * MINUTE_MS, enough=9).count == 2


def test_a_worker_that_has_not_heard_of_the_change_does_not_count() -> None:
    late = history("F", "F", "F", generation=1)
    assert failures_in_a_row(job(2), late, now_ms=NOON_MS + 9 * MINUTE_MS, enough=3).count == 0


def test_a_retry_of_a_fire_of_before_does_not_count_either() -> None:
    old = history("F", "F", "F", generation=2)
    assert failures_in_a_row(job(2, NOON_MS + 2 * MINUTE_MS), old, now_ms=NOON_MS + 9 * MINUTE_MS, enough=3).count == 1


def test_no_more_is_read_than_is_needed() -> None:
    read = count()
    runs = (run for run, _ in zip(history(*["F"] * 500), read, strict=False))
    assert failures_in_a_row(job(), runs, now_ms=NOON_MS + 600 * MINUTE_MS, enough=3).count == 3
    assert next(read) < 6


WORDS = [
    (RunState.FAILED, {"exit_code": 7}, "exit 7"),
    (RunState.FAILED, {"signal": 9}, "signal 9"),
    (RunState.FAILED, {"reason": Reason.SPAWN_FAILED}, "spawn_failed"),
    (RunState.TIMED_OUT, {"reason": Reason.TIMEOUT, "signal": 15}, "timed out"),
    (RunState.LOST, {"reason": Reason.WORKER_LOST}, "lost (worker_lost)"),
]


@pytest.mark.parametrize(("state", "facts", "how"), WORDS)
def test_the_words_tell_how_the_last_run_ended(state: RunState, facts: dict[str, object], how: str) -> None:
    key = RunKey(TaskId(1, 0), NOON_MS + MINUTE_MS, 1)
    last = Run(key, Trigger.TIMER, state, generation=1, ended_ms=NOON_MS + MINUTE_MS + 1500).evolve(**facts)
    mine = job(on_worker_loss=OnWorkerLoss.HOLD)
    one = failures_in_a_row(mine, [last], now_ms=NOON_MS + 2 * MINUTE_MS, enough=1)
    assert one.words == f"paused after 1 failure, last: {how} at 2026-03-01T12:01:01.500Z"
    runs = [last, *history("F")]
    later = last.evolve(key=RunKey(TaskId(1, 0), key.fire_ms + 1, 1))
    two = failures_in_a_row(mine, [later, *runs], now_ms=0, enough=2)
    assert two.words.startswith("paused after 2 failures in a row, last: ")
