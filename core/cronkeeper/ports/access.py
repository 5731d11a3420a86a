"""Tokens, idempotency keys and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cronkeeper.domain.scope import EVERYWHERE, Scope


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token as the store knows it: only the SHA-256 of its secret, in hex."""

    id: int
    name: str
    role: Role
    digest: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    #: The namespaces that it is good for.
    scope: Scope = EVERYWHERE


class TokenStore(Protocol):
    def add(
        self,
        *,
        name: str,
        role: Role,
        digest: str,
        created_ms: int,
        expires_ms: int | None,
        scope: Scope = EVERYWHERE,
    ) -> Token: ...

    def find(self, digest: str) -> Token | None:
        """Return the token with this digest, whatever its state."""
        ...

    def all(self) -> list[Token]: ...

    def revoke(self, token_id: int, *, at_ms: int) -> bool:
        """False when there is no such token. Safe to repeat."""
        ...


class Idempotency(StrEnum):
    NEW = "new"
    REPLAY = "replay"
    IN_FLIGHT = "in_flight"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class IdempotencyResult:
    outcome: Idempotency
    status: int = 0
    body: bytes = b""


class IdempotencyStore(Protocol):
    """Remembers answers by (scope, key) for 24 hours; scope is token, method and path."""

    def begin(self, scope: str, key: str, *, body_digest: str, now_ms: int) -> IdempotencyResult: ...

    def finish(self, scope: str, key: str, *, status: int, body: bytes) -> None: ...

    def abandon(self, scope: str, key: str) -> None:
        """Forget a key whose request failed before anything was saved."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to know later: `kind` is a dotted word such as `run.double` or `worker.lost`."""

    at_ms: int
    kind: str
    subject: str
    detail: str


class EventStore(Protocol):
    def add(self, events: Sequence[Event]) -> None: ...

    def latest(self, *, limit: int, kind: str | None = None, subject: str | None = None, skip: int = 0) -> list[Event]:
        """Return events, newest first, without the newest `skip`."""
        ...
