"""What is remembered for a while: answers to requests, and events."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import Connection, and_, select

from cronkeeper.ports import Event, Idempotency, IdempotencyResult
from cronkeeper.store import schema
from cronkeeper.store.flavour import Flavour, Row, chunks
from cronkeeper.store.session import Database

#: How long an answer is remembered.
REMEMBERED_MS = 24 * 3600 * 1000

_keys = schema.idempotency
_KEY_COLUMNS = ("digest", "body_digest", "nonce", "created_ms", "status", "body")
_events = schema.events
_EVENT_COLUMNS = ("at_ms", "kind", "subject", "detail", "digest")


class SqlIdempotencyStore:
    """See cronkeeper.ports.IdempotencyStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(self, scope: str, key: str, *, body_digest: str, now_ms: int) -> IdempotencyResult:
        digest, nonce = key_digest(scope, key), secrets.token_hex(16)
        row = (digest, body_digest, nonce, now_ms, 0, b"")
        outdated = and_(_keys.c.digest == digest, _keys.c.created_ms <= now_ms - REMEMBERED_MS)

        def body(conn: Connection) -> IdempotencyResult:
            flavour = self._db.flavour
            conn.execute(_keys.delete().where(outdated))
            flavour.insert(conn, _keys, _KEY_COLUMNS, [row], flavour.keep_old("digest"))
            query = select(_keys.c.nonce, _keys.c.body_digest, _keys.c.status, _keys.c.body)
            stored = conn.execute(query.where(_keys.c.digest == digest)).one()
            if stored.nonce == nonce:
                return IdempotencyResult(Idempotency.NEW)
            if stored.body_digest != body_digest:
                return IdempotencyResult(Idempotency.MISMATCH)
            if not stored.status:
                return IdempotencyResult(Idempotency.IN_FLIGHT)
            return IdempotencyResult(Idempotency.REPLAY, stored.status, bytes(stored.body))

        # Repeating is safe because of the nonce: our own row, from an attempt whose answer was lost, is still NEW.
        return self._db.transaction(body, repeatable=True)

    def finish(self, scope: str, key: str, *, status: int, body: bytes) -> None:
        update = _keys.update().where(_keys.c.digest == key_digest(scope, key)).values(status=status, body=body)
        self._db.statement(lambda conn: conn.execute(update).rowcount, repeatable=True)

    def abandon(self, scope: str, key: str) -> None:
        delete = _keys.delete().where(_keys.c.digest == key_digest(scope, key), _keys.c.status == 0)
        self._db.statement(lambda conn: conn.execute(delete).rowcount, repeatable=True)


class SqlEventStore:
    """See cronkeeper.ports.EventStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, events: Sequence[Event]) -> None:
        """Insert events. One that is there already (same instant, kind, subject and detail) is not doubled."""
        if events:
            self._db.transaction(lambda conn: add_events(conn, self._db.flavour, events), repeatable=True)

    def latest(self, *, limit: int, kind: str | None = None, subject: str | None = None, skip: int = 0) -> list[Event]:
        c = _events.c
        query = (
            select(c.at_ms, c.kind, c.subject, c.detail).order_by(c.at_ms.desc(), c.id.desc()).limit(limit).offset(skip)
        )
        if kind is not None:
            query = query.where(c.kind == kind)
        if subject is not None:
            query = query.where(c.subject == subject)
        return [Event(*row) for row in self._db.read(lambda conn: conn.execute(query).all())]


def add_events(conn: Connection, flavour: Flavour, events: Sequence[Event]) -> None:
    """Insert events as part of a transaction; one that is there already is not doubled."""
    for some in chunks([_event_row(event) for event in events]):
        flavour.insert(conn, _events, _EVENT_COLUMNS, some, flavour.keep_old("digest"))


def key_digest(scope: str, key: str) -> str:
    """Return one fixed-length key for a scope and a key of any length."""
    return hashlib.sha256(f"{len(scope)}:{scope}{key}".encode()).hexdigest()


def _event_row(event: Event) -> Row:
    text = f"{event.at_ms}\n{len(event.kind)}:{event.kind}{len(event.subject)}:{event.subject}{event.detail}"
    return (event.at_ms, event.kind, event.subject, event.detail, hashlib.sha256(text.encode()).hexdigest())
