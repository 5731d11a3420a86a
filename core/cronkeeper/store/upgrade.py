"""Making and changing the schema. Alembic is imported here alone: daemons that only use a store never load it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper.store.driver_errors import translate
from cronkeeper.store.engine import MYSQL_NAMES, make_engine

T = TypeVar("T")

_MIGRATIONS = Path(__file__).with_name("migrations")
#: Several servers may start at once; the others wait this long for the one that changes the schema.
_LOCK_TIMEOUT_S = 60
#: Changing a large table takes longer than any statement may otherwise take.
_STATEMENT_TIMEOUT_S = 3600


def upgrade(url: str) -> None:
    """Bring the schema to what this version of the code expects. Safe to repeat, and to run many at once.

    Raises ConfigError when the schema is newer than the code, and UnavailableError.
    """

    def step(conn: Connection) -> None:
        with _locked(conn):
            found = _revision(conn)
            if found == head():
                return
            if found and found not in _known():
                raise ConfigError(_newer(found))
            config = _config()
            config.attributes["connection"] = conn
            command.upgrade(config, "head")

    _with_connection(_patient(url), step)


def current(url: str) -> str:
    """Return the schema's revision; empty when the database has none yet. Raises UnavailableError."""
    return _with_connection(url, _revision)


def head() -> str:
    """Return the revision that this version of the code expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def check(url: str) -> None:
    """Raise ConfigError, with the mend, when the schema is older or newer than the code expects."""
    found = current(url)
    if found == head():
        return
    if found and found not in _known():
        raise ConfigError(_newer(found))
    raise ConfigError(
        f"the database's schema is {found or 'missing'}, this program needs {head()}: run `cronkeeper db upgrade`"
    )


def _newer(found: str) -> str:
    return (
        f"the database's schema is {found}, which this program does not know: it was made by a newer one; install that,"
        " or restore the database, then run `cronkeeper db upgrade`"
    )


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(conn: Connection) -> str:
    return MigrationContext.configure(conn).get_current_revision() or ""


def _patient(url: str) -> str:
    if "read_timeout=" in url or url.startswith("sqlite"):
        return url
    return f"{url}{'&' if '?' in url else '?'}read_timeout={_STATEMENT_TIMEOUT_S}"


def _with_connection(url: str, step: Callable[[Connection], T]) -> T:
    engine = make_engine(url, pool_size=1)
    try:
        with engine.connect() as conn:
            return step(conn)
    except SQLAlchemyError as exc:
        raise translate(exc) from exc
    finally:
        engine.dispose()


@contextmanager
def _locked(conn: Connection) -> Iterator[None]:
    """Let one upgrade at a time through. MySQL commits at each DDL statement, so there the lock is a named one."""
    if conn.dialect.name in MYSQL_NAMES:
        # Named locks are the whole server's; a database's name may be longer than a lock's.
        name = "SUBSTRING(CONCAT('cronkeeper ', SHA1(DATABASE())), 1, 64)"
        if conn.exec_driver_sql(f"SELECT GET_LOCK({name}, {_LOCK_TIMEOUT_S})").scalar() != 1:
            raise UnavailableError(f"another upgrade of this database has been running for {_LOCK_TIMEOUT_S} s")
        try:
            yield
        finally:
            conn.exec_driver_sql(f"SELECT RELEASE_LOCK({name})")
        return
    conn.exec_driver_sql(f"PRAGMA busy_timeout = {_LOCK_TIMEOUT_S * 1000}")
    conn.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        conn.exec_driver_sql("ROLLBACK")
        raise
    conn.exec_driver_sql("COMMIT")
