"""The first look at the database: may this account do here what its part will have to do, and is the schema there?

Nothing is read or written: each statement asks for a right and for columns, and concerns no row.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cronkeeper.errors import ConfigError
from cronkeeper.store.driver_errors import refuses, translate
from cronkeeper.store.engine import MYSQL_NAMES, make_engine
from cronkeeper.store.flavour import names
from cronkeeper.store.grants import GRANTS, Account, rights


def check(url: str, account: Account) -> None:
    """Raise ConfigError when the database refuses us, or what we need; UnavailableError when it does not answer."""
    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as conn:
            for table, statement in _statements(account, writes=engine.dialect.name in MYSQL_NAMES):
                _ask(conn, table, statement)
    except SQLAlchemyError as exc:
        if refuses(exc):
            raise ConfigError(f"database_url: the database refuses us: {_words(exc)}") from exc
        raise translate(exc) from exc
    finally:
        engine.dispose()


def log_in(url: str) -> None:
    """Raise ConfigError when the database refuses the account; UnavailableError when it does not answer."""
    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as conn:
            conn.exec_driver_sql("SELECT 1")
    except SQLAlchemyError as exc:
        if refuses(exc):
            raise ConfigError(f"database_url: the database refuses us: {_words(exc)}") from exc
        raise translate(exc) from exc
    finally:
        engine.dispose()


def _ask(conn: Connection, table: str, statement: str) -> None:
    try:
        conn.exec_driver_sql(statement)
    except DBAPIError as exc:
        if refuses(exc):
            raise ConfigError(
                f"database_url: table {table}: {_words(exc)}; make the schema with `cronkeeper db upgrade`,"
                " and the accounts with deploy/mysql-accounts"
            ) from exc
        raise


def _statements(account: Account, *, writes: bool) -> Iterator[tuple[str, str]]:
    for table in GRANTS[account]:
        for word, columns in rights(account, table).items():
            if word == "SELECT":
                yield table, f"SELECT {names(columns)} FROM `{table}` WHERE 1 = 0"
            elif not writes:
                continue
            elif word == "INSERT":
                nothing = ", ".join(["NULL"] * len(columns))
                yield table, f"INSERT INTO `{table}` ({names(columns)}) SELECT {nothing} FROM DUAL WHERE 1 = 0"
            elif word == "UPDATE":
                changes = ", ".join(f"`{column}` = 0" for column in columns)
                yield table, f"UPDATE `{table}` SET {changes} WHERE 1 = 0"
            else:
                yield table, f"DELETE FROM `{table}` WHERE 1 = 0"


def _words(exc: SQLAlchemyError) -> str:
    return str(exc.orig) if isinstance(exc, DBAPIError) else type(exc).__name__
