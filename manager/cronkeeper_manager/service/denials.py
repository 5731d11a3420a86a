"""Identities of an issuer that are let in no more, though their tokens are good.

Such tokens are not ours to revoke. A denial stands among the tokens, as one whose digest is the identity's and that was
revoked the moment it was made; lifting it takes that back. So it holds as fast, and as surely, as a revocation.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from dataclasses import dataclass

from cronkeeper.domain.scope import NOWHERE
from cronkeeper.errors import FieldError, NotFoundError, ValidationFailedError
from cronkeeper.ports import Role, Token, TokenStore
from cronkeeper.runtime.clock import Clock
from cronkeeper_manager.service.tokens import CACHE_S, IDENTITY
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

_MAX_CACHED = 10_000
_SUBJECT = re.compile(r"[!-~]{1,180}", re.ASCII)
_MAX_NAME = 190


@dataclass(frozen=True, slots=True)
class Denial:
    """One identity that is not let in, and since when."""

    id: int
    identity: str
    denied_ms: int


class Denials:
    """Denies identities, and lets them in again. Safe to use from several threads."""

    def __init__(self, store: TokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[bool, float]] = {}

    def is_denied(self, issuer: str, subject: str) -> bool:
        """Say whether the identity is denied; an answer is believed for CACHE_S.

        Raises UnavailableError when the store cannot say: then nobody is let in.
        """
        digest = digest_of(issuer, subject)
        with self._lock:
            known = self._known.get(digest)
        if known is not None and known[1] > self._clock.boot_s():
            return known[0]
        found = self._store.find(digest)
        denied = found is not None and found.revoked_ms is not None
        with self._lock:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[digest] = (denied, self._clock.boot_s() + CACHE_S)
        return denied

    def all(self) -> list[Denial]:
        """Return who is denied."""
        return [
            Denial(token.id, token.name, token.revoked_ms)
            for token in self._store.all()
            if is_identity(token) and token.revoked_ms is not None
        ]

    def deny(self, issuer: str, subject: str, caller: Caller) -> Denial:
        """Let the identity in no more; other servers follow within CACHE_S. Safe to repeat.

        Raises ValidationFailedError for a subject that no token can have.
        """
        if not _SUBJECT.fullmatch(subject) or len(issuer) + len(subject) >= _MAX_NAME:
            hint = "write it as the tokens' sub has it"
            raise ValidationFailedError([FieldError("subject", "cannot be the subject of a token", hint)])
        at_ms, name, digest = self._clock.now_ms(), f"{issuer}#{subject}", digest_of(issuer, subject)
        token = self._store.find(digest) or self._store.add(
            name=name, role=Role.VIEWER, digest=digest, created_ms=at_ms, expires_ms=at_ms, scope=NOWHERE
        )
        told = note(caller, "identity.denied", "identity", name, at_ms=at_ms)
        self._store.revoke(token.id, at_ms=at_ms, trail=[told])
        self._forget(digest)
        log.info("an identity is denied", extra={"event": "identity.denied", "holder": name, "by": caller.name})
        return Denial(token.id, name, at_ms if token.revoked_ms is None else token.revoked_ms)

    def lift(self, denial_id: int, caller: Caller) -> None:
        """Let the identity in again. NotFoundError when it is not denied."""
        found = next((token for token in self._store.all() if token.id == denial_id and is_identity(token)), None)
        if found is None or found.revoked_ms is None:
            raise NotFoundError(f"there is no denial {denial_id}")
        told = note(caller, "identity.allowed", "identity", found.name, at_ms=self._clock.now_ms())
        self._store.restore(found.id, trail=[told])
        self._forget(found.digest)
        log.info(
            "an identity is let in again", extra={"event": "identity.allowed", "holder": found.name, "by": caller.name}
        )

    def _forget(self, digest: str) -> None:
        with self._lock:
            self._known.pop(digest, None)


def digest_of(issuer: str, subject: str) -> str:
    """Return what the store finds an identity's denial by."""
    return IDENTITY + hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()[len(IDENTITY) :]


def is_identity(token: Token) -> bool:
    """Say whether it is no token of ours, but stands for an identity."""
    return token.digest.startswith(IDENTITY)
