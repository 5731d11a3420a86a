"""What the auditor keeps in MySQL: versions of jobs, missed fires, and how far it is."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.errors import WireFormatError
from cronkeeper.ports import AuditMark, Event, Fate, Fire, JobVersion, Missed, SignedRow
from cronkeeper.store import job_rows, schema
from cronkeeper.store.flavour import Row, chunks, names, slices
from cronkeeper.store.notes import add_events
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term

log = logging.getLogger(__name__)

_history, _missed, _audit, _runs = schema.job_history, schema.missed, schema.audit, schema.runs
_KEY = ("job_id", "shard", "fire_ms")
_MISSED = (*_KEY, "reason", "detail", "noted_ms", "held")
_FATE = (*_KEY, "attempt", "state", "trigger", "worker", "generation", "reason", "claimed_ms", "fence", "nonce")
_MARK = (
    "id",
    "decided_ms",
    "warned_ms",
    "checked_job",
    "checked_shard",
    "checked_ms",
    "beat_ms",
    "known_from_ms",
    "gaps",
)


class SqlAuditStore:
    """See cronkeeper.ports.AuditStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- reading

    def versions(self, job_ids: Sequence[int]) -> list[JobVersion]:
        c = _history.c
        query = select(*(c[name] for name in job_rows.HISTORY)).order_by(c.job_id, c.generation, c.since_ms)

        def body(conn: Connection) -> list[JobVersion]:
            found: list[JobVersion] = []
            for some in slices(sorted(set(job_ids))):
                found += _versions(conn.execute(query.where(c.job_id.in_(some))))
            return found

        return self._db.read(body)

    def changed_versions(self, since_ms: int, *, after: tuple[int, int] = (0, 0), limit: int) -> list[JobVersion]:
        c = _history.c
        beyond = or_(c.job_id > after[0], and_(c.job_id == after[0], c.generation > after[1]))
        query = select(*(c[name] for name in job_rows.HISTORY)).where(c.since_ms >= since_ms, beyond)
        # Both states of a generation come together: a page that ended between them would hide the second.
        query = query.order_by(c.job_id, c.generation, c.since_ms).limit(limit)

        def body(conn: Connection) -> list[JobVersion]:
            rows = conn.execute(query).all()
            found = list(_versions(rows))
            if len(rows) == limit:
                last = rows[-1]
                same = query.where(c.job_id == last.job_id, c.generation == last.generation)
                known = {(item.job_id, item.generation, item.state) for item in found}
                more = _versions(conn.execute(same))
                found += [item for item in more if (item.job_id, item.generation, item.state) not in known]
            return found

        return self._db.read(body)

    def fates(self, fires: Sequence[Fire]) -> dict[Fire, Fate]:
        flavour = self._db.flavour

        def body(conn: Connection) -> dict[Fire, Fate]:
            found: dict[Fire, Fate] = {}
            for some in slices(sorted(set(fires))):
                text = (
                    f"SELECT {names(_FATE)} FROM `runs` {flavour.by_key()}"
                    f" WHERE {flavour.among(_KEY, len(some))} ORDER BY `attempt`"
                )
                values = tuple(value for fire in some for value in _key_row(fire))
                # In the order of attempts, so that the newest one stays.
                found.update({fate.fire: fate for fate in _fates(conn.exec_driver_sql(text, values))})
            return found

        return self._db.read(body)

    def recorded(self, after: Fire, until_ms: int, *, limit: int) -> list[Fate]:
        c = _runs.c
        later = or_(c.fire_ms > after.fire_ms, and_(c.fire_ms == after.fire_ms, _beyond(c, after.task)))
        query = (
            select(*(c[name] for name in _FATE))
            .where(c.fire_ms >= after.fire_ms, c.fire_ms <= until_ms, later)
            .where(c.attempt == 1, c.trigger != Trigger.MANUAL.value)
            .order_by(c.fire_ms, c.job_id, c.shard)
            .limit(limit)
        )
        return self._db.read(lambda conn: list(_fates(conn.execute(query))))

    def ahead(self, by_ms: int, *, limit: int) -> list[Fate]:
        text = (
            f"SELECT {names(_FATE)} FROM `runs` WHERE `fire_ms` > {self._db.flavour.now_ms} + {self._db.flavour.mark}"
            f" ORDER BY `fire_ms` LIMIT {limit}"
        )
        return self._db.read(lambda conn: list(_fates(conn.exec_driver_sql(text, (by_ms,)))))

    def drop_ahead(self, fates: Sequence[Fate], by_ms: int, *, term: int) -> int:
        flavour, key = self._db.flavour, (*_KEY, "attempt", "worker", "nonce")

        def body(conn: Connection) -> int:
            hold_term(conn, flavour, term)
            count = 0
            for some in slices(fates):
                text = (
                    f"DELETE FROM `runs` WHERE `fire_ms` > {flavour.now_ms} + {flavour.mark}"
                    f" AND {flavour.among(key, len(some))}"
                )
                rows = [(*_key_row(item.fire), item.attempt, item.worker, item.nonce) for item in some]
                count += conn.exec_driver_sql(text, (by_ms, *(v for row in rows for v in row))).rowcount
            return count

        return self._db.transaction(body, repeatable=True)

    def signed(self, job_ids: Sequence[int]) -> list[SignedRow]:
        c = schema.jobs.c
        query = select(*(c[name] for name in job_rows.SIGNED)).order_by(c.id)

        def body(conn: Connection) -> list[SignedRow]:
            found: list[SignedRow] = []
            for some in slices(sorted(set(job_ids))):
                for row in conn.execute(query.where(c.id.in_(some))):
                    # What cannot be read is told of by whoever plans.
                    with contextlib.suppress(WireFormatError):
                        found.append(job_rows.signed_row(row))
            return found

        return self._db.read(body)

    def mark(self) -> AuditMark:
        query = select(*(_audit.c[name] for name in _MARK)).where(_audit.c.id == 1)
        row = self._db.read(lambda conn: conn.execute(query).first())
        if row is None:
            return AuditMark()
        _, decided_ms, warned_ms, job_id, shard, checked_ms, beat_ms, known_from_ms, gaps = row
        spans = tuple((int(begin), int(end)) for begin, end in json.loads(gaps))
        return AuditMark(decided_ms, warned_ms, Fire(TaskId(job_id, shard), checked_ms), beat_ms, spans, known_from_ms)

    def missed_page(self, after: Fire, *, limit: int) -> list[Missed]:
        c = _missed.c
        same = and_(c.job_id == after.task.job_id, c.shard == after.task.shard)
        beyond = or_(_beyond(c, after.task), and_(same, c.fire_ms > after.fire_ms))
        return self._select(lambda query: query.where(beyond).order_by(c.job_id, c.shard, c.fire_ms).limit(limit))

    def held(self, *, limit: int) -> list[Missed]:
        c = _missed.c
        return self._select(lambda query: query.where(c.held == 1).order_by(c.noted_ms, c.job_id).limit(limit))

    def missed_of(self, job_id: int, *, limit: int) -> list[Missed]:
        c = _missed.c
        landed = exists().where(_runs.c.job_id == c.job_id, _runs.c.shard == c.shard, _runs.c.fire_ms == c.fire_ms)
        return self._select(
            lambda query: (
                query.where(c.job_id == job_id, c.held == 0, ~landed).order_by(c.fire_ms.desc(), c.shard).limit(limit)
            )
        )

    def missed_at(self, job_id: int, fire_ms: int) -> list[Missed]:
        c = _missed.c
        return self._select(lambda query: query.where(c.job_id == job_id, c.fire_ms == fire_ms).order_by(c.shard))

    # -- writing

    def save(
        self,
        mark: AuditMark,
        *,
        missed: Sequence[Missed],
        withdrawn: Sequence[Fire],
        events: Sequence[Event],
        term: int,
    ) -> None:
        flavour = self._db.flavour
        at = mark.checked
        row: Row = (
            1, mark.decided_ms, mark.warned_ms, at.task.job_id, at.task.shard, at.fire_ms, mark.beat_ms,
            mark.known_from_ms, json.dumps(mark.gaps),
        )  # fmt: skip
        rows = [_missed_row(item) for item in sorted(missed, key=lambda item: item.fire)]
        end = flavour.replace_old(_KEY, _MISSED[3:])

        def body(conn: Connection) -> None:
            hold_term(conn, flavour, term)
            for some in slices(sorted(withdrawn)):
                text = f"DELETE FROM `missed` WHERE {flavour.among(_KEY, len(some))}"
                conn.exec_driver_sql(text, tuple(value for fire in some for value in _key_row(fire)))
            for chunk in chunks(rows):
                flavour.insert(conn, _missed, _MISSED, chunk, end)
            flavour.insert(conn, _audit, _MARK, [row], flavour.replace_old(("id",), _MARK[1:]))
            add_events(conn, flavour, events)

        self._db.transaction(body, repeatable=True)

    def purge(self, *, before_ms: int, limit: int) -> int:
        def body(conn: Connection) -> int:
            return self._purge_missed(conn, before_ms, limit) + self._purge_versions(conn, before_ms, limit)

        return self._db.transaction(body, repeatable=True)

    # -- inside

    def _select(self, narrow: Callable[[Any], Any]) -> list[Missed]:
        query = narrow(select(*(_missed.c[name] for name in _MISSED)))
        return [_missed_of(row) for row in self._db.read(lambda conn: conn.execute(query).all())]

    def _purge_missed(self, conn: Connection, before_ms: int, limit: int) -> int:
        query = select(*(_missed.c[name] for name in _KEY)).where(_missed.c.fire_ms < before_ms).limit(limit)
        keys = conn.execute(query)
        return self._delete(conn, "missed", _KEY, [tuple(row) for row in keys])

    def _purge_versions(self, conn: Connection, before_ms: int, limit: int) -> int:
        """Remove versions that a later one had replaced before that instant."""
        c, later = _history.c, _history.alias("later")
        newer = or_(
            later.c.generation > c.generation, and_(later.c.generation == c.generation, later.c.since_ms > c.since_ms)
        )
        replaced = exists().where(later.c.job_id == c.job_id, newer, later.c.since_ms < before_ms)
        key = job_rows.HISTORY[:3]
        found = conn.execute(select(*(c[name] for name in key)).where(c.since_ms < before_ms, replaced).limit(limit))
        return self._delete(conn, "job_history", key, [tuple(row) for row in found])

    def _delete(self, conn: Connection, table: str, key: Sequence[str], rows: Sequence[Row]) -> int:
        for some in slices(rows):
            text = f"DELETE FROM `{table}` WHERE {self._db.flavour.among(key, len(some))}"
            conn.exec_driver_sql(text, tuple(value for row in some for value in row))
        return len(rows)


