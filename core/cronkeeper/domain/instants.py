"""Instants: aware datetimes at the borders, epoch milliseconds inside, RFC 3339 with `Z` on the outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Instants outside these bounds are refused at every border (year 1970 to year 9000).
MAX_MS = 221_845_392_000_000

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def to_ms(instant: datetime) -> int:
    """Return epoch milliseconds of an aware datetime (rounded down). Raises ValueError for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("a naive datetime has no place here")
    return (instant - EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Return the aware UTC datetime of epoch milliseconds."""
    return EPOCH + timedelta(milliseconds=ms)


def rfc3339(ms: int) -> str:
    """Return e.g. `2027-01-01T00:00:00Z`, with milliseconds only where there are any."""
    instant = from_ms(ms)
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"


def parse_rfc3339(text: str) -> int:
    """Return epoch milliseconds of an RFC 3339 instant with `Z` or an offset. Raises ValueError with a mend in it."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 instant with a zone, such as 2027-01-01T00:00:00Z")
    try:
        ms = to_ms(datetime.fromisoformat(text.upper()))
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"no such instant: {exc}") from exc
    if not 0 <= ms <= MAX_MS:
        raise ValueError("out of range: use an instant from 1970 to 8999")
    return ms
