"""The leader's fence: one row, moved by every transaction of a leader."""

from __future__ import annotations

from sqlalchemy import Connection

from cronkeeper.errors import FencedError
from cronkeeper.store.flavour import Flavour
from cronkeeper.store.session import Database


def hold_term(conn: Connection, flavour: Flavour, term: int) -> None:
    """Move the term's row; raises FencedError when a newer term exists.

    A write, not a read: it locks the row until the transaction ends, and a cluster certifies writes alone.
    """
    text = f"UPDATE `term` SET `beat` = `beat` + 1 WHERE `id` = 1 AND `term` = {flavour.mark}"
    if conn.exec_driver_sql(text, (term,)).rowcount != 1:
        raise FencedError(f"term {term} is over")


class SqlTermStore:
    """See cronkeeper.ports.TermStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def take(self, holder: str) -> int:
        mark = self._db.flavour.mark

        def body(conn: Connection) -> int:
            text = f"UPDATE `term` SET `term` = `term` + 1, `holder` = {mark}, `beat` = 0 WHERE `id` = 1"
            conn.exec_driver_sql(text, (holder,))
            return int(conn.exec_driver_sql("SELECT `term` FROM `term` WHERE `id` = 1").scalar_one())

        # Should both the first and the repeated one count, the term is merely one higher.
        return self._db.transaction(body, repeatable=True)

    def hold(self, term: int) -> None:
        self._db.statement(lambda conn: hold_term(conn, self._db.flavour, term), repeatable=True)
