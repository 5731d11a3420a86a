"""Versions of jobs, missed fires, and how far the auditor is.

Of a job that exists already only the present version is known: what it was before, nobody kept.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
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


def _ascii(length: int) -> Any:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *_MYSQL)


def _text() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False, nullable=False)


def _column(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    """Make the tables, and begin each job's history with what it is now."""
    op.create_table(
        "job_history",
        _key("job_id", sa.BigInteger()),
        _key("generation", sa.BigInteger()),
        _key("state", _ascii(16)),
        _column("since_ms", sa.BigInteger()),
        _column("effective_from_ms", sa.BigInteger()),
        _column("spec", _text()),
        **_OPTIONS,
    )
    op.create_index("job_history_by_time", "job_history", ["since_ms"])
    # Whoever is finished may have become so long after its generation began.
    op.execute(
        "INSERT INTO job_history (job_id, generation, state, since_ms, effective_from_ms, spec)"
        " SELECT id, generation, state, CASE WHEN state = 'finished' THEN updated_ms ELSE effective_from_ms END,"
        " effective_from_ms, spec FROM jobs"
    )
    op.create_table(
        "missed",
        _key("job_id", sa.BigInteger()),
        _key("shard", sa.Integer()),
        _key("fire_ms", sa.BigInteger()),
        _column("reason", _ascii(32)),
        _column("detail", _text()),
        _column("noted_ms", sa.BigInteger()),
        _column("held", sa.Integer()),
        **_OPTIONS,
    )
    op.create_index("missed_by_job", "missed", ["job_id", "fire_ms"])
    op.create_index("missed_by_held", "missed", ["held", "noted_ms"])
    op.create_index("missed_by_fire", "missed", ["fire_ms"])
    op.create_table(
        "audit",
        _key("id", sa.Integer()),
        _column("decided_ms", sa.BigInteger()),
        _column("warned_ms", sa.BigInteger()),
        _column("checked_job", sa.BigInteger()),
        _column("checked_shard", sa.Integer()),
        _column("checked_ms", sa.BigInteger()),
        _column("beat_ms", sa.BigInteger()),
        _column("known_from_ms", sa.BigInteger()),
        _column("gaps", _text()),
        **_OPTIONS,
    )


def downgrade() -> None:
    """Undo it; what the tables held is lost."""
    for table in ("audit", "missed", "job_history"):
        op.drop_table(table)
