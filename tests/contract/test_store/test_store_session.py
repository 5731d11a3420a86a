"""When a transaction is tried again, and when it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cronkeeper.errors import CronkeeperError, UnavailableError
from cronkeeper.store.driver_errors import Trouble, classify, translate
from cronkeeper.store.engine import make_engine
from cronkeeper.store.session import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = Database(make_engine(f"sqlite:///{tmp_path / 'x.db'}", pool_size=2))
    db.transaction(lambda conn: conn.exec_driver_sql("CREATE TABLE t (a INTEGER)"))
    yield db
    db.close()


def mysql_error(code: int, words: str = "words") -> OperationalError:
    return OperationalError("SELECT secret", None, pymysql.err.OperationalError(code, words))


def rows(db: Database) -> int:
    return int(db.read(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM t").scalar_one()))


class Flaky:
    """A body that inserts a row and then fails the first few times."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    def __call__(self, conn: Connection) -> int:
        self.calls += 1
        conn.exec_driver_sql("INSERT INTO t VALUES (1)")
        if self.calls <= self._failures:
            raise self._error
        return self.calls


def test_a_deadlock_undoes_everything_and_all_of_it_is_done_again(db: Database) -> None:
    body = Flaky(3, mysql_error(1213))
    assert db.transaction(body) == 4
    assert rows(db) == 1


def test_after_five_deadlocks_it_is_unavailable(db: Database) -> None:
    body = Flaky(99, mysql_error(1213))
    with pytest.raises(UnavailableError):
        db.transaction(body)
    assert body.calls == 5
    assert rows(db) == 0


def test_a_connection_that_was_dead_is_replaced_once(db: Database) -> None:
    body = Flaky(1, mysql_error(2006))
    assert db.transaction(body) == 2
    again = Flaky(99, mysql_error(2006))
    with pytest.raises(UnavailableError):
        db.transaction(again)
    assert again.calls == 2
    assert rows(db) == 1


def test_a_server_that_is_away_is_not_asked_again(db: Database) -> None:
    body = Flaky(99, mysql_error(2003))
    with pytest.raises(UnavailableError):
        db.transaction(body)
    assert body.calls == 1


@pytest.mark.parametrize("error", [CronkeeperError("no"), KeyError("x")])
def test_an_error_of_ours_undoes_the_transaction_and_goes_up(db: Database, error: Exception) -> None:
    with pytest.raises(type(error)):
        db.transaction(Flaky(1, error))
    assert rows(db) == 0
    assert db.transaction(Flaky(0, error)) == 1


def test_a_second_writer_waits_for_the_first(db: Database) -> None:
    def outer(conn: Connection) -> None:
        conn.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert rows(db) == 0, "a reader sees nothing that is not committed"

    db.transaction(outer)
    assert rows(db) == 1


@pytest.mark.parametrize(
    ("what", "error", "trouble"),
    [
        ("deadlock", mysql_error(1213), Trouble.AGAIN),
        ("lock wait", mysql_error(1205), Trouble.AGAIN),
        ("gone", mysql_error(2006), Trouble.LOST),
        ("no answer", mysql_error(2013), Trouble.LOST),
        ("closed before", InterfaceError("x", None, pymysql.err.InterfaceError(0, "")), Trouble.LOST),
        ("error during COMMIT", mysql_error(1180), Trouble.LOST),
        ("refused", mysql_error(2003), Trouble.AWAY),
        ("too many connections", mysql_error(1040), Trouble.AWAY),
        ("not in the primary component", mysql_error(1047), Trouble.AWAY),
        ("read-only", mysql_error(1290), Trouble.AWAY),
        ("wrong password", mysql_error(1045), Trouble.AWAY),
        ("no connection free", PoolTimeoutError("x"), Trouble.AWAY),
        ("too long", mysql_error(1406), Trouble.REFUSED),
    ],
)
def test_errors_are_told_apart(what: str, error: SQLAlchemyError, trouble: Trouble) -> None:
    assert classify(error) is trouble, what
    ours = translate(error)
    assert ours.retryable is (trouble is not Trouble.REFUSED)
    assert "secret" not in str(ours)
