"""A damaged journal is set aside and stops nobody; a disk that cannot be read is no damaged journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow
from cronkeeper_worker.sound_journal import KEPT, open_journal

TASK = TaskId(17, 0)
NOW = 1_795_219_200_000


def entry(minute: int) -> Entry:
    run = Run(RunKey(TASK, minute * 60_000, 1), Trigger.TIMER, RunState.CLAIMED, worker="w1", nonce=f"n{minute}")
    return Entry(run, Phase.CLAIMED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with a past, closed in order."""
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.save_tasks([TaskRow(TASK, 1, 9, b"signed" * 50, 0, 60_000)])
    journal.decide([entry(minute) for minute in range(200)], [])
    journal.close()
    return path


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 500)


def flip_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for offset in range(4096, len(data), 4096):
        data[offset : offset + 64] = b"\xa5" * 64
    path.write_bytes(data)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10_000])


def another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (something TEXT)")
    db.close()


def a_row_of_nonsense(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE runs SET phase = 'dancing' WHERE run_id IN (SELECT run_id FROM runs LIMIT 1)")
    db.close()


def test_a_sound_journal_is_opened_as_it_is(path: Path) -> None:
    before = [*path.parent.iterdir()]
    journal = open_journal(path, "w1", NOW)
    assert len(journal.open_entries()) == 200
    assert journal.untold(10) == {}
    assert journal.is_settled(RunKey(TASK, 1, 1))
    journal.close()
    assert [*path.parent.iterdir()] == before


@pytest.mark.parametrize("damage", [garbage, flip_pages, torn, another_program, a_row_of_nonsense])
def test_a_damaged_journal_is_set_aside_and_told(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    broken = path.read_bytes()
    journal = open_journal(path, "w1", NOW)
    assert (journal.tasks(), journal.open_entries()) == ([], [])
    (event,) = journal.untold(10).values()
    assert (event.at_ms, event.kind, event.subject) == (NOW, "journal.corrupt", "w1")
    aside = path.with_name(f"journal.db.corrupt-{NOW}")
    assert aside.name in event.detail
    assert aside.read_bytes()[:10] == broken[:10]
    journal.decide([entry(1)], [])
    journal.close()
    again = open_journal(path, "w1", NOW + 1)
    assert [found.run.key for found in again.open_entries()] == [entry(1).run.key]
    assert len(again.untold(10)) == 1


def test_a_journal_without_its_past_settles_nothing_that_it_does_not_know(path: Path) -> None:
    garbage(path)
    journal = open_journal(path, "w1", NOW)
    assert not journal.is_settled(entry(1).run.key)
    journal.decide([entry(1)], [])
    assert not journal.is_settled(entry(1).run.key)
    journal.update([Entry(entry(1).run, Phase.OVER)], report=False)
    assert journal.is_settled(entry(1).run.key)


def test_only_the_newest_damaged_journals_are_kept(path: Path) -> None:
    for number in range(KEPT + 2):
        garbage(path)
        open_journal(path, "w1", NOW + number).close()
    kept = sorted(old.name for old in path.parent.glob("*corrupt*"))
    assert kept == [f"journal.db.corrupt-{NOW + number}" for number in range(2, KEPT + 2)]


def test_what_is_in_the_way_of_a_journal_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.mkdir()
    with pytest.raises(sqlite3.Error, match="unable to open"):
        open_journal(path, "w1", NOW)
    assert [found.name for found in tmp_path.iterdir()] == ["journal.db"]
