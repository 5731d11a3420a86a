"""What is allowed in each namespace, and how many jobs each token has created lately."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
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


def upgrade() -> None:
    """Make the tables. A namespace without a row has no bounds."""
    text = sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)
    op.create_table(
        "namespaces",
        sa.Column("name", _ascii(63), primary_key=True, nullable=False),
        sa.Column("run_as", text, nullable=True),
        sa.Column("max_jobs", sa.BigInteger(), nullable=True),
        sa.Column("max_fires_per_minute", sa.Double(), nullable=True),
        sa.Column("min_interval_s", sa.BigInteger(), nullable=True),
        sa.Column("max_artifact_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_creates_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("writes", sa.BigInteger(), nullable=False),
        **_OPTIONS,
    )
    op.create_table(
        "creates",
        sa.Column("namespace", _ascii(63), primary_key=True, nullable=False),
        sa.Column("token", _ascii(32), primary_key=True, nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        **_OPTIONS,
    )


def downgrade() -> None:
    """Undo it: nothing is bounded any more."""
    op.drop_table("creates")
    op.drop_table("namespaces")
