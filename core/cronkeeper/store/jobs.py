"""The truth about jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, and_, case, exists, func, or_, select
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.job import Job, JobState, JobStatus
from cronkeeper.domain.run import UNSUCCESSFUL
from cronkeeper.errors import ConflictError, NotFoundError, StaleWriteError, WireFormatError
from cronkeeper.ports import JobQuery, NewJob, PlanRow, Weighing
from cronkeeper.store import job_ids, job_rows, schema
from cronkeeper.store.ahead import ahead
from cronkeeper.store.calendars import forget_uses, names_calendar, write_uses
from cronkeeper.store.flavour import chunks, slices
from cronkeeper.store.job_versions import remember_jobs, touch
from cronkeeper.store.namespaces import QuotaCheck
from cronkeeper.store.notes import note_saved
from cronkeeper.store.script import Script
from cronkeeper.store.secrets import check_copies
from cronkeeper.store.session import Database
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.codec import dumps
from cronkeeper.wire.trail import Entry

log = logging.getLogger(__name__)
T = TypeVar("T")

_jobs, _heads, _labels = schema.jobs, schema.job_heads, schema.job_labels
_FAILED_STATES = sorted(state.value for state in UNSUCCESSFUL)
_NAME_TAKEN = "the namespace has a job of that name already; choose another name, or change that job"
#: History is removed in transactions of this many rows: a large one would hold up every other writer.
_DELETE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class _Piece:
    """Jobs that are written together, and what the trail is told of them."""

    jobs: list[Job]
    notes: list[Entry]


class SqlJobStore:
    """See cronkeeper.ports.JobStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, new: NewJob, *, weighing: Weighing | None = None) -> Job:
        return self.save_many([new], [], [], weighing=weighing)[0]

    def save_many(
        self,
        new: Sequence[NewJob],
        changed: Sequence[tuple[Job, int]],
        removed: Sequence[int],
        *,
        trail: Sequence[Entry] = (),
        weighing: Weighing | None = None,
    ) -> list[Job]:
        inserted: list[Job] = []

        def body(script: Script) -> list[Job]:
            check = None if weighing is None else QuotaCheck(script, self._db.flavour, weighing)
            if check is not None:
                check.begin(new, changed)
            try:
                self._finish(script, removed)
                self._replace(script, changed)
                inserted[:] = self._insert(script, new)
                for job, item in zip(inserted, new, strict=True):
                    if item.request is not None:
                        note_saved(script.conn, item.request, [str(job.id)])
            except IntegrityError as exc:
                raise ConflictError(_NAME_TAKEN) from exc
            if check is not None:
                check.end()
            add_trail(script, self._db.flavour, trail)
            return list(inserted)

        def landed(conn: Connection) -> bool:
            # All or nothing, so any one row tells. Where all were only finished, it is as well if somebody else did it.
            proof = [*inserted[:1], *(job for job, _ in changed[:1])]
            return self._is_stored(conn, proof[0]) if proof else self._are_finished(conn, removed)

        return self._db.script(body, landed=landed)

    def get(self, job_id: int) -> Job:
        row = self._db.read(lambda conn: conn.execute(_select_jobs().where(_jobs.c.id == job_id)).first())
        if row is None:
            raise NotFoundError(f"there is no job {job_id}")
        return job_rows.from_row(row)

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, Job]:
        def body(conn: Connection) -> dict[str, Job]:
            found: dict[str, Job] = {}
            for some in slices(names):
                query = _select_jobs().where(_jobs.c.namespace == namespace, _jobs.c.name.in_(some))
                jobs = (job_rows.from_row(row) for row in conn.execute(query))
                found.update({job.spec.name: job for job in jobs if job.spec.name is not None})
            return found

        return self._db.read(body)

    def page(self, query: JobQuery) -> list[Job]:
        return self._db.read(lambda conn: self._page(conn, query))

    def replace(
        self, job: Job, *, expected_generation: int, trail: Sequence[Entry] = (), weighing: Weighing | None = None
    ) -> None:
        self.save_many([], [(job, expected_generation)], [], trail=trail, weighing=weighing)

    def mark_finished(self, job_id: int, *, generation: int) -> bool:
        text = (
            f"UPDATE `jobs` SET `state` = '{JobState.FINISHED}', {touch(self._db.flavour)}"
            f" WHERE `id` = {self._mark} AND `generation` = {self._mark} AND `state` = '{JobState.ACTIVE}'"
        )

        def body(conn: Connection) -> bool:
            if conn.exec_driver_sql(text, (job_id, generation)).rowcount == 1:
                remember_jobs(conn, self._db.flavour, [job_id])
                return True
            # An earlier call may have done it whose answer was lost.
            state = select(_jobs.c.state).where(_jobs.c.id == job_id, _jobs.c.generation == generation)
            return conn.execute(state).scalar() == JobState.FINISHED.value

        return self._db.transaction(body, repeatable=True)

    def delete(self, job_id: int, *, trail: Sequence[Entry] = ()) -> bool:
        # History first, in pieces; as long as the job's own row is there, a delete that broke off can be done again.
        for table in (schema.run_output, schema.runs, schema.missed):
            self._delete_history(table.name, job_id)

        def body(conn: Connection) -> bool:
            for table in (_labels, _heads, schema.job_history, schema.failing):
                conn.execute(table.delete().where(table.c.job_id == job_id))
            forget_uses(conn, [job_id])
            if conn.execute(_jobs.delete().where(_jobs.c.id == job_id)).rowcount != 1:
                return False
            add_trail(conn, self._db.flavour, trail)
            return True

        def landed(conn: Connection) -> bool:
            return conn.execute(select(_jobs.c.id).where(_jobs.c.id == job_id).with_for_update()).first() is None

        return self._db.transaction(body, landed=landed)

    def plan_rows(self, *, changed_since_ms: int = 0) -> list[PlanRow]:
        # Specs are long: only those with secrets are sent.
        sealed = case((func.instr(_jobs.c.spec, job_rows.SEALED) > 0, _jobs.c.spec))
        query = select(*(_jobs.c[name] for name in job_rows.PLAN), sealed).order_by(_jobs.c.id)
        if changed_since_ms:
            query = query.where(_jobs.c.updated_ms >= changed_since_ms)
        rows = self._db.read(lambda conn: conn.execute(query).all())
        return list(_readable(rows, job_rows.plan_row))

    def job_ids(self) -> set[int]:
        return set(self._db.read(lambda conn: conn.execute(select(_jobs.c.id)).scalars().all()))

    def namespaces_of(self, job_ids: Sequence[int]) -> dict[int, str]:
        def body(conn: Connection) -> dict[int, str]:
            found: dict[int, str] = {}
            for some in slices(job_ids):
                rows = conn.execute(select(_jobs.c.id, _jobs.c.namespace).where(_jobs.c.id.in_(some)))
                found.update({row.id: row.namespace for row in rows})
            return found

        return self._db.read(body)

    def envelopes(self, job_ids: Sequence[int]) -> dict[int, bytes]:
        def body(conn: Connection) -> dict[int, bytes]:
            found: dict[int, bytes] = {}
            for some in slices(job_ids):
                query = select(_jobs.c.id, _jobs.c.envelope).where(_jobs.c.id.in_(some))
                found.update({job_id: bytes(envelope) for job_id, envelope in conn.execute(query)})
            return found

        return self._db.read(body)

    def reseal(self, envelopes: Mapping[int, tuple[bytes, bytes]], *, trail: Sequence[Entry] = ()) -> int:
        def body(conn: Connection) -> int:
            changed = 0
            for job_id, (before, after) in sorted(envelopes.items()):
                mine = _jobs.update().where(_jobs.c.id == job_id, _jobs.c.envelope == before)
                changed += conn.execute(mine.values(envelope=after)).rowcount
            if changed:
                add_trail(conn, self._db.flavour, trail)
            return changed

        return self._db.transaction(body, repeatable=True)

    @property
    def _mark(self) -> str:
        return self._db.flavour.mark

    def _page(self, conn: Connection, query: JobQuery) -> list[Job]:
        found: list[Job] = []
        after = query.after
        while len(found) < query.limit:
            wanted = query.limit - len(found)
            selected = _filtered(query).where(_jobs.c.id > after).order_by(_jobs.c.id).limit(wanted)
            rows = conn.execute(selected).all()
            jobs = _readable(rows, job_rows.from_row)
            found += [job for job in jobs if query.secret in (None, *job.spec.secrets.names)]
            if len(rows) < wanted:
                break
            # A row that cannot be read must not make the page shorter: a short page means "no more".
            after = rows[-1].id
        return found

    def _insert(self, script: Script, new: Sequence[NewJob]) -> list[Job]:
        if not new:
            return []
        taken = job_ids.take(script, self._db.flavour, new)
        pieces = ahead(_made, list(slices(list(zip(new, taken.ids, strict=True)))))
        return self._write(script, pieces, there=taken.placed)

    def _replace(self, script: Script, changed: Sequence[tuple[Job, int]]) -> None:
        expected = {job.id: generation for job, generation in changed}
        for some in slices(sorted(expected)):
            query = select(_jobs.c.id, _jobs.c.generation).where(_jobs.c.id.in_(some)).with_for_update()
            conn = script.conn
            stored = {row.id: row.generation for row in conn.execute(query)}
            if missing := [job_id for job_id in some if job_id not in stored]:
                raise NotFoundError(f"there is no job {missing[0]}")
            if stale := [job_id for job_id in some if stored[job_id] != expected[job_id]]:
                raise StaleWriteError(
                    f"job {stale[0]} is at generation {stored[stale[0]]}, not {expected[stale[0]]} any more"
                )
            conn.execute(_labels.delete().where(_labels.c.job_id.in_(some)))
            forget_uses(conn, some)
        self._write(script, (_Piece(list(some), []) for some in slices([job for job, _ in changed])), there=True)

    def _write(self, script: Script, pieces: Iterable[_Piece], *, there: bool) -> list[Job]:
        """Write whole rows, and return their jobs. With `there` each has a row already, which is replaced."""
        flavour, jobs = self._db.flavour, list[Job]()
        end = flavour.replace_old(("id",), job_rows.COLUMNS[1:]) if there else ""
        for piece in pieces:
            jobs += piece.jobs
            for rows in chunks([job_rows.to_row(job) for job in piece.jobs]):
                flavour.insert(script, _jobs, job_rows.COLUMNS, rows, end)
            remember_jobs(script, flavour, [job.id for job in piece.jobs])
            add_trail(script, flavour, piece.notes)
        if not jobs:
            return jobs
        for rows in chunks([row for job in jobs for row in job_rows.label_rows(job)]):
            flavour.insert(script, _labels, ("job_id", "key", "value"), rows)
        write_uses(script, flavour, jobs)
        check_copies(script, jobs)
        return jobs

    def _finish(self, script: Script, removed: Sequence[int]) -> None:
        for some in slices(sorted(removed)):
            text = (
                f"UPDATE `jobs` SET `state` = '{JobState.FINISHED}', {touch(self._db.flavour)}"
                f" WHERE `id` IN ({self._db.flavour.marks(len(some))}) AND `state` <> '{JobState.FINISHED}'"
            )
            script.exec_driver_sql(text, tuple(some))
            remember_jobs(script, self._db.flavour, some)

    def _is_stored(self, conn: Connection, job: Job) -> bool:
        query = select(_jobs.c.generation, _jobs.c.envelope).where(_jobs.c.id == job.id).with_for_update()
        row = conn.execute(query).first()
        return row is not None and (row.generation, bytes(row.envelope)) == (job.generation, job.envelope)

    def _are_finished(self, conn: Connection, job_ids: Sequence[int]) -> bool:
        for some in slices(sorted(job_ids)):
            query = select(_jobs.c.id).where(_jobs.c.id.in_(some), _jobs.c.state != JobState.FINISHED.value)
            if conn.execute(query.with_for_update()).first() is not None:
                return False
        return bool(job_ids)

    def _delete_history(self, table: str, job_id: int) -> None:
        limit = f" LIMIT {_DELETE_ROWS}" if self._db.is_mysql else ""
        text = f"DELETE FROM `{table}` WHERE `job_id` = {self._mark}{limit}"
        while True:
            removed = self._db.statement(lambda conn: conn.exec_driver_sql(text, (job_id,)).rowcount, repeatable=True)
            if removed < _DELETE_ROWS or not limit:
                return


