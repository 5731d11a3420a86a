"""What each part may do in MySQL: the one table that accounts are made from, and that is looked at at each start.

A right is a word of SQL, for the whole table or for some of its columns. What is not named here is refused. INSERT with
ON DUPLICATE KEY UPDATE needs UPDATE on what it assigns, in MariaDB on all that it inserts; `SELECT … FOR UPDATE` needs
any right to change the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from cronkeeper.errors import ConfigError
from cronkeeper.store.schema import metadata

ALL = "SELECT, INSERT, UPDATE, DELETE"


class Account(StrEnum):
    """Whose account it is. `schema` is for `cronkeeper db`: it may do everything in the database."""

    SCHEMA = "schema"
    API = "api"
    MANAGER = "manager"
    WORKER = "worker"
    READER = "reader"


#: Tables that hold what can be used against us: token digests, sealed secrets, remembered answers.
_NOT_FOR_READERS = frozenset({"tokens", "secrets", "idempotency"})

GRANTS: Mapping[Account, Mapping[str, str]] = {
    Account.API: {
        "jobs": ALL,
        "job_labels": ALL,
        "job_history": ALL,
        "job_calendars": ALL,
        "calendars": ALL,
        "namespaces": ALL,
        "creates": ALL,
        "secrets": ALL,
        "idempotency": ALL,
        "tokens": "SELECT, INSERT, UPDATE (revoked_ms)",
        # Runs on demand and cancellations; no word about who ran what, and how it ended.
        "runs": "SELECT, INSERT, DELETE, UPDATE (nonce, state, reason, ended_ms, cancel_requested)",
        "run_output": "SELECT, DELETE",
        "job_heads": "SELECT, DELETE",
        "failing": "SELECT, DELETE",
        "missed": "SELECT, DELETE",
        "move_requests": "SELECT, INSERT, UPDATE",
        "cordons": "SELECT, INSERT, UPDATE",
        "trail_inbox": "SELECT, INSERT",
        "assignments": "SELECT",
        "leases": "SELECT",
        "events": "SELECT",
        "trail": "SELECT",
        "audit": "SELECT",
    },
    Account.MANAGER: {
        "term": "SELECT, UPDATE",
        "assignments": ALL,
        "move_requests": ALL,
        "leases": "SELECT, UPDATE (lost_incarnation)",
        "runs": ALL,
        "run_output": "SELECT, DELETE",
        "job_heads": "SELECT, INSERT, UPDATE",
        "failing": ALL,
        "missed": ALL,
        "audit": "SELECT, INSERT, UPDATE",
        "events": "SELECT, INSERT, DELETE",
        "idempotency": "SELECT (created_ms), DELETE",
        "job_history": ALL,
        "jobs": "SELECT, UPDATE (state, updated_ms, paused_generation, state_reason)",
        "trail": "SELECT, INSERT, DELETE",
        "trail_inbox": "SELECT, INSERT, DELETE",
        "job_labels": "SELECT",
        "job_calendars": "SELECT",
        "calendars": "SELECT",
        "cordons": "SELECT",
        # To tell of tokens that nobody made; a digest of 256 random bits opens nothing.
        "tokens": "SELECT",
    },
    Account.WORKER: {
        "runs": "SELECT, INSERT, UPDATE",
        "run_output": "SELECT, INSERT, UPDATE",
        "job_heads": "SELECT, INSERT, UPDATE",
        "leases": "SELECT, INSERT, UPDATE (incarnation, beat_ms, clock_offset_ms, info)",
        "failing": "SELECT, INSERT, UPDATE",
        "events": "INSERT",
        "jobs": "SELECT (id, watched)",
        "assignments": "SELECT (job_id, shard, worker, epoch, assigned_ms)",
    },
    Account.READER: {name: "SELECT" for name in sorted(metadata.tables) if name not in _NOT_FOR_READERS},
}

_RIGHT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?: \(([a-z_, ]+)\))?")
_NAME = re.compile(r"[A-Za-z0-9_]{1,48}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._:%/-]{1,60}", re.ASCII)
_PASSWORD = re.compile(r"[A-Za-z0-9_-]{20,200}", re.ASCII)


def rights(account: Account, table: str) -> dict[str, tuple[str, ...]]:
    """Return the words of an account for a table, each with its columns: all of the table's, unless some are named."""
    columns = tuple(column.name for column in metadata.tables[table].columns)
    found = _RIGHT.findall(GRANTS[account].get(table, ""))
    return {word: tuple(some.split(", ")) if some else columns for word, some in found}


def user_statements(
    user: str, *, host: str, password: str, require_tls: bool = False, require_certificate: bool = False
) -> list[str]:
    """Return what makes an account, if there is none of that name. Raises ConfigError for names that need quoting."""
    if not (_NAME.fullmatch(user) and _HOST.fullmatch(host) and _PASSWORD.fullmatch(password)):
        raise ConfigError(f"account {user}@{host}: letters, digits and _ only, and a password of 20 characters or more")
    tls = " REQUIRE X509" if require_certificate else " REQUIRE SSL" if require_tls else ""
    return [f"CREATE USER IF NOT EXISTS '{user}'@'{host}' IDENTIFIED BY '{password}'{tls}"]


def grant_statements(account: Account, user: str, *, host: str, database: str) -> list[str]:
    """Return what gives an account its rights. Raises ConfigError for names that need quoting."""
    if not (_NAME.fullmatch(user) and _HOST.fullmatch(host) and _NAME.fullmatch(database)):
        raise ConfigError(f"{user}@{host}, database {database}: letters, digits and _ only")
    who = f"'{user}'@'{host}'"
    if account is Account.SCHEMA:
        # Here, and only here, the name of the database is a pattern.
        pattern = database.replace("_", "\\_")
        everything = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"
        return [f"GRANT {everything} ON `{pattern}`.* TO {who}"]
    tables = {**GRANTS[account], "alembic_version": "SELECT"}
    return [f"GRANT {_quoted(words)} ON `{database}`.`{table}` TO {who}" for table, words in tables.items()]


def _quoted(words: str) -> str:
    def columns(match: re.Match[str]) -> str:
        some: Sequence[str] = match[2].split(", ") if match[2] else ()
        return match[1] + (f" ({', '.join(f'`{name}`' for name in some)})" if some else "")

    return _RIGHT.sub(columns, words)