def _beyond(c: Any, task: TaskId) -> ColumnElement[bool]:
    return or_(c.job_id > task.job_id, and_(c.job_id == task.job_id, c.shard > task.shard))


def _key_row(fire: Fire) -> Row:
    return (fire.task.job_id, fire.task.shard, fire.fire_ms)


def _missed_row(item: Missed) -> Row:
    return (*_key_row(item.fire), item.reason, item.detail, item.noted_ms, int(item.held))


def _missed_of(row: Any) -> Missed:
    job_id, shard, fire_ms, reason, detail, noted_ms, held = row
    return Missed(Fire(TaskId(job_id, shard), fire_ms), reason, detail, noted_ms, bool(held))


def _versions(rows: Iterable[Any]) -> Iterable[JobVersion]:
    for row in rows:
        try:
            yield job_rows.version(row)
        except WireFormatError as exc:
            log.error("a job's version cannot be read and is left out", extra={"job": row[0], "error": str(exc)})


def _fates(rows: Iterable[Any]) -> Iterable[Fate]:
    for row in rows:
        job_id, shard, fire_ms, attempt, state, trigger, worker, generation, reason, claimed_ms, fence, nonce = row
        try:
            yield Fate(
                Fire(TaskId(job_id, shard), fire_ms), attempt, RunState(state), Trigger(trigger), worker, generation,
                None if reason is None else Reason(reason), claimed_ms, fence, nonce,
            )  # fmt: skip
        except ValueError as exc:
            # Of a newer version. That there is a row is what matters, and that it is not taken for nothing.
            log.error("a run's row cannot be read in full", extra={"job": job_id, "error": str(exc)})
            fire = Fire(TaskId(job_id, shard), fire_ms)
            yield Fate(
                fire, attempt, RunState.RUNNING, Trigger.TIMER, worker, generation, None, claimed_ms, fence, nonce
            )
