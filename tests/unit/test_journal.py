"""The journal: durable, idempotent, and never going back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import Event
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow

TASK = TaskId(17, 0)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def entry(minute: int, phase: Phase = Phase.DECIDED, state: RunState = RunState.PENDING, **changes: object) -> Entry:
    run = Run(
        RunKey(TASK, minute * 60_000, 1), Trigger.TIMER, state, worker="w1", nonce=f"n{minute}", generation=2, fence=9
    )
    return Entry(run.evolve(**changes), phase)


def test_what_was_decided_is_there_after_a_crash(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db")
    first.save_tasks([TaskRow(TASK, 1, 9, b"signed", 0, 60_000)])
    first.decide([entry(1)], [(TASK, 60_000, 120_000)])
    # No close: the process is gone. Another one opens the file.
    second = Journal(tmp_path / "journal.db")
    assert second.open_entries() == [entry(1)]
    assert second.tasks() == [TaskRow(TASK, 1, 9, b"signed", 60_000, 120_000)]


def test_a_fire_is_decided_once(journal: Journal) -> None:
    journal.decide([entry(1)], [])
    journal.decide([replace(entry(1), run=entry(1).run.evolve(nonce="other"))], [])
    assert [e.run.nonce for e in journal.open_entries()] == ["n1"]


def test_a_cursor_never_goes_back(journal: Journal) -> None:
    journal.save_tasks([TaskRow(TASK, 1, 9, b"a", 600_000, None)])
    journal.decide([], [(TASK, 300_000, 360_000)])
    journal.save_tasks([TaskRow(TASK, 2, 9, b"b", 0, 660_000)])
    assert journal.tasks() == [TaskRow(TASK, 2, 9, b"b", 600_000, 660_000)]


def test_skips_are_reported_and_pending_ones_are_not(journal: Journal) -> None:
    skipped = entry(2, Phase.OVER, RunState.SKIPPED, reason=Reason.OVERLAP)
    journal.decide([entry(1), skipped], [])
    assert journal.dirty(10) == [skipped]
    assert journal.dirty_count() == 1


def test_a_run_that_moved_on_meanwhile_stays_dirty(journal: Journal) -> None:
    claimed = entry(1, Phase.CLAIMED, RunState.CLAIMED)
    running = entry(1, Phase.STARTED, RunState.RUNNING)
    journal.update([claimed])
    reported = journal.dirty(10)
    journal.update([running])
    journal.mark_reported([e.run for e in reported])
    assert journal.dirty(10) == [running]
    journal.mark_reported([running.run])
    assert journal.dirty(10) == []


def test_every_field_of_a_run_survives(journal: Journal) -> None:
    full = Entry(
        Run(
            RunKey(TASK, 60_000, 3),
            Trigger.RETRY,
            RunState.FAILED,
            "w1",
            "n",
            4,
            5,
            Reason.TIMEOUT,
            1,
            2,
            3,
            7,
            9,
            True,
            "tail",
            12,
        ),
        Phase.OVER,
        6,
        "zookeeper",
    )
    journal.update([full])
    assert journal.entry(full.run.key) == full


def test_due_tasks_are_found_by_their_next_look(journal: Journal) -> None:
    rows = [TaskRow(TaskId(n, 0), 1, 1, b"", 0, next_ms) for n, next_ms in enumerate([50, 100, 150, None], start=1)]
    journal.save_tasks(rows)
    assert [row.task.job_id for row in journal.due_tasks(100)] == [1, 2]


def test_dropped_tasks_are_gone_and_their_runs_stay(journal: Journal) -> None:
    journal.save_tasks([TaskRow(TASK, 1, 9, b"", 0)])
    journal.update([entry(1, Phase.STARTED, RunState.RUNNING)])
    journal.save_tasks([], [TASK])
    assert (journal.tasks(), len(journal.open_entries())) == ([], 1)


def test_only_what_is_over_and_reported_is_forgotten(journal: Journal) -> None:
    over = [entry(n, Phase.OVER, RunState.SUCCEEDED, ended_ms=n * 60_000) for n in range(1, 4)]
    journal.update(over)
    journal.mark_reported([over[0].run, over[2].run])
    assert journal.prune(before_ms=150_000) == 1
    assert journal.entry(over[0].run.key) is None
    assert journal.entry(over[1].run.key) == over[1]


def test_a_failed_write_changes_nothing(journal: Journal) -> None:
    bad = replace(entry(2), run=entry(2).run.evolve(nonce=None))
    with pytest.raises(Exception, match="NOT NULL"):
        journal.update([entry(1), bad])
    assert journal.open_entries() == []


def test_events_wait_for_mysql_in_order_and_the_newest_of_each_kind_stays(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db")
    told = [
        Event(1, "cron.silent", "w1", "a"),
        Event(2, "cron.back", "w1", "b"),
        Event(3, "cron.silent", "w1", "c"),
        Event(4, "other.kind", "w1", "d"),
    ]
    for event in told:
        first.tell(event)
    second = Journal(tmp_path / "journal.db")
    untold = second.untold(10)
    assert list(untold.values()) == told
    assert list(second.untold(2).values()) == told[:2]
    second.mark_told(list(untold)[:3])
    assert list(second.untold(10).values()) == told[3:]
    kinds = ("cron.silent", "cron.back")
    assert Journal(tmp_path / "journal.db").last_event(kinds) == told[2]
    assert second.last_event(("none.such",)) is None
    for number in range(100):
        second.tell(Event(10 + number, "cron.silent", "w1", ""))
    second.mark_told(second.untold(1000))
    assert second._read("SELECT count(*) FROM events") == [(3,)]
