"""What the drivers' errors mean for us. The only place that knows error numbers."""

from __future__ import annotations

from enum import Enum

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cronkeeper.errors import CronkeeperError, UnavailableError


class Trouble(Enum):
    #: The server undid our transaction for somebody else's sake (a deadlock, a failed certification). Do it again.
    AGAIN = "again"
    #: The connection broke or no answer came: whatever was under way has happened, or it has not.
    LOST = "lost"
    #: The server could not be reached or would not serve us. Nothing happened.
    AWAY = "away"
    #: The server understood and refused the statement or its values. Nothing happened; repeating is of no use.
    REFUSED = "refused"


#: Lock wait timeout, deadlock (also Galera's certification), record changed since the read, Group Replication.
_AGAIN = frozenset({1205, 1213, 1020, 3101})
#: Shutdown under way, network packets (1158-1161), error during COMMIT, interrupted, killed; 2xxx: the connection.
_LOST = frozenset({0, 1053, 1158, 1159, 1160, 1161, 1180, 1317, 1927, 2006, 2013, 2014, 2027, 2055, 4031})
#: NULL where none may be, duplicate, syntax, out of range, cut off, wrong characters, too long, packet too large.
_REFUSED = frozenset({1048, 1062, 1064, 1153, 1264, 1265, 1292, 1366, 1406})
_REFUSED_CLASSES = ("DataError", "IntegrityError", "NotSupportedError")
_MISSING_TABLE = 1146
_DOUBLE = 1062
#: Wrong account, password or database, no right to a command, a table or a column; no such database, column, table.
_FORBIDDEN = frozenset({1044, 1045, 1049, 1054, 1142, 1143, 1227, 1698, _MISSING_TABLE})


def classify(exc: SQLAlchemyError) -> Trouble:
    """Return what kind of trouble a driver's error is."""
    if not isinstance(exc, DBAPIError):
        return Trouble.AWAY  # no connection free in time, or the pool is closed: nothing was sent
    code = _code(exc)
    if code is None:
        return Trouble.REFUSED if type(exc.orig).__name__ in _REFUSED_CLASSES else Trouble.AWAY
    if code in _AGAIN:
        return Trouble.AGAIN
    if code in _LOST:
        return Trouble.LOST
    if code in _REFUSED or type(exc.orig).__name__ in _REFUSED_CLASSES:
        return Trouble.REFUSED
    return Trouble.AWAY


def refuses(exc: SQLAlchemyError) -> bool:
    """Say whether the database answers, and will refuse us until somebody changes accounts, rights or the schema."""
    return isinstance(exc, DBAPIError) and (_code(exc) in _FORBIDDEN or "no such" in str(exc.orig))


def is_double(exc: SQLAlchemyError) -> bool:
    """Say whether MySQL found a row with the same key."""
    return isinstance(exc, DBAPIError) and _code(exc) == _DOUBLE


def timed_out(exc: SQLAlchemyError) -> bool:
    """Say whether the answer did not come in time: then another try would only wait as long again."""
    return "timed out" in str(exc.orig) if isinstance(exc, DBAPIError) else True


def translate(exc: SQLAlchemyError) -> CronkeeperError:
    """Return our error for a driver's. The text holds the server's words, never a statement's values."""
    words = str(exc.orig) if isinstance(exc, DBAPIError) else type(exc).__name__
    if classify(exc) is Trouble.REFUSED:
        return CronkeeperError(f"the database refused the values: {words}")
    if _is_missing_table(exc):
        return UnavailableError(f"the database has not been set up, run `cronkeeper db upgrade`: {words}")
    return UnavailableError(f"the database cannot be used: {words}")


def _is_missing_table(exc: SQLAlchemyError) -> bool:
    return isinstance(exc, DBAPIError) and (_code(exc) == _MISSING_TABLE or "no such table" in str(exc.orig))


def _code(exc: DBAPIError) -> int | None:
    """Return MySQL's error number; None for SQLite, whose errors begin with words."""
    args = exc.orig.args if exc.orig is not None else ()
    return args[0] if args and isinstance(args[0], int) else None
