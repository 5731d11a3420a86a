"""The audit trail: who did what, and its chain. It begins with what is done from now on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"
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


def _name() -> Any:
    return sa.String(190).with_variant(mysql.VARCHAR(190, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def _text() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def _entry() -> list[sa.Column[Any]]:
    kinds = {
        "nonce": _ascii(32),
        "at_ms": sa.BigInteger(),
        "actor_token": _ascii(32),
        "actor_name": _name(),
        "actor_role": _ascii(16),
        "source": _ascii(64),
        "request_id": _ascii(64),
        "action": _ascii(64),
        "kind": _ascii(32),
        "object_id": _name(),
        "namespace": _name(),
        "old": _text(),
        "new": _text(),
    }
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds.items()]


def upgrade() -> None:
    """Make the tables."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "trail_inbox",
        sa.Column("id", number, primary_key=True, autoincrement=True, nullable=False),
        *_entry(),
        sqlite_autoincrement=True,
        **_OPTIONS,
    )
    op.create_index("trail_inbox_by_nonce", "trail_inbox", ["nonce"], unique=True)
    op.create_table(
        "trail",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        *_entry(),
        sa.Column("prev_hash", _ascii(64), nullable=False),
        sa.Column("hash", _ascii(64), nullable=False),
        **_OPTIONS,
    )
    op.create_index("trail_by_nonce", "trail", ["nonce"], unique=True)
    op.create_index("trail_by_time", "trail", ["at_ms"])
    op.create_index("trail_by_object", "trail", ["kind", "object_id"])
    op.create_index("trail_by_actor", "trail", ["actor_name"])
    op.create_index("trail_by_action", "trail", ["action"])


def downgrade() -> None:
    """Drop the tables: who did what is then in the logs alone."""
    op.drop_table("trail")
    op.drop_table("trail_inbox")
