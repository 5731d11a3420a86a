"""How statements reach the database: the one place where transactions begin, end and are done again.

Every write belongs to one of three kinds, by what its author knows of a lost answer:
- `statement`: one autocommit statement. A lost answer is an UnknownOutcomeError, unless it is `repeatable`.
- `transaction`: several. What fails before its COMMIT was sent has not happened. A lost answer to the COMMIT is
  resolved by doing it again (`repeatable`), by looking (`landed`), or is an UnknownOutcomeError.
- `read`: changes nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cronkeeper.errors import CronkeeperError, UnavailableError, UnknownOutcomeError
from cronkeeper.store.driver_errors import Trouble, classify, timed_out, translate
from cronkeeper.store.engine import MYSQL_NAMES
from cronkeeper.store.flavour import MYSQL, SQLITE, Flavour
from cronkeeper.store.script import RefusedTogetherError, Script

T = TypeVar("T")

#: How often a transaction is tried that the server undoes for somebody else's sake.
_TRIES = 5
_PAUSE_S = 0.02
#: No new try begins later than this: waits for locks add up, and the caller has a loop of its own.
_PATIENCE_S = 8.0
_UNKNOWN_VARIABLE = 1193


class _AnswerLostError(Exception):
    """The COMMIT (or the one statement) was sent and its answer never came."""

    def __init__(self, result: object) -> None:
        super().__init__("the answer was lost")
        self.result = result


class Database:
    """One database. Bodies get a connection, may be called several times, and must do nothing but talk to it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_mysql = engine.dialect.name in MYSQL_NAMES
        self.flavour: Flavour = MYSQL if self.is_mysql else SQLITE
        # SQLite: a transaction that reads and then writes may find its snapshot outdated; so take the lock at once.
        self._begin = "START TRANSACTION" if self.is_mysql else "BEGIN IMMEDIATE"

    def close(self) -> None:
        self._engine.dispose()

    def read(self, body: Callable[[Connection], T]) -> T:
        """Return what `body` reads. Raises UnavailableError."""
        return self._tried(body)

    def transaction(
        self,
        body: Callable[[Connection], T],
        *,
        landed: Callable[[Connection], bool] | None = None,
        repeatable: bool = False,
    ) -> T:
        """Do `body` in one transaction and return its result.

        `landed` is asked, in a transaction of its own, whether this one was committed; it must read what it judges by
        with a lock, so that it waits for a COMMIT that is still under way. Raises UnavailableError (nothing was saved)
        or UnknownOutcomeError.
        """
        try:
            return self._tried(lambda conn: self._transact(conn, body))
        except _AnswerLostError as lost:
            if repeatable:
                return self._once_more(lambda: self.transaction(body), lost)
            if landed is None:
                raise UnknownOutcomeError("the answer to a COMMIT was lost") from lost
            self._find_out(landed, lost)
            return lost.result  # type: ignore[return-value]  # what the same body returned

    def script(self, body: Callable[[Script], T], *, landed: Callable[[Connection], bool]) -> T:
        """Do `body` in one transaction as `transaction` does, in as few round trips as it waits for answers."""
        try:
            return self._tried(lambda conn: self._play(conn, body))
        except _AnswerLostError as lost:
            self._find_out(landed, lost)
            return lost.result  # type: ignore[return-value]  # what the same body returned

    def statement(self, body: Callable[[Connection], T], *, repeatable: bool = False) -> T:
        """Do `body`, one autocommit statement (and reads after it), and return its result.

        Raises UnavailableError (nothing was saved, or repeating is safe) or UnknownOutcomeError.
        """
        try:
            return self._tried(body, lost_is_unknown=True)
        except _AnswerLostError as lost:
            if repeatable:
                return self._once_more(lambda: self.statement(body), lost)
            raise UnknownOutcomeError("the answer to a statement was lost") from lost

    def synced(self, conn: Connection) -> None:
        """Make the reads of this connection wait for what other nodes of a Galera cluster have committed.

        The connection is not used again afterwards, so that later reads need not wait. Does nothing elsewhere.
        """
        if not self.is_mysql:
            return
        conn.detach()
        try:
            conn.exec_driver_sql("SET SESSION wsrep_sync_wait = 1")
        except DBAPIError as exc:
            if exc.orig is None or exc.orig.args[0] != _UNKNOWN_VARIABLE:
                raise

    def _tried(self, body: Callable[[Connection], T], *, lost_is_unknown: bool = False) -> T:
        tries, begun = 0, time.monotonic()
        while True:
            tries += 1
            try:
                with self._engine.connect() as conn:
                    return body(conn)
            except SQLAlchemyError as exc:
                trouble = classify(exc)
                # A connection that could not even be opened has carried nothing.
                if trouble is Trouble.LOST and lost_is_unknown and _was_sent(exc):
                    raise _AnswerLostError(None) from exc
                if not _worth_another(exc, trouble, tries) or time.monotonic() - begun > _PATIENCE_S:
                    raise translate(exc) from exc
            time.sleep(random.uniform(0, _PAUSE_S * 2**tries))

    def _transact(self, conn: Connection, body: Callable[[Connection], T]) -> T:
        return self._committed(Script(conn, self._begin, together=False), conn, lambda script: body(script.conn))

    def _play(self, conn: Connection, body: Callable[[Script], T]) -> T:
        if getattr(conn.dialect, "is_mariadb", False):
            with suppress(RefusedTogetherError):
                return self._committed(Script(conn, self._begin, together=True), conn, body)
        return self._committed(Script(conn, self._begin, together=False), conn, body)

    def _committed(self, script: Script, conn: Connection, body: Callable[[Script], T]) -> T:
        try:
            result = body(script)
        except BaseException:
            _roll_back(conn)
            raise
        try:
            script.commit()
        except BaseException as exc:
            if isinstance(exc, DBAPIError) and classify(exc) is Trouble.LOST:
                # The connection may live, and half of the transaction on it: whoever got it next would commit that.
                if not conn.invalidated:
                    conn.invalidate()
                raise _AnswerLostError(result) from exc
            _roll_back(conn)
            raise
        return result

    def _find_out(self, landed: Callable[[Connection], bool], lost: _AnswerLostError) -> None:
        if not self._landed(landed, lost):
            raise UnavailableError("the connection broke at the COMMIT, and nothing was saved") from lost

    def _landed(self, landed: Callable[[Connection], bool], lost: _AnswerLostError) -> bool:
        def look(conn: Connection) -> bool:
            self.synced(conn)
            return self._transact(conn, landed)

        try:
            return self._tried(look)
        except (CronkeeperError, _AnswerLostError) as exc:
            raise UnknownOutcomeError("the answer to a COMMIT was lost, and the rows cannot be read back") from exc

    def _once_more(self, call: Callable[[], T], lost: _AnswerLostError) -> T:
        try:
            return call()
        except UnknownOutcomeError as exc:
            raise UnavailableError("the database does not answer; doing the same again is safe") from exc


def _was_sent(exc: SQLAlchemyError) -> bool:
    return isinstance(exc, DBAPIError) and exc.statement is not None


def _worth_another(exc: SQLAlchemyError, trouble: Trouble, tries: int) -> bool:
    if trouble is Trouble.AGAIN:
        return tries < _TRIES
    # A pooled connection may have died while nobody looked. Once is enough: the pool has dropped its siblings by now.
    return trouble is Trouble.LOST and tries == 1 and not timed_out(exc)


def _roll_back(conn: Connection) -> None:
    if conn.invalidated:
        return
    try:
        conn.exec_driver_sql("ROLLBACK")
    except SQLAlchemyError:
        # Whatever state it is in, closing it ends the transaction.
        conn.invalidate()
