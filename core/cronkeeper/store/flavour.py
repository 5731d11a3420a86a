"""The few places where MySQL and SQLite spell the same thing differently, and statements over many rows.

SQLAlchemy's own multi-row VALUES is compiled anew for each number of rows, and executemany is one statement only where
the driver's regular expression happens to match; so the hot paths build their text here. Backticks quote in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, TypeVar

from sqlalchemy import Table
from sqlalchemy.exc import IntegrityError

from cronkeeper.store.driver_errors import is_double

#: Bounds of one statement: below SQLite's number of variables and any sensible max_allowed_packet.
MAX_ROWS = 500
MAX_BYTES = 2_000_000
#: From so many rows on, what they have in common is looked for; texts longer than that are sent as their bytes.
_FEW, _LONG = 2, 100

Row = tuple[Any, ...]
Item = TypeVar("Item")


class Sender(Protocol):
    """Takes statements: a connection, or a script that sends them later."""

    def exec_driver_sql(self, statement: str, parameters: Any = None, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Flavour:
    #: A value's place in driver SQL.
    mark: str
    is_mysql: bool
    #: The database's clock, epoch milliseconds: the start of the statement.
    now_ms: str
    #: The end of an INSERT whose answer is to be the rows' ids. MariaDB gives them, to MySQL it is a comment.
    returning_id: str = ""
    #: What stands between the values and the condition of a SELECT that reads no table.
    from_nothing: str = ""

    def new(self, column: str) -> str:
        """Return how an upsert names the value that the statement brings."""
        return f"VALUES(`{column}`)" if self.is_mysql else f"excluded.`{column}`"

    def keep_old(self, column: str) -> str:
        """Return the end of an INSERT that leaves rows alone which exist already."""
        return f"ON DUPLICATE KEY UPDATE `{column}` = `{column}`" if self.is_mysql else "ON CONFLICT DO NOTHING"

    def insert_new(self, conn: Sender, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert the rows that are not there yet, as part of a transaction, with no right but to insert.

        MariaDB asks who says ON DUPLICATE KEY UPDATE for the right to change every column that is inserted; INSERT
        IGNORE would cut off what is too long.
        """
        if not self.is_mysql:
            self.insert(conn, table, columns, rows, "ON CONFLICT DO NOTHING")
            return
        try:
            self.insert(conn, table, columns, rows)
        except IntegrityError as exc:
            # The statement alone was undone, and the transaction goes on.
            if not is_double(exc):
                raise
            if len(rows) > 1:
                for row in rows:
                    self.insert_new(conn, table, columns, [row])

    def replace_old(self, key: Sequence[str], columns: Sequence[str]) -> str:
        """Return the end of an INSERT that overwrites these columns of rows which exist already."""
        assignments = ", ".join(f"`{column}` = {self.new(column)}" for column in columns)
        if self.is_mysql:
            return f"ON DUPLICATE KEY UPDATE {assignments}"
        return f"ON CONFLICT ({names(key)}) DO UPDATE SET {assignments}"

    def among(self, columns: Sequence[str], count: int) -> str:
        """Return a condition: these columns, together, are one of `count` tuples."""
        one = "(" + ", ".join([self.mark] * len(columns)) + ")"
        many = ", ".join([one] * count)
        return f"({names(columns)}) IN ({many if self.is_mysql else 'VALUES ' + many})"

    def using(self, index: str) -> str:
        """Return the word, after a table's name, that makes the server use this index, whatever it thinks."""
        return f"FORCE INDEX (`{index}`)" if self.is_mysql else f"INDEXED BY `{index}`"

    def by_key(self) -> str:
        """Return the word that makes MySQL use the primary key (SQLite needs none)."""
        return "FORCE INDEX (PRIMARY)" if self.is_mysql else ""

    def locked(self) -> str:
        """Return the end of a SELECT that locks what it reads (in SQLite a transaction has the whole database)."""
        return "FOR UPDATE" if self.is_mysql else ""

    def insert(self, conn: Sender, table: Table, columns: Sequence[str], rows: Sequence[Row], end: str = "") -> None:
        """Insert all rows with one statement."""
        conn.exec_driver_sql(*self.insertion(table, columns, rows, end))

    def insertion(self, table: Table, columns: Sequence[str], rows: Sequence[Row], end: str) -> tuple[str, Any]:
        """Return the statement that inserts all rows, and its values."""
        if self.is_mysql and len(rows) >= _FEW:
            return _folded(table.name, tuple(columns), rows, end)
        text = _insert_text(table.name, tuple(columns), self.mark, len(rows), end)
        values = chain.from_iterable(rows)
        return text, tuple(map(_cheap, values) if self.is_mysql else values)

    def marks(self, count: int) -> str:
        """Return `count` places for values, with commas between them."""
        return ", ".join([self.mark] * count)


