"""The first schema.

Written out, not derived from cronkeeper.store.schema: a migration says what a database was, whatever the code becomes.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MYSQL = ("mysql", "mariadb")
_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
_NUMBERED: dict[str, Any] = {**_OPTIONS, "sqlite_autoincrement": True}


def _ascii(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *_MYSQL)


def _name() -> Any:
    return sa.String(190).with_variant(mysql.VARCHAR(190, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def _text() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def _bytes() -> Any:
    return sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _column(name: str, kind: Any, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def upgrade() -> None:
    _create_jobs()
    _create_runs()
    _create_fleet()
    _create_notes()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        _id(),
        _column("namespace", _name()),
        _column("name", _name(), nullable=True),
        _column("generation", sa.BigInteger()),
        _column("state", _ascii(16)),
        _column("schedule", _text()),
        _column("timezone", _ascii(64)),
        _column("selector", _text(), nullable=True),
        _column("shards", sa.Integer()),
        _column("effective_from_ms", sa.BigInteger()),
        _column("created_ms", sa.BigInteger()),
        _column("updated_ms", sa.BigInteger()),
        _column("search", _text()),
        _column("spec", _text()),
        _column("envelope", _bytes()),
        **_NUMBERED,
    )
    op.create_index("jobs_by_name", "jobs", ["namespace", "name"], unique=True)
    op.create_index("jobs_by_update", "jobs", ["updated_ms"])
    op.create_table(
        "job_labels",
        _key("job_id", sa.BigInteger()),
        _key("key", _ascii(190)),
        _column("value", _ascii(190)),
        **_OPTIONS,
    )
    op.create_index("job_labels_by_value", "job_labels", ["key", "value"])
    op.create_table(
        "job_heads",
        _key("job_id", sa.BigInteger()),
        _column("shard", sa.Integer()),
        _column("fire_ms", sa.BigInteger()),
        _column("attempt", sa.Integer()),
        _column("state", _ascii(16)),
        _column("ended_ms", sa.BigInteger(), nullable=True),
        **_OPTIONS,
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        _key("job_id", sa.BigInteger()),
        _key("shard", sa.Integer()),
        _key("fire_ms", sa.BigInteger()),
        _key("attempt", sa.Integer()),
        _column("trigger", _ascii(16)),
        _column("state", _ascii(16)),
        _column("worker", _ascii(63)),
        _column("nonce", _ascii(32)),
        _column("generation", sa.BigInteger()),
        _column("fence", sa.BigInteger()),
        _column("reason", _ascii(32), nullable=True),
        _column("claimed_ms", sa.BigInteger(), nullable=True),
        _column("started_ms", sa.BigInteger(), nullable=True),
        _column("ended_ms", sa.BigInteger(), nullable=True),
        _column("exit_code", sa.Integer(), nullable=True),
        _column("signal", sa.Integer(), nullable=True),
        _column("autonomous", sa.Integer()),
        _column("output_tail", _text()),
        _column("output_bytes", sa.BigInteger()),
        _column("cancel_requested", sa.Integer()),
        **_OPTIONS,
    )
    op.create_index("runs_by_job", "runs", ["job_id", "fire_ms"])
    op.create_index("runs_by_state", "runs", ["state", "worker"])
    op.create_index("runs_by_fire", "runs", ["fire_ms"])
    op.create_table(
        "run_output",
        _key("job_id", sa.BigInteger()),
        _key("shard", sa.Integer()),
        _key("fire_ms", sa.BigInteger()),
        _key("attempt", sa.Integer()),
        _key("offset", sa.BigInteger()),
        _column("data", _bytes()),
        **_OPTIONS,
    )


def _create_fleet() -> None:
    op.create_table(
        "leases",
        _key("worker", _ascii(63)),
        _column("incarnation", _ascii(64)),
        _column("lost_incarnation", _ascii(64)),
        _column("beat_ms", sa.BigInteger()),
        _column("clock_offset_ms", sa.BigInteger()),
        _column("info", _bytes()),
        **_OPTIONS,
    )
    term = op.create_table(
        "term",
        _key("id", sa.Integer()),
        _column("term", sa.BigInteger()),
        _column("holder", _name()),
        _column("beat", sa.BigInteger()),
        **_OPTIONS,
    )
    op.bulk_insert(term, [{"id": 1, "term": 0, "holder": "", "beat": 0}])
    op.create_table(
        "assignments",
        _key("job_id", sa.BigInteger()),
        _key("shard", sa.Integer()),
        _column("worker", _ascii(63)),
        _column("generation", sa.BigInteger()),
        _column("epoch", sa.BigInteger()),
        _column("reason", _ascii(32)),
        _column("assigned_ms", sa.BigInteger()),
        _column("since_ms", sa.BigInteger()),
        **_OPTIONS,
    )
    op.create_table(
        "move_requests",
        _key("job_id", sa.BigInteger()),
        _key("shard", sa.Integer()),
        _column("worker", _ascii(63)),
        _column("requested_ms", sa.BigInteger()),
        **_OPTIONS,
    )


def _create_notes() -> None:
    op.create_table(
        "tokens",
        _id(),
        _column("name", _name()),
        _column("role", _ascii(16)),
        _column("digest", _ascii(64)),
        _column("created_ms", sa.BigInteger()),
        _column("expires_ms", sa.BigInteger(), nullable=True),
        _column("revoked_ms", sa.BigInteger(), nullable=True),
        **_NUMBERED,
    )
    op.create_index("tokens_by_digest", "tokens", ["digest"], unique=True)
    op.create_table(
        "idempotency",
        _key("digest", _ascii(64)),
        _column("body_digest", _ascii(128)),
        _column("nonce", _ascii(32)),
        _column("created_ms", sa.BigInteger()),
        _column("status", sa.Integer()),
        _column("body", _bytes()),
        **_OPTIONS,
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_ms"])
    op.create_table(
        "events",
        _id(),
        _column("at_ms", sa.BigInteger()),
        _column("kind", _ascii(64)),
        _column("subject", _name()),
        _column("detail", _text()),
        _column("digest", _ascii(64)),
        **_NUMBERED,
    )
    op.create_index("events_by_digest", "events", ["digest"], unique=True)
    op.create_index("events_by_time", "events", ["at_ms"])
