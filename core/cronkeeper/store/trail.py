"""The audit trail: an inbox that every write adds to, and the chain that the leader makes of it.

Two tables, because two kinds of writers must not wait for each other: to chain an entry one has to know the one before,
and whoever did that in the transaction of a POST would hold up all other POSTs until its COMMIT (and, in a Galera
cluster, collide with those on the other servers).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from cronkeeper.errors import StaleWriteError
from cronkeeper.ports import TrailQuery
from cronkeeper.store import schema
from cronkeeper.store.flavour import Flavour, Row, Sender, chunks, slices
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term
from cronkeeper.wire.trail import ORIGIN, Actor, Entry, Link

_inbox, _trail = schema.trail_inbox, schema.trail
_ENTRY = (
    "nonce",
    "at_ms",
    "actor_token",
    "actor_name",
    "actor_role",
    "source",
    "request_id",
    "action",
    "kind",
    "object_id",
    "namespace",
    "old",
    "new",
)
_LINK = ("seq", *_ENTRY, "prev_hash", "hash")


class SqlTrailStore:
    """See cronkeeper.ports.TrailStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._db.transaction(lambda conn: add_trail(conn, self._db.flavour, entries), repeatable=True)

    def waiting(self, *, limit: int) -> list[Entry]:
        query = select(*(_inbox.c[name] for name in _ENTRY)).order_by(_inbox.c.id).limit(limit)
        return [_entry(row) for row in self._db.read(lambda conn: conn.execute(query).all())]

    def link(self, links: Sequence[Link], *, term: int) -> None:
        if not links:
            return
        flavour = self._db.flavour
        before = (links[0].seq - 1, links[0].prev_hash)

        def body(conn: Connection) -> None:
            hold_term(conn, flavour, term)
            newest = select(_trail.c.seq, _trail.c.hash).order_by(_trail.c.seq.desc()).limit(1).with_for_update()
            row = conn.execute(newest).first()
            found = (0, ORIGIN) if row is None else (row.seq, row.hash)
            if found != (links[-1].seq, links[-1].hash):
                if found != before:
                    raise StaleWriteError(f"the trail's newest link is {found[0]}, not {before[0]}")
                for some in chunks([_link_row(item) for item in links]):
                    flavour.insert(conn, _trail, _LINK, some)
            self._forget(conn, [item.entry.nonce for item in links])

        self._db.transaction(body, repeatable=True)

    def linked(self, nonces: Sequence[str]) -> set[str]:
        def body(conn: Connection) -> set[str]:
            found: set[str] = set()
            for some in slices(nonces):
                found.update(conn.execute(select(_trail.c.nonce).where(_trail.c.nonce.in_(some))).scalars())
            return found

        return self._db.read(body)

    def forget(self, nonces: Sequence[str], *, term: int) -> None:
        def body(conn: Connection) -> None:
            hold_term(conn, self._db.flavour, term)
            self._forget(conn, nonces)

        self._db.transaction(body, repeatable=True)

    def page(self, query: TrailQuery) -> list[Link]:
        c = _trail.c
        wanted = select(*(c[name] for name in _LINK)).where(c.seq > query.after).order_by(c.seq).limit(query.limit)
        for column, value in (
            (c.actor_name, query.actor),
            (c.action, query.action),
            (c.kind, query.kind),
            (c.object_id, query.object_id),
        ):
            if value is not None:
                wanted = wanted.where(column == value)
        if query.from_ms is not None:
            wanted = wanted.where(c.at_ms >= query.from_ms)
        if query.to_ms is not None:
            wanted = wanted.where(c.at_ms <= query.to_ms)
        return self._links(wanted)

    def head(self) -> Link | None:
        found = self._links(select(*(_trail.c[name] for name in _LINK)).order_by(_trail.c.seq.desc()).limit(1))
        return found[0] if found else None

    def since(self, at_ms: int) -> Link | None:
        found = self.page(TrailQuery(limit=1, from_ms=at_ms))
        return found[0] if found else None

    def cut(self, floor: int, *, limit: int, term: int) -> int:
        def body(conn: Connection) -> int:
            hold_term(conn, self._db.flavour, term)
            oldest = select(_trail.c.seq).where(_trail.c.seq < floor).order_by(_trail.c.seq).limit(limit)
            found = conn.execute(oldest).scalars().all()
            if found:
                conn.execute(_trail.delete().where(_trail.c.seq <= found[-1], _trail.c.seq < floor))
            return len(found)

        return self._db.transaction(body, repeatable=True)

    def _links(self, query: Any) -> list[Link]:
        rows = self._db.read(lambda conn: conn.execute(query).all())
        return [Link(row[0], _entry(row[1:-2]), row[-2], row[-1]) for row in rows]

    def _forget(self, conn: Connection, nonces: Sequence[str]) -> None:
        for some in slices(sorted(nonces)):
            conn.execute(_inbox.delete().where(_inbox.c.nonce.in_(some)))


def add_trail(conn: Sender, flavour: Flavour, entries: Iterable[Entry | None]) -> None:
    """Insert entries as part of a transaction, each once; None stands for a write that nobody asked for."""
    for some in chunks([_entry_row(entry) for entry in entries if entry is not None]):
        flavour.insert_new(conn, _inbox, _ENTRY, some)


def _entry_row(entry: Entry) -> Row:
    actor = entry.actor
    return (
        entry.nonce, entry.at_ms, actor.token, actor.name, actor.role, actor.source, actor.request_id, entry.action,
        entry.kind, entry.object_id, entry.namespace, entry.old, entry.new,
    )  # fmt: skip


def _link_row(item: Link) -> Row:
    return (item.seq, *_entry_row(item.entry), item.prev_hash, item.hash)


def _entry(row: Sequence[Any]) -> Entry:
    nonce, at_ms, token, name, role, source, request_id, *rest = row
    return Entry(nonce, at_ms, Actor(token, name, role, source, request_id), *rest)
