"""What runs printed, in chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, and_, select

from cronkeeper.domain.ids import RunKey
from cronkeeper.store import schema
from cronkeeper.store.flavour import Flavour
from cronkeeper.store.run_rows import KEY, key_row
from cronkeeper.store.session import Database

MAX_CHUNK_BYTES = 65_536


class RunOutput:
    """The part of the run store that keeps output."""

    _db: Database
    _flavour: Flavour

    def append_output(self, key: RunKey, *, offset: int, data: bytes) -> None:
        if len(data) > MAX_CHUNK_BYTES:
            raise ValueError(f"a chunk of output has at most {MAX_CHUNK_BYTES} bytes, not {len(data)}")
        if not data:
            return
        columns = (*KEY, "offset", "data")
        end = self._flavour.replace_old((*KEY, "offset"), ("data",))
        row = (*key_row(key), offset, data)

        def body(conn: Connection) -> None:
            self._flavour.insert(conn, schema.run_output, columns, [row], end)

        self._db.statement(body, repeatable=True)

    def read_output(self, key: RunKey, *, offset: int, limit: int) -> bytes:
        c = schema.run_output.c
        run = and_(
            c.job_id == key.task.job_id,
            c.shard == key.task.shard,
            c.fire_ms == key.fire_ms,
            c.attempt == key.attempt,
        )
        # A chunk that holds byte `offset` starts at most one chunk's length before it.
        near = and_(c.offset > offset - MAX_CHUNK_BYTES, c.offset < offset + limit)
        query = select(c.offset, c.data).where(run, near).order_by(c.offset)
        return stitch(self._db.read(lambda conn: conn.execute(query).all()), offset=offset, limit=limit)


def stitch(chunks: Iterable[Any], *, offset: int, limit: int) -> bytes:
    """Join (offset, data) chunks, ascending and perhaps overlapping, from byte `offset` on, up to the first gap."""
    found = b""
    for start, data in chunks:
        at = offset + len(found)
        if start > at or len(found) >= limit:
            break
        found += bytes(data)[at - start :]
    return found[:limit]
