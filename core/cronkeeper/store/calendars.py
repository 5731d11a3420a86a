"""Named calendars, and which jobs hold copies of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.named_calendars import NamedCalendar, dates_from_dict, dates_to_dict
from cronkeeper.errors import ConflictError, NotFoundError, StaleCopyError, StaleWriteError, WireFormatError
from cronkeeper.store import schema
from cronkeeper.store.flavour import Flavour, chunks, slices
from cronkeeper.store.script import Script
from cronkeeper.store.session import Database
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry

_calendars, _uses = schema.calendars, schema.job_calendars
_READ = ("namespace", "name", "description", "dates", "generation", "created_ms", "updated_ms")


class SqlCalendarStore:
    """See cronkeeper.ports.CalendarStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, namespace: str, name: str) -> NamedCalendar:
        found = self.find(namespace, [name])
        if name not in found:
            raise NotFoundError(f"there is no calendar {name} in namespace {namespace}")
        return found[name]

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, NamedCalendar]:
        def body(conn: Connection) -> dict[str, NamedCalendar]:
            found: dict[str, NamedCalendar] = {}
            for some in slices(names):
                query = _select().where(_calendars.c.namespace == namespace, _calendars.c.name.in_(some))
                found.update({row.name: _from_row(row) for row in conn.execute(query)})
            return found

        return self._db.read(body)

    def names(self, namespace: str) -> list[str]:
        query = select(_calendars.c.name).where(_calendars.c.namespace == namespace).order_by(_calendars.c.name)
        return list(self._db.read(lambda conn: conn.execute(query).scalars().all()))

    def page(
        self, *, within: frozenset[str] | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[NamedCalendar]:
        namespace, name = after
        c = _calendars.c
        beyond = or_(c.namespace > namespace, and_(c.namespace == namespace, c.name > name))
        query = _select().where(beyond).order_by(c.namespace, c.name).limit(limit)
        if within is not None:
            query = query.where(c.namespace.in_(sorted(within)))
        return [_from_row(row) for row in self._db.read(lambda conn: conn.execute(query).all())]

    def save(self, calendar: NamedCalendar, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        def body(conn: Connection) -> None:
            values = _values(calendar)
            if expected_generation:
                at = and_(_is(calendar.namespace, calendar.name), _calendars.c.generation == expected_generation)
                if conn.execute(_calendars.update().where(at).values(**values)).rowcount != 1:
                    raise StaleWriteError(_gone(calendar.namespace, calendar.name))
            else:
                try:
                    conn.execute(_calendars.insert().values(touched=0, **values))
                except IntegrityError as exc:
                    raise StaleWriteError(_gone(calendar.namespace, calendar.name)) from exc
            add_trail(conn, self._db.flavour, trail)

        def landed(conn: Connection) -> bool:
            query = _select().where(_is(calendar.namespace, calendar.name)).with_for_update()
            row = conn.execute(query).first()
            return row is not None and _from_row(row) == calendar

        self._db.transaction(body, landed=landed)

    def delete(self, namespace: str, name: str, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        def body(conn: Connection) -> None:
            # Whoever saves a job that names it moves the same row: either it sees the job here, or the job sees no row.
            touch = _touch(namespace, name, _calendars.c.generation == expected_generation)
            if conn.execute(touch).rowcount != 1:
                raise StaleWriteError(_gone(namespace, name))
            if conn.execute(_count(namespace, name)).scalar_one():
                raise ConflictError(f"jobs name the calendar {name}")
            conn.execute(_calendars.delete().where(_is(namespace, name)))
            add_trail(conn, self._db.flavour, trail)

        def landed(conn: Connection) -> bool:
            return conn.execute(select(_calendars.c.name).where(_is(namespace, name)).with_for_update()).first() is None

        self._db.transaction(body, landed=landed)

    def count_uses(self, namespace: str, name: str, *, outdated: str = "") -> int:
        return int(self._db.read(lambda conn: conn.execute(_count(namespace, name, outdated)).scalar_one()))


def names_calendar(job_id: ColumnElement[int], namespace: str | None, name: str, outdated: str) -> ColumnElement[bool]:
    """Return the condition that a job names a calendar; with a digest, that its copy has another one."""
    has = and_(_uses.c.job_id == job_id, _uses.c.name == name)
    if namespace is not None:
        has = and_(has, _uses.c.namespace == namespace)
    return exists().where(and_(has, _uses.c.digest != outdated) if outdated else has)


def forget_uses(conn: Connection, job_ids: Sequence[int]) -> None:
    """Forget what these jobs name, as part of a transaction that writes it anew or removes them."""
    conn.execute(_uses.delete().where(_uses.c.job_id.in_(job_ids)))


def write_uses(script: Script, flavour: Flavour, jobs: Sequence[Job]) -> None:
    """Write which calendars these jobs name, and make sure that they hold those calendars' present days.

    Raises StaleCopyError. The calendar's row is moved, not only read: so that the check holds in a Galera cluster too,
    where no lock is seen on the other nodes.
    """
    rows, wanted = [], set()
    for job in jobs:
        for name in () if job.spec.calendar is None else job.spec.calendar.named:
            dates = job.spec.named_dates.get(name)
            digest = "" if dates is None else dates.digest
            rows.append((job.id, name, job.spec.namespace, digest))
            if job.state is not JobState.FINISHED:
                wanted.add((job.spec.namespace, name, digest))
    for namespace, name, digest in sorted(wanted):
        if script.conn.execute(_touch(namespace, name, _calendars.c.digest == digest)).rowcount != 1:
            raise StaleCopyError(_gone(namespace, name))
    for some in chunks(rows):
        flavour.insert(script, _uses, ("job_id", "name", "namespace", "digest"), some)


def _touch(namespace: str, name: str, only: ColumnElement[bool]) -> Any:
    return _calendars.update().where(_is(namespace, name), only).values(touched=_calendars.c.touched + 1)


def _select() -> Select[Any]:
    return select(*(_calendars.c[name] for name in _READ))


def _is(namespace: str, name: str) -> ColumnElement[bool]:
    return and_(_calendars.c.namespace == namespace, _calendars.c.name == name)


def _count(namespace: str, name: str, outdated: str = "") -> Select[Any]:
    query = select(func.count()).where(_uses.c.namespace == namespace, _uses.c.name == name)
    return query.where(_uses.c.digest != outdated) if outdated else query


def _gone(namespace: str, name: str) -> str:
    return f"the calendar {name} of namespace {namespace} has changed, or is gone"


def _values(calendar: NamedCalendar) -> dict[str, Any]:
    return {
        "namespace": calendar.namespace,
        "name": calendar.name,
        "description": calendar.description,
        "dates": json.dumps(dates_to_dict({"": calendar.dates})[""]),
        "digest": calendar.dates.digest,
        "generation": calendar.generation,
        "created_ms": calendar.created_ms,
        "updated_ms": calendar.updated_ms,
    }


def _from_row(row: Any) -> NamedCalendar:
    """Raises WireFormatError: it was edited by hand, or is of a newer version."""
    try:
        return NamedCalendar(
            row.namespace,
            row.name,
            row.description,
            dates_from_dict({"": json.loads(row.dates)})[""],
            int(row.generation),
            int(row.created_ms),
            int(row.updated_ms),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise WireFormatError(f"the calendar {row.name} cannot be read: {exc!r}") from exc
