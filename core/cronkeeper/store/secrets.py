"""Sealed secrets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, select
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.job import Job
from cronkeeper.domain.secret_env import Sealed
from cronkeeper.errors import StaleCopyError, StaleWriteError
from cronkeeper.ports import Secret
from cronkeeper.store import schema
from cronkeeper.store.flavour import slices
from cronkeeper.store.script import Script
from cronkeeper.store.session import Database
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry

_table = schema.secrets
_READ = ("namespace", "name", "version", "box", "updated_ms", "updated_by")


class SqlSecretStore:
    """See cronkeeper.ports.SecretStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(self, secret: Secret, *, expected_version: int, trail: Sequence[Entry] = ()) -> None:
        values = _to_row(secret)
        mine = (_table.c.namespace == secret.namespace, _table.c.name == secret.name)

        def body(conn: Connection) -> None:
            found = conn.execute(_select().where(*mine).with_for_update()).first()
            if found is not None and _from_row(found) == secret:
                # Our own, from a call whose answer was lost: no two boxes are alike.
                return
            if (0 if found is None else found.version) != expected_version:
                raise StaleWriteError(_changed(secret, expected_version))
            try:
                if found is None:
                    conn.execute(_table.insert().values(touched=0, **values))
                else:
                    conn.execute(_table.update().where(*mine).values(**values))
            except IntegrityError as exc:
                raise StaleWriteError(_changed(secret, expected_version)) from exc
            add_trail(conn, self._db.flavour, trail)

        self._db.transaction(body, repeatable=True)

    def find(self, namespace: str, names: Collection[str]) -> dict[str, Secret]:
        def body(conn: Connection) -> dict[str, Secret]:
            found: dict[str, Secret] = {}
            for some in slices(sorted(names)):
                query = _select().where(_table.c.namespace == namespace, _table.c.name.in_(some))
                found.update({row.name: _from_row(row) for row in conn.execute(query)})
            return found

        return self._db.read(body)

    def all(self, namespace: str | None = None) -> list[Secret]:
        query = _select().order_by(_table.c.namespace, _table.c.name)
        if namespace is not None:
            query = query.where(_table.c.namespace == namespace)
        return [_from_row(row) for row in self._db.read(lambda conn: conn.execute(query).all())]

    def delete(self, namespace: str, name: str, *, trail: Sequence[Entry] = ()) -> bool:
        statement = _table.delete().where(_table.c.namespace == namespace, _table.c.name == name)

        def body(conn: Connection) -> bool:
            if conn.execute(statement).rowcount != 1:
                return False
            add_trail(conn, self._db.flavour, trail)
            return True

        return self._db.transaction(body, repeatable=True)


def check_copies(script: Script, jobs: Sequence[Job]) -> None:
    """Make sure, as part of a transaction that writes these jobs, that their copies of secrets are the present ones.

    Raises StaleCopyError. The secret's row is moved, not only read: so that the check holds in a Galera cluster too,
    where no lock is seen on the other nodes. Whoever sets the secret afterwards sees the jobs.
    """
    copies = {
        (job.spec.namespace, name, job.spec.secrets.versions.get(name))
        for job in jobs
        if job.spec.secrets.uses
        for name in job.spec.secrets.names
    }
    for namespace, name, version in sorted(copies, key=lambda copy: copy[:2]):
        mine = and_(_table.c.namespace == namespace, _table.c.name == name)
        if version is None:
            stale = script.conn.execute(select(_table.c.version).where(mine).with_for_update()).first() is not None
        else:
            touch = _table.update().where(mine, _table.c.version == version)
            stale = script.conn.execute(touch.values(touched=_table.c.touched + 1)).rowcount != 1
        if stale:
            raise StaleCopyError(f"secret {name} of namespace {namespace} has changed")


def _changed(secret: Secret, version: int) -> str:
    return f"secret {secret.name} is not at version {version} any more"


def _select() -> Select[Any]:
    return select(*(_table.c[name] for name in _READ))


def _to_row(secret: Secret) -> dict[str, Any]:
    return {
        "namespace": secret.namespace,
        "name": secret.name,
        "version": secret.sealed.version,
        "box": secret.sealed.box,
        "updated_ms": secret.updated_ms,
        "updated_by": secret.updated_by,
    }


def _from_row(row: Any) -> Secret:
    return Secret(row.namespace, row.name, Sealed(row.version, row.box), row.updated_ms, row.updated_by)