def _made(new: Sequence[tuple[NewJob, int]]) -> _Piece:
    piece = _Piece([], [])
    for item, job_id in new:
        piece.jobs.append(job := item.build(job_id))
        if item.note is not None:
            piece.notes.append(item.note(job))
    return piece


def _select_jobs() -> Select[Any]:
    columns = [*(_jobs.c[name] for name in job_rows.READ), *(_heads.c[name] for name in job_rows.READ_HEAD)]
    return select(*columns).select_from(_jobs.outerjoin(_heads, _heads.c.job_id == _jobs.c.id))


def _filtered(query: JobQuery) -> Select[Any]:
    selected = _select_jobs()
    if query.namespace is not None:
        selected = selected.where(_jobs.c.namespace == query.namespace)
    if query.within is not None:
        selected = selected.where(_jobs.c.namespace.in_(sorted(query.within)))
    if query.q:
        # Both sides are case-folded already, and instr knows no wildcards that would need escaping.
        selected = selected.where(func.instr(_jobs.c.search, query.q.casefold()) > 0)
    if query.calendar is not None:
        selected = selected.where(names_calendar(_jobs.c.id, query.namespace, query.calendar, query.outdated))
    if query.secret is not None:
        # Specs are canonical JSON. A label may look the same: the page leaves such jobs out.
        selected = selected.where(func.instr(_jobs.c.spec, f'"secret":{dumps(query.secret).decode()}') > 0)
    for key, value in query.labels:
        has = and_(_labels.c.job_id == _jobs.c.id, _labels.c.key == key, _labels.c.value == value)
        selected = selected.where(exists().where(has))
    match query.status:
        case None:
            return selected
        case JobStatus.PAUSED:
            return selected.where(_jobs.c.state == JobState.PAUSED.value)
        case JobStatus.FINISHED:
            return selected.where(_jobs.c.state == JobState.FINISHED.value)
        case JobStatus.ERROR:
            failed = _heads.c.state.in_(_FAILED_STATES)
            return selected.where(_jobs.c.state == JobState.ACTIVE.value, failed)
        case JobStatus.SCHEDULED:
            fine = or_(_heads.c.state.is_(None), _heads.c.state.not_in(_FAILED_STATES))
            return selected.where(_jobs.c.state == JobState.ACTIVE.value, fine)


def _readable(rows: Iterable[Any], read: Callable[[Any], T]) -> Iterable[T]:
    """Read the rows that can be read; one that cannot must not hide the others."""
    for row in rows:
        try:
            yield read(row)
        except WireFormatError as exc:
            log.error("a job's row cannot be read and is left out", extra={"job": row[0], "error": str(exc)})
