"""What the command line does in the database itself: schema and first token. Nothing else goes past the API."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from cronkeeper.domain.scope import ALL, EVERYWHERE, Scope, scope_of
from cronkeeper.ports import Role, Token, token_facts
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.wire.trail import Actor, Entry, text_of

TOKEN_PREFIX = "ck_"  # noqa: S105 - what every token begins with, so that scanners find a leaked one


def upgrade(url: str) -> str:
    """Bring the schema to the head and return its version. Safe to repeat and to run several times at once."""
    from cronkeeper.store import upgrade as schema

    schema.upgrade(url)
    return schema.current(url)


def versions(url: str) -> tuple[str, str]:
    """Return the schema's version (empty if there is none) and the one that this program needs."""
    from cronkeeper.store import upgrade as schema

    return schema.current(url), schema.head()


def new_secret() -> str:
    """Return the secret of a new token: 256 random bits behind the prefix."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def create_token(url: str, *, name: str, role: str, namespaces: Sequence[str] = ()) -> str:
    """Create a token and return its secret, which nobody can read again. Without namespaces it is good for all of them.

    Raises ValueError for what is no namespace.
    """
    secret = new_secret()
    ensure_token(url, secret, name=name, role=role, scope=scope_of(namespaces or [ALL]))
    return secret


def ensure_token(url: str, secret: str, *, name: str, role: str, scope: Scope = EVERYWHERE) -> None:
    """Have the database know this token. One that it knows already, in whatever state, stays as it is."""
    from cronkeeper.store import open_store

    digest = hashlib.sha256(secret.encode()).hexdigest()
    store = open_store(url)
    try:
        if store.tokens.find(digest) is None:
            now_ms = SystemClock().now_ms()
            # Whoever can write in the database is not known by any token: so the trail says.
            actor = Actor("", "database", "database")

            def told(token: Token) -> Entry:
                nonce, what = secrets.token_hex(16), text_of(token_facts(token))
                return Entry(nonce, now_ms, actor, "token.created", "token", str(token.id), new=what)

            store.tokens.add(
                name=name, role=Role(role), digest=digest, created_ms=now_ms, expires_ms=None, scope=scope, note=told
            )
    finally:
        store.close()
