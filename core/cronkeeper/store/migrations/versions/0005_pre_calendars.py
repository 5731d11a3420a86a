"""Named calendars, and which jobs name them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
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


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False, nullable=False)


def _column(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    """Make the tables. No job names a calendar yet."""
    op.create_table(
        "calendars",
        _key("namespace", _name()),
        _key("name", _name()),
        _column("description", _text()),
        _column("dates", _text()),
        _column("digest", _ascii(32)),
        _column("generation", sa.BigInteger()),
        _column("created_ms", sa.BigInteger()),
        _column("updated_ms", sa.BigInteger()),
        _column("touched", sa.BigInteger()),
        **_OPTIONS,
    )
    op.create_table(
        "job_calendars",
        _key("job_id", sa.BigInteger()),
        _key("name", _name()),
        _column("namespace", _name()),
        _column("digest", _ascii(32)),
        **_OPTIONS,
    )
    op.create_index("job_calendars_by_name", "job_calendars", ["namespace", "name"])


def downgrade() -> None:
    """Undo it. Jobs keep the days that they have copied."""
    for table in ("job_calendars", "calendars"):
        op.drop_table(table)
