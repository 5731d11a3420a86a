"""Tokens, remembered answers and events in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from cronkeeper.domain.scope import EVERYWHERE, Scope
from cronkeeper.errors import ConflictError
from cronkeeper.ports import ABANDONED_MS, Event, Idempotency, IdempotencyResult, RequestKey, Role, Token
from cronkeeper.testing.memory_store_state import AnswerRow, Memory
from cronkeeper.wire.trail import Entry

_REMEMBERED_MS = 24 * 3600 * 1000


class MemoryTokenStore:
    """See cronkeeper.ports.TokenStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def add(
        self,
        *,
        name: str,
        role: Role,
        digest: str,
        created_ms: int,
        expires_ms: int | None,
        scope: Scope = EVERYWHERE,
        note: Callable[[Token], Entry] | None = None,
    ) -> Token:
        with self._memory.call("tokens.add"):
            tokens = self._memory.tokens
            for stored in tokens:
                if stored.digest == digest:
                    if (stored.name, stored.role, stored.created_ms, stored.scope) == (name, role, created_ms, scope):
                        return stored
                    raise ConflictError("there is a token with this secret already")
            tokens.append(Token(len(tokens) + 1, name, role, digest, created_ms, expires_ms, scope=scope))
            self._memory.note([None if note is None else note(tokens[-1])])
            return tokens[-1]

    def find(self, digest: str) -> Token | None:
        with self._memory.call("tokens.find"):
            return next((token for token in self._memory.tokens if token.digest == digest), None)

    def all(self) -> list[Token]:
        with self._memory.call("tokens.all"):
            return list(self._memory.tokens)

    def revoke(self, token_id: int, *, at_ms: int, trail: Sequence[Entry] = ()) -> bool:
        with self._memory.call("tokens.revoke"):
            return self._set(token_id, at_ms, trail)

    def restore(self, token_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        with self._memory.call("tokens.restore"):
            return self._set(token_id, None, trail)

    def _set(self, token_id: int, revoked_ms: int | None, trail: Sequence[Entry]) -> bool:
        for index, token in enumerate(self._memory.tokens):
            if token.id == token_id:
                if (token.revoked_ms is None) is not (revoked_ms is None):
                    self._memory.tokens[index] = replace(token, revoked_ms=revoked_ms)
                    self._memory.note(trail)
                return True
        return False


class MemoryIdempotencyStore:
    """See cronkeeper.ports.IdempotencyStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def begin(self, scope: str, key: str, *, body_digest: str, now_ms: int) -> IdempotencyResult:
        with self._memory.call("idempotency.begin"):
            row = self._memory.answers.get((scope, key))
            if row is None or row.created_ms <= now_ms - _REMEMBERED_MS:
                return self._take(scope, key, body_digest, now_ms)
            if row.body_digest != body_digest:
                return IdempotencyResult(Idempotency.MISMATCH)
            if row.status:
                return IdempotencyResult(Idempotency.REPLAY, row.status, row.body)
            if row.saved is not None:
                return IdempotencyResult(Idempotency.SAVED, saved=row.saved)
            if row.created_ms > now_ms - ABANDONED_MS:
                return IdempotencyResult(Idempotency.IN_FLIGHT)
            return self._take(scope, key, body_digest, now_ms)

    def finish(self, request: RequestKey, *, status: int, body: bytes) -> None:
        with self._memory.call("idempotency.finish"):
            row = self._memory.answers.get((request.scope, request.key))
            if row is not None and row.nonce == request.nonce:
                row.status, row.body = status, body

    def abandon(self, request: RequestKey) -> None:
        with self._memory.call("idempotency.abandon"):
            if self._memory.open_answer(request) is not None:
                del self._memory.answers[request.scope, request.key]

    def _take(self, scope: str, key: str, body_digest: str, now_ms: int) -> IdempotencyResult:
        nonce = secrets.token_hex(16)
        self._memory.answers[scope, key] = AnswerRow(body_digest, nonce, now_ms)
        return IdempotencyResult(Idempotency.NEW, request=RequestKey(scope, key, nonce))


class MemoryEventStore:
    """See cronkeeper.ports.EventStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def add(self, events: Sequence[Event]) -> None:
        with self._memory.call("events.add"):
            known = set(self._memory.events)
            for event in events:
                if event not in known:
                    self._memory.events.append(event)
                    known.add(event)

    def latest(self, *, limit: int, kind: str | None = None, subject: str | None = None, skip: int = 0) -> list[Event]:
        with self._memory.call("events.latest"):
            numbered = sorted(enumerate(self._memory.events), key=lambda item: (item[1].at_ms, item[0]), reverse=True)
            wanted = (event for _, event in numbered if kind in (None, event.kind) and subject in (None, event.subject))
            return list(wanted)[skip : skip + limit]
