"""Cordons and drains, which stood in ZooKeeper alone until now."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
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


def upgrade() -> None:
    """Make the table. A worker without a row is as its znode says."""
    worker = sa.String(63).with_variant(mysql.VARCHAR(63, charset="ascii", collation="ascii_bin"), *_MYSQL)
    op.create_table(
        "cordons",
        sa.Column("worker", worker, primary_key=True, nullable=False),
        sa.Column("cordoned", sa.Integer(), nullable=False),
        sa.Column("draining", sa.Integer(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        **_OPTIONS,
    )


def downgrade() -> None:
    """Drop the table: cordons stand in ZooKeeper, too."""
    op.drop_table("cordons")
