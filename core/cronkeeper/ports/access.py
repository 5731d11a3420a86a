"""Tokens, idempotency keys and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cronkeeper.domain.scope import EVERYWHERE, Scope
from cronkeeper.wire.trail import Entry


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


def token_facts(token: Token) -> dict[str, Any]:
    """Return what the trail tells of a token that is made. A digest is no secret, and says whether it is still that."""
    return {
        "name": token.name,
        "role": token.role.value,
        "namespaces": token.scope.listed(),
        "digest": token.digest,
    }


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
        note: Callable[[Token], Entry] | None = None,
    ) -> Token: ...

    def find(self, digest: str) -> Token | None:
        """Return the token with this digest, whatever its state."""
        ...

    def all(self) -> list[Token]: ...

    def revoke(self, token_id: int, *, at_ms: int, trail: Sequence[Entry] = ()) -> bool:
        """False when there is no such token. Safe to repeat."""
        ...

    def restore(self, token_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        """Take a revocation back: of what stands for an identity, never of a token. False as for `revoke`."""
        ...


class Idempotency(StrEnum):
    #: Nobody has it, or nobody has it any more: it is ours.
    NEW = "new"
    REPLAY = "replay"
    #: What was asked for is saved, and its answer never was.
    SAVED = "saved"
    IN_FLIGHT = "in_flight"
    MISMATCH = "mismatch"


#: A request that has saved nothing for so long is nobody's any more: a server is ended before it takes that long.
ABANDONED_MS = 60_000


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A key and the right to work on its request. Whoever takes the request over has another nonce."""

    scope: str
    key: str
    nonce: str


@dataclass(frozen=True, slots=True)
class IdempotencyResult:
    outcome: Idempotency
    status: int = 0
    body: bytes = b""
    #: Whose request it is, when it is NEW.
    request: RequestKey | None = None
    #: The ids of what is SAVED.
    saved: tuple[str, ...] = ()


class IdempotencyStore(Protocol):
    """Remembers answers by (scope, key) for 24 hours; scope is token, method and path.

    A write that is given a `RequestKey` (`NewJob.request`, `RunStore.request`) notes the ids of what it saves in the
    same transaction, and saves nothing if the request has been taken over.
    """

    def begin(self, scope: str, key: str, *, body_digest: str, now_ms: int) -> IdempotencyResult:
        """Say whose the key is; take it if it is nobody's, or its owner has saved nothing within ABANDONED_MS."""
        ...

    def finish(self, request: RequestKey, *, status: int, body: bytes) -> None:
        """Keep the answer, unless the request has been taken over."""
        ...

    def abandon(self, request: RequestKey) -> None:
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
