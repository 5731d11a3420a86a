"""A transaction whose statements go to the database together, where nobody waits for their answers.

Each round trip wakes two processes, and on a busy machine both wait for their turn. MariaDB takes several statements as
one: a compound statement, which ends at the first that fails. MySQL knows it in stored programs alone; there, and in
SQLite, each statement is sent at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

#: More is not kept back: large statements gain nothing by company.
_MOST_CHARS = 100_000
#: A server that has undone the transaction would commit each statement after it by itself.
_STILL_IN_IT = (
    "IF NOT @@in_transaction THEN SIGNAL SQLSTATE '40001'"
    " SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'the transaction is gone'; END IF"
)
#: What an error shows instead of the statements, as they hold people's values.
_UNNAMED = "several statements together"


class RefusedTogetherError(Exception):
    """One of several statements was refused, and nobody knows which: undo the transaction, send them one by one."""


class Answer(NamedTuple):
    """What a statement answered."""

    #: None where it answers without rows.
    rows: list[tuple[Any, ...]] | None
    lastrowid: int

    @property
    def firsts(self) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self.rows or []]


class Script:
    """One transaction: begun with the first statement that is sent, and ended by `commit`, or by a ROLLBACK."""

    def __init__(self, conn: Connection, begin: str, *, together: bool) -> None:
        self._conn = conn
        self._together = together
        self._waiting: list[str] = []
        self._chars = 0
        self._begun = False
        self.exec_driver_sql(begin)
        #: Whether one of those who wait may be refused.
        self._may_fail = False

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is a MariaDB, and is treated as one."""
        return self._together

    @property
    def conn(self) -> Connection:
        """The connection, for a statement whose answer counts; all before it have been done."""
        self._send()
        return self._conn

    def exec_driver_sql(self, statement: str, parameters: Any = None) -> None:
        """Do this before whatever comes next."""
        if not self._together:
            self._conn.exec_driver_sql(statement, parameters)
            return
        self._waiting.append(self._literal(statement, parameters))
        self._chars += len(self._waiting[-1])
        self._may_fail = True
        if self._chars > _MOST_CHARS:
            self._send()

    def ask(self, statement: str, parameters: Any = None) -> Answer:
        """Do this at once, after all that was said before, and return its answer."""
        if not self._together:
            return self._whole(self._conn.exec_driver_sql(statement, parameters))
        return self._together_with(self._literal(statement, parameters))

    def commit(self) -> None:
        """Do what is left, and commit."""
        self.ask("COMMIT")

    def _send(self) -> None:
        if self._waiting:
            last = self._waiting.pop()
            self._together_with(last)

    def _together_with(self, last: str) -> Answer:
        texts, may_fail = [*self._waiting, last], self._may_fail
        self._waiting, self._chars, self._may_fail = [], 0, False
        if self._begun:
            texts.insert(0, _STILL_IN_IT)
        self._begun = True
        text = texts[0] if len(texts) == 1 else f"BEGIN NOT ATOMIC {'; '.join(texts)}; END"
        try:
            # Its values are in it already: a percent sign is one.
            return self._whole(self._conn.exec_driver_sql(text, execution_options={"no_parameters": True}))
        except StatementError as exc:
            exc.statement = _UNNAMED
            if may_fail and isinstance(exc, IntegrityError):
                raise RefusedTogetherError from exc
            raise

    def _whole(self, answer: CursorResult[Any]) -> Answer:
        """Read an answer to its end.

        A compound statement that fails after its rows were sent says so behind them: the transaction may be gone, and
        whoever merely closes the cursor never hears of it.
        """
        cursor = answer.cursor
        if not answer.returns_rows or cursor is None:
            return Answer(None, answer.lastrowid)
        dbapi = self._conn.dialect.loaded_dbapi
        try:
            rows = [tuple(row) for row in cursor.fetchall()]
            while self._together and cursor.nextset():
                pass
        except dbapi.Error as exc:
            raise DBAPIError.instance(_UNNAMED, None, exc, dbapi.Error, hide_parameters=True) from exc
        except BaseException:
            # Whatever else the server says would be taken for the answer to what is asked next.
            self._conn.invalidate()
            raise
        answer.close()
        return Answer(rows, 0)

    def _literal(self, statement: str, parameters: Any) -> str:
        """Return the statement with its values, quoted by the driver as it does when it sends them itself."""
        if parameters is None:
            return statement
        text: str = self._conn.connection.cursor().mogrify(statement, parameters)
        return text
