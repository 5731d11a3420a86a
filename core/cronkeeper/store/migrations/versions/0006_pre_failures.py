"""Failures on which a leader acts: what is noted of them, and what it writes when it pauses a job for them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
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


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *_MYSQL)


def upgrade() -> None:
    """Add the columns and the table. No job has asked for it yet."""
    op.add_column("jobs", sa.Column("watched", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("paused_generation", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("state_reason", _ascii(255), nullable=False, server_default=""))
    op.create_table(
        "failing",
        sa.Column("job_id", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("nonce", _ascii(32), nullable=False),
        **_OPTIONS,
    )


def downgrade() -> None:
    """Drop them. What a leader has paused would go back to its workers: pause it anew before."""
    op.drop_table("failing")
    for column in ("state_reason", "paused_generation", "watched"):
        op.drop_column("jobs", column)
