"""The tables of the audit trail."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Table

from cronkeeper.store.columns import TABLE_OPTIONS, ascii_text, long_text, metadata, name_text, row_id


def _trail_columns() -> list[Column[Any]]:
    """Who did what: see cronkeeper.wire.trail.Entry."""
    return [
        Column("nonce", ascii_text(32), nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("actor_token", ascii_text(32), nullable=False),
        Column("actor_name", name_text(), nullable=False),
        Column("actor_role", ascii_text(16), nullable=False),
        Column("source", ascii_text(64), nullable=False),
        Column("request_id", ascii_text(64), nullable=False),
        Column("action", ascii_text(64), nullable=False),
        Column("kind", ascii_text(32), nullable=False),
        Column("object_id", name_text(), nullable=False),
        Column("namespace", name_text(), nullable=False),
        Column("old", long_text(), nullable=False),
        Column("new", long_text(), nullable=False),
    ]


#: The audit trail's entries that no leader has linked yet.
trail_inbox = Table(
    "trail_inbox",
    metadata,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    *_trail_columns(),
    Index("trail_inbox_by_nonce", "nonce", unique=True),
    sqlite_autoincrement=True,
    **TABLE_OPTIONS,
)

#: The audit trail, chained by hashes.
trail = Table(
    "trail",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    *_trail_columns(),
    Column("prev_hash", ascii_text(64), nullable=False),
    Column("hash", ascii_text(64), nullable=False),
    Index("trail_by_nonce", "nonce", unique=True),
    Index("trail_by_time", "at_ms"),
    Index("trail_by_object", "kind", "object_id"),
    Index("trail_by_actor", "actor_name"),
    Index("trail_by_action", "action"),
    **TABLE_OPTIONS,
)
