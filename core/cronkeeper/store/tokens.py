"""Bearer tokens, as digests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.scope import EVERYWHERE, Scope, read_scope
from cronkeeper.errors import ConflictError
from cronkeeper.ports import Role, Token
from cronkeeper.store import schema
from cronkeeper.store.session import Database
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry

_table = schema.tokens


class SqlTokenStore:
    """See cronkeeper.ports.TokenStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

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
        """Insert a token. Raises ConflictError when a different token has the digest. Safe to repeat."""
        values = {
            "name": name,
            "role": role.value,
            "digest": digest,
            "created_ms": created_ms,
            "expires_ms": expires_ms,
            "namespaces": str(scope),
        }

        def body(conn: Connection) -> Token:
            try:
                conn.execute(_table.insert().values(**values))
            except IntegrityError:
                # Perhaps our own, from a call whose answer was lost.
                stored = _from_row(conn.execute(_select().where(_table.c.digest == digest)).one())
                if (stored.name, stored.role, stored.created_ms, stored.scope) == (name, role, created_ms, scope):
                    return stored
                raise ConflictError("there is a token with this secret already") from None
            added = _from_row(conn.execute(_select().where(_table.c.digest == digest)).one())
            add_trail(conn, self._db.flavour, [None if note is None else note(added)])
            return added

        return self._db.transaction(body, repeatable=True)

    def find(self, digest: str) -> Token | None:
        row = self._db.read(lambda conn: conn.execute(_select().where(_table.c.digest == digest)).first())
        return None if row is None else _from_row(row)

    def all(self) -> list[Token]:
        rows = self._db.read(lambda conn: conn.execute(_select().order_by(_table.c.id)).all())
        return [_from_row(row) for row in rows]

    def revoke(self, token_id: int, *, at_ms: int, trail: Sequence[Entry] = ()) -> bool:
        return self._set(token_id, _table.c.revoked_ms.is_(None), at_ms, trail)

    def restore(self, token_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        return self._set(token_id, _table.c.revoked_ms.is_not(None), None, trail)

    def _set(self, token_id: int, before: ColumnElement[bool], revoked_ms: int | None, trail: Sequence[Entry]) -> bool:
        def body(conn: Connection) -> bool:
            update = _table.update().where(_table.c.id == token_id, before).values(revoked_ms=revoked_ms)
            if conn.execute(update).rowcount == 1:
                add_trail(conn, self._db.flavour, trail)
                return True
            return conn.execute(select(_table.c.id).where(_table.c.id == token_id)).first() is not None

        return self._db.transaction(body, repeatable=True)


def _select() -> Select[Any]:
    return select(*_table.c)


def _from_row(row: Any) -> Token:
    scope = read_scope(row.namespaces)
    return Token(row.id, row.name, Role(row.role), row.digest, row.created_ms, row.expires_ms, row.revoked_ms, scope)
