"""What is remembered for a while: answers to requests, and events."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, select

from cronkeeper.errors import StaleWriteError
from cronkeeper.ports import ABANDONED_MS, Event, Idempotency, IdempotencyResult, RequestKey
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
        mine = IdempotencyResult(Idempotency.NEW, request=RequestKey(scope, key, nonce))
        outdated = and_(_keys.c.digest == digest, _keys.c.created_ms <= now_ms - REMEMBERED_MS)

        def body(conn: Connection) -> IdempotencyResult:
            flavour = self._db.flavour
            conn.execute(_keys.delete().where(outdated))
            flavour.insert(conn, _keys, _KEY_COLUMNS, [row], flavour.keep_old("digest"))
            query = select(*(_keys.c[name] for name in _KEY_COLUMNS[1:]))
            stored = conn.execute(query.where(_keys.c.digest == digest)).one()
            if stored.nonce == nonce:
                return mine
            if stored.body_digest != body_digest:
                return IdempotencyResult(Idempotency.MISMATCH)
            if stored.status:
                return IdempotencyResult(Idempotency.REPLAY, stored.status, bytes(stored.body))
            if stored.body:
                return IdempotencyResult(Idempotency.SAVED, saved=tuple(json.loads(stored.body)))
            if stored.created_ms > now_ms - ABANDONED_MS:
                return IdempotencyResult(Idempotency.IN_FLIGHT)
            taken = _keys.update().where(_open(RequestKey(scope, key, stored.nonce)))
            changed = conn.execute(taken.values(nonce=nonce, created_ms=now_ms)).rowcount
            return mine if changed == 1 else IdempotencyResult(Idempotency.IN_FLIGHT)

        # Repeating is safe because of the nonce: our own row, from an attempt whose answer was lost, is still NEW.
        return self._db.transaction(body, repeatable=True)

    def finish(self, request: RequestKey, *, status: int, body: bytes) -> None:
        update = _keys.update().where(_owned(request)).values(status=status, body=body)
        self._db.statement(lambda conn: conn.execute(update).rowcount, repeatable=True)

    def abandon(self, request: RequestKey) -> None:
        delete = _keys.delete().where(_open(request))
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
        flavour.insert_new(conn, _events, _EVENT_COLUMNS, some)


def note_saved(conn: Connection, request: RequestKey, ids: Sequence[str]) -> None:
    """Name what a request has saved, as part of the transaction that saves it.

    Raises StaleWriteError when the request has been taken over: nothing may be saved then.
    """
    noted = _keys.update().where(_open(request)).values(body=json.dumps(list(ids)).encode())
    if conn.execute(noted).rowcount != 1:
        raise StaleWriteError("another server has taken this request over")


def _owned(request: RequestKey) -> ColumnElement[bool]:
    return and_(_keys.c.digest == key_digest(request.scope, request.key), _keys.c.nonce == request.nonce)


def _open(request: RequestKey) -> ColumnElement[bool]:
    return and_(_owned(request), _keys.c.status == 0, _keys.c.body == b"")


def key_digest(scope: str, key: str) -> str:
    """Return one fixed-length key for a scope and a key of any length."""
    return hashlib.sha256(f"{len(scope)}:{scope}{key}".encode()).hexdigest()


def _event_row(event: Event) -> Row:
    text = f"{event.at_ms}\n{len(event.kind)}:{event.kind}{len(event.subject)}:{event.subject}{event.detail}"
    return (event.at_ms, event.kind, event.subject, event.detail, hashlib.sha256(text.encode()).hexdigest())
