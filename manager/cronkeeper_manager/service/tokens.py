"""Bearer tokens: 256 random bits, shown once, stored as their SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading

from cronkeeper.domain.scope import EVERYWHERE, Scope
from cronkeeper.errors import FieldError, NotFoundError, ValidationFailedError
from cronkeeper.ports import Role, Token, TokenStore, token_facts
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.service.rules import NAME
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

PREFIX = "ck_"
#: How long an answer of the store is believed. A revoked token is refused everywhere after that.
CACHE_S = 3.0
#: Begins the digest of what is no token of ours, but stands for an identity (`denials`). No digest in hex does.
IDENTITY = "oidc"
_MAX_CACHED = 10_000
_SECRET = re.compile(r"ck_[A-Za-z0-9_-]{43}", re.ASCII)


class Tokens:
    """Creates, checks and revokes tokens. Safe to use from several threads."""

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Token, float]] = {}

    def create(
        self,
        *,
        name: str,
        role: Role,
        expires_ms: int | None = None,
        scope: Scope = EVERYWHERE,
        caller: Caller | None = None,
    ) -> tuple[Token, str]:
        """Make a token; return it and its secret, which nobody will ever be told again.

        Without a caller nobody asked for it over HTTP, and the trail does not tell of it.

        Raises ValidationFailedError for a bad name or an expiry in the past.
        """
        now_ms = self._clock.now_ms()
        faults = []
        if not NAME.fullmatch(name):
            faults.append(
                FieldError("name", "is not a name", "write letters, digits, '_', '.' or '-', such as ci-deploy")
            )
        if expires_ms is not None and expires_ms <= now_ms:
            faults.append(FieldError("expires_at", "lies in the past"))
        if faults:
            raise ValidationFailedError(faults)

        def told(token: Token) -> Entry:
            assert caller is not None
            return note(caller, "token.created", "token", token.id, at_ms=now_ms, new=token_facts(token))

        secret = PREFIX + secrets.token_urlsafe(32)
        token = self._store.add(
            name=name,
            role=role,
            digest=digest_of(secret),
            created_ms=now_ms,
            expires_ms=expires_ms,
            scope=scope,
            note=None if caller is None else told,
        )
        log.info(
            "a token was created", extra={"event": "token.created", "id": token.id, "holder": name, "role": role.value}
        )
        return token, secret

    def authenticate(self, secret: str) -> Caller | None:
        """Return whom the secret belongs to, or None when it is not (or no longer) good.

        Raises UnavailableError when the store cannot say: then nobody is let in.
        """
        if not _SECRET.fullmatch(secret):
            return None
        digest = digest_of(secret)
        token = self._cached(digest)
        if token is None:
            token = self._store.find(digest)
            if token is None:
                return None
            self._remember(digest, token)
        expired = token.expires_ms is not None and token.expires_ms <= self._clock.now_ms()
        if expired or token.revoked_ms is not None or not hmac.compare_digest(token.digest, digest):
            return None
        return Caller(str(token.id), token.name, token.role, token.scope)

    def all(self) -> list[Token]:
        """Return all tokens, revoked ones too."""
        return [token for token in self._store.all() if not token.digest.startswith(IDENTITY)]

    def revoke(self, token_id: int, caller: Caller | None = None) -> None:
        """End a token. Other servers follow within CACHE_S. NotFoundError; safe to repeat."""
        at_ms = self._clock.now_ms()
        told = [] if caller is None else [note(caller, "token.revoked", "token", token_id, at_ms=at_ms)]
        if not self._store.revoke(token_id, at_ms=at_ms, trail=told):
            raise NotFoundError(f"there is no token {token_id}")
        with self._lock:
            self._known = {key: entry for key, entry in self._known.items() if entry[0].id != token_id}
        log.info("a token was revoked", extra={"event": "token.revoked", "id": token_id})

    def _cached(self, digest: str) -> Token | None:
        entry = self._known.get(digest)
        return entry[0] if entry is not None and entry[1] > self._clock.boot_s() else None

    def _remember(self, digest: str, token: Token) -> None:
        with self._lock:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[digest] = (token, self._clock.boot_s() + CACHE_S)


def digest_of(secret: str) -> str:
    """Return what the store keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
