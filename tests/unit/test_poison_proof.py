"""What a worker's loop lives through."""

from __future__ import annotations

import sqlite3

import pytest

from cronkeeper.errors import PermissionDeniedError, UnavailableError
from cronkeeper_worker.reporter import JOURNAL_REST_S, poison_proof
from tests.harness.starved import no_descriptors


def full_disk() -> float:
    """Write more than the database may hold: what SQLite says of a disk without space."""
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE t (x BLOB)")
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    raise AssertionError("it was written")


def damaged() -> float:
    with sqlite3.connect(":memory:") as database:
        database.deserialize(b"no database at all, but long enough to be taken for one" * 20)
        database.execute("SELECT * FROM sqlite_schema")
    raise AssertionError("it was read")


def test_a_full_disk_is_no_reason_to_die() -> None:
    with pytest.raises(sqlite3.OperationalError, match="full"):
        full_disk()
    assert poison_proof(full_disk)() == JOURNAL_REST_S


def test_a_damaged_journal_is() -> None:
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        poison_proof(damaged)()


def test_neither_is_a_want_of_descriptors() -> None:
    def look() -> float:
        with open("/dev/null"):
            return 0.5

    with no_descriptors():
        assert poison_proof(look)() == JOURNAL_REST_S
    assert poison_proof(look)() == 0.5


def test_another_fault_of_the_machine_is() -> None:
    def look() -> float:
        with open("/dev/null/none"):
            return 0.5

    with pytest.raises(NotADirectoryError):
        poison_proof(look)()


def test_what_passes_is_left_to_the_loop_and_what_does_not_is_told_and_put_off() -> None:
    def away() -> float:
        raise UnavailableError("MySQL is away")

    def forbidden() -> float:
        raise PermissionDeniedError("a wrong password")

    with pytest.raises(UnavailableError):
        poison_proof(away)()
    assert poison_proof(forbidden)() > 0
    assert poison_proof(lambda: 0.5)() == 0.5
