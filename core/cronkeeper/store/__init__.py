"""What is remembered: one code for MySQL (and MariaDB) and SQLite. The only package that knows SQLAlchemy."""

from __future__ import annotations

from cronkeeper.ports import Store
from cronkeeper.store.engine import make_engine
from cronkeeper.store.sql_store import SqlStore

__all__ = ["open_store"]


def open_store(url: str, *, pool_size: int = 5) -> Store:
    """Return the store behind `mysql+pymysql://user:password@host:port/name` or `sqlite:///path`; close it.

    Nothing is connected before the first call, so that a process starts while the database is away. The schema must
    have been made by `cronkeeper.store.upgrade`. Raises ConfigError for a URL that cannot be used.
    """
    return SqlStore(make_engine(url, pool_size=pool_size))
