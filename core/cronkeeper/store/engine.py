"""Connections: how they are opened, what is set on each, and how long anything may take."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.tls import Tls

CONNECT_TIMEOUT_S = 3
ANSWER_TIMEOUT_S = 10
#: SQLite's other writers have this long to finish.
BUSY_TIMEOUT_S = 10
POOL_TIMEOUT_S = 10
#: Well under every server's and proxy's idle timeout.
RECYCLE_S = 900
#: A connection that was used this lately is taken to be alive; an older one is asked first.
PING_AFTER_S = 1.0

MYSQL_NAMES = ("mysql", "mariadb")
#: What may follow the `?`. Others of the driver's options would read files, or undo what is set here.
_URL_OPTIONS = frozenset(
    {"charset", "connect_timeout", "read_timeout", "write_timeout", "unix_socket", "ssl_ca", "ssl_cert", "ssl_key"}
)
#: A client that says nothing for so long within a transaction is dead or cut off, and the server rolls back for it:
#: a node that died without a word would keep its runs locked for hours, and nobody could take them over. MySQL has no
#: such limit for transactions alone. There it holds for idle connections, too; the next use of one opens another.
SILENT_S = 4
_ROLL_BACK = f"/*M!100300 , idle_transaction_timeout = {SILENT_S} */ /*!80000 , wait_timeout = {SILENT_S} */"
#: Lock waits end before our patience does, so that "waited for a lock" is never taken for "no answer".
_MYSQL_SETTINGS = (
    f"SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 5 {_ROLL_BACK}",
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
)
_SQLITE_SETTINGS = ("PRAGMA synchronous = FULL", "PRAGMA foreign_keys = OFF")


def parse_url(url: str) -> URL:
    """Return the parsed URL of a database that we can use. Raises ConfigError that never repeats a password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("the database URL cannot be read; use mysql+pymysql://user:password@host/name") from None
    if parsed.get_backend_name() in MYSQL_NAMES:
        if parsed.get_driver_name() != "pymysql" or not parsed.database:
            raise ConfigError("the database URL must be mysql+pymysql://user:password@host:port/name")
        if unknown := sorted(set(parsed.query) - _URL_OPTIONS):
            raise ConfigError(
                f"the database URL must not say {', '.join(unknown)}; it may say {', '.join(sorted(_URL_OPTIONS))}"
            )
        return parsed
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("SQLite needs a file, as in sqlite:////var/lib/cronkeeper/cronkeeper.db")
        return parsed
    raise ConfigError(f"{parsed.get_backend_name()} is not supported; use mysql+pymysql:// or sqlite:///")


def make_engine(url: str, *, pool_size: int) -> Engine:
    """Return an engine whose connections are in autocommit; nothing is opened before the first use.

    cronkeeper.store.session alone begins and ends transactions: the pool need not send a ROLLBACK at each return.
    """
    parsed, tls = _without_tls(parse_url(url))
    is_mysql = parsed.get_backend_name() in MYSQL_NAMES
    engine = create_engine(
        parsed,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=RECYCLE_S,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args=_mysql_arguments(parsed, tls) if is_mysql else {"timeout": BUSY_TIMEOUT_S},
    )
    if is_mysql:
        _mysql_events(engine)
    else:
        event.listen(engine, "connect", _set_journal_mode)
        _set_on_connect(engine, _SQLITE_SETTINGS)
    return engine


def _without_tls(url: URL) -> tuple[URL, Tls]:
    """Take the certificates' files out of a URL. Raises ConfigError."""
    files = {key: str(url.query.get(f"ssl_{key}", "")) for key in ("ca", "cert", "key")}
    tls = Tls("database_tls", **files)
    if faults := tls.faults():
        raise ConfigError("; ".join(faults))
    return url.difference_update_query([f"ssl_{key}" for key in files]), tls


def _mysql_arguments(url: URL, tls: Tls) -> dict[str, Any]:
    """Return our timeouts, save those that the URL itself sets (`?read_timeout=30`), and what it must not set."""
    ours: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": ANSWER_TIMEOUT_S,
        "write_timeout": ANSWER_TIMEOUT_S,
        "charset": "utf8mb4",
    }
    arguments = {key: value for key, value in ours.items() if key not in url.query}
    # A server must not be able to ask for our files.
    arguments["local_infile"] = False
    if tls:
        # Given a context, the driver refuses a server that offers no TLS, before it has sent the password.
        arguments["ssl"] = tls.context()
    return arguments


def _set_on_connect(engine: Engine, statements: tuple[str, ...]) -> None:
    @event.listens_for(engine, "connect")
    def _set(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()


def _set_journal_mode(connection: Any, _record: Any) -> None:
    """SQLite waits for no lock when a new file's mode changes: several parts may open it first at once."""
    import sqlite3  # no part that uses MySQL needs it

    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _mysql_events(engine: Engine) -> None:
    _set_on_connect(engine, _MYSQL_SETTINGS)

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: Any, arguments: Any, named: dict[str, Any]) -> Any:
        # A hung server still accepts connections (the kernel does it) and then says nothing: the greeting gets the
        # short time. pymysql has one time limit for greeting and answers; it looks at this attribute before each read.
        answer_timeout = named["read_timeout"]
        connection = dialect.connect(*arguments, **{**named, "read_timeout": named["connect_timeout"]})
        connection._read_timeout = answer_timeout
        return connection

    @event.listens_for(engine, "checkin")
    def _note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask_when_idle(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < PING_AFTER_S:
            return
        answer_timeout = connection._read_timeout
        connection._read_timeout = connection.connect_timeout
        try:
            connection.ping(reconnect=False)
        except engine.dialect.loaded_dbapi.Error as exc:
            raise DisconnectionError from exc
        connection._read_timeout = answer_timeout