MYSQL = Flavour(
    mark="%s",
    is_mysql=True,
    now_ms="FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000)",
    returning_id="/*M!100500 RETURNING `id` */",
    from_nothing="FROM DUAL",
)
SQLITE = Flavour(mark="?", is_mysql=False, now_ms="CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)")


@lru_cache(maxsize=64)
def _insert_text(table: str, columns: tuple[str, ...], mark: str, rows: int, end: str) -> str:
    one = "(" + ", ".join([mark] * len(columns)) + ")"
    return f"INSERT INTO `{table}` ({names(columns)}) VALUES {', '.join([one] * rows)} {end}"


def _folded(table: str, columns: tuple[str, ...], rows: Sequence[Row], end: str) -> tuple[str, dict[str, Any]]:
    """Return an INSERT of many rows and its values by name: what is the same in all rows is quoted only once.

    To quote a value costs the driver more than all that we do with it; a long text as many steps as it has
    characters, its bytes hardly any.
    """
    turned = list(zip(*rows, strict=True))
    same = tuple(column.count(column[0]) == len(rows) for column in turned)
    text, keys = _folded_text(table, columns, same, len(rows), end)
    values = [column[0] for column, one in zip(turned, same, strict=True) if one]
    for column, one in zip(turned, same, strict=True):
        if not one:
            values += map(_cheap, column)
    return text, dict(zip(keys, values, strict=True))


def _cheap(value: Any) -> Any:
    """Return a long text as its bytes: those the driver writes in hexadecimal, and does not look at one by one."""
    return value.encode() if value.__class__ is str and len(value) > _LONG else value


@lru_cache(maxsize=128)
def _folded_text(
    table: str, columns: tuple[str, ...], same: tuple[bool, ...], rows: int, end: str
) -> tuple[str, tuple[str, ...]]:
    width = range(len(columns))
    lines = (", ".join(f"%({at})s" if same[at] else f"%({at}.{row})s" for at in width) for row in range(rows))
    text = f"INSERT INTO `{table}` ({names(columns)}) VALUES ({'), ('.join(lines)}) {end}"
    folded = [str(at) for at in width if same[at]]
    return text, (*folded, *(f"{at}.{row}" for at in width if not same[at] for row in range(rows)))


def names(columns: Sequence[str]) -> str:
    """Return quoted names with commas between them."""
    return ", ".join(f"`{column}`" for column in columns)


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Divide rows into pieces that fit one statement."""
    start, size = 0, 0
    for index, row in enumerate(rows):
        # Types are compared by identity: this is done for every value that is saved.
        length = sum([len(value) for value in row if value.__class__ is str or value.__class__ is bytes])
        if index > start and (index - start >= MAX_ROWS or size + length > MAX_BYTES):
            yield rows[start:index]
            start, size = index, 0
        size += length
    if start < len(rows):
        yield rows[start:]


def slices(items: Sequence[Item], size: int = MAX_ROWS) -> Iterator[Sequence[Item]]:
    """Divide a list into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
