"""What all tables are made of: kinds of columns, and the options of tables."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_MYSQL = ("mysql", "mariadb")
TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def ascii_text(length: int) -> TypeEngine[str]:
    """A word of ours: a state, an id, hex digits. One byte a character, so that keys stay short."""
    return String(length).with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), *_MYSQL)


def name_text() -> TypeEngine[str]:
    """A name that a user chose."""
    return String(190).with_variant(mysql.VARCHAR(190, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def long_text() -> TypeEngine[str]:
    """Up to 16 MiB of text."""
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


def long_bytes() -> TypeEngine[bytes]:
    """Up to 16 MiB of bytes."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL)


def row_id() -> TypeEngine[int]:
    """A number that the database gives out and never gives out twice."""
    return BigInteger().with_variant(Integer(), "sqlite")
