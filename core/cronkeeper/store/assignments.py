"""The leader's own copy of who was given what, and what admins want: tasks moved, workers cordoned."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import Connection, select

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.ports import Cordon, MoveRequest
from cronkeeper.store import schema
from cronkeeper.store.flavour import Row, chunks, slices
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry

log = logging.getLogger(__name__)

_table = schema.assignments
_KEY = ("job_id", "shard")
_moves = schema.move_requests
_MOVE_COLUMNS = (*_KEY, "worker", "requested_ms")
_cordons = schema.cordons
_CORDON_COLUMNS = ("worker", "cordoned", "draining", "changed_ms")
_COLUMNS = (*_KEY, "worker", "generation", "epoch", "reason", "assigned_ms", "since_ms")


class SqlAssignmentStore:
    """See cronkeeper.ports.AssignmentStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def load(self) -> dict[TaskId, Assignment]:
        query = select(*(_table.c[name] for name in _COLUMNS))
        rows = self._db.read(lambda conn: conn.execute(query).all())
        return {item.task: item for item in map(_from_row, rows)}

    def save(self, assignments: Sequence[Assignment], *, term: int) -> None:
        flavour = self._db.flavour
        end = flavour.replace_old(_KEY, _COLUMNS[2:])
        rows = [_to_row(item) for item in sorted(assignments, key=lambda item: item.task)]

        def body(conn: Connection) -> None:
            hold_term(conn, flavour, term)
            for some in chunks(rows):
                flavour.insert(conn, _table, _COLUMNS, some, end)

        self._db.transaction(body, repeatable=True)

    def workers_of(self, job_ids: Sequence[int]) -> dict[int, list[str]]:
        def body(conn: Connection) -> dict[int, set[str]]:
            found: dict[int, set[str]] = {}
            for some in slices(job_ids):
                given = select(_table.c.job_id, _table.c.worker).where(_table.c.job_id.in_(some), _table.c.worker != "")
                for job_id, worker in conn.execute(given):
                    found.setdefault(job_id, set()).add(worker)
            return found

        return {job_id: sorted(workers) for job_id, workers in self._db.read(body).items()}

    def forget(self, job_ids: Sequence[int], *, term: int) -> None:
        def body(conn: Connection) -> None:
            hold_term(conn, self._db.flavour, term)
            for some in slices(job_ids):
                conn.execute(_table.delete().where(_table.c.job_id.in_(some)))

        self._db.transaction(body, repeatable=True)


class SqlMoveRequestStore:
    """See cronkeeper.ports.MoveRequestStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, requests: Sequence[MoveRequest], *, trail: Sequence[Entry] = ()) -> None:
        flavour = self._db.flavour
        end = flavour.replace_old(_KEY, _MOVE_COLUMNS[2:])
        rows: list[Row] = [
            (item.task.job_id, item.task.shard, item.worker, item.requested_ms)
            for item in sorted(requests, key=lambda item: item.task)
        ]

        def body(conn: Connection) -> None:
            for some in chunks(rows):
                flavour.insert(conn, _moves, _MOVE_COLUMNS, some, end)
            add_trail(conn, flavour, trail)

        self._db.transaction(body, repeatable=True)

    def all(self) -> dict[TaskId, MoveRequest]:
        query = select(*(_moves.c[name] for name in _MOVE_COLUMNS))
        rows = self._db.read(lambda conn: conn.execute(query).all())
        items = (MoveRequest(TaskId(job_id, shard), worker, at_ms) for job_id, shard, worker, at_ms in rows)
        return {item.task: item for item in items}

    def drop(self, tasks: Sequence[TaskId], *, term: int) -> None:
        flavour = self._db.flavour

        def body(conn: Connection) -> None:
            hold_term(conn, flavour, term)
            for some in slices(sorted(tasks)):
                values = tuple(value for task in some for value in (task.job_id, task.shard))
                conn.exec_driver_sql(f"DELETE FROM `move_requests` WHERE {flavour.among(_KEY, len(some))}", values)

        self._db.transaction(body, repeatable=True)


class SqlCordonStore:
    """See cronkeeper.ports.CordonStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(self, cordon: Cordon, *, trail: Sequence[Entry] = ()) -> None:
        flavour = self._db.flavour
        row = (cordon.worker, int(cordon.cordoned), int(cordon.draining), cordon.changed_ms)
        end = flavour.replace_old(_CORDON_COLUMNS[:1], _CORDON_COLUMNS[1:])

        def body(conn: Connection) -> None:
            flavour.insert(conn, _cordons, _CORDON_COLUMNS, [row], end)
            add_trail(conn, flavour, trail)

        self._db.transaction(body, repeatable=True)

    def all(self) -> dict[str, Cordon]:
        query = select(*(_cordons.c[name] for name in _CORDON_COLUMNS))
        rows = self._db.read(lambda conn: conn.execute(query).all())
        return {worker: Cordon(worker, bool(cordoned), bool(draining), at) for worker, cordoned, draining, at in rows}


def _to_row(item: Assignment) -> Row:
    return (
        item.task.job_id,
        item.task.shard,
        item.worker,
        item.generation,
        item.epoch,
        item.reason.value,
        item.assigned_ms,
        item.since_ms,
    )


def _from_row(row: Row) -> Assignment:
    job_id, shard, worker, generation, epoch, reason, assigned_ms, since_ms = row
    return Assignment(TaskId(job_id, shard), worker, generation, epoch, _reason(reason), assigned_ms, since_ms)


def _reason(text: str) -> MoveReason:
    """Read a reason. One of a newer version counts as restored: who has the task matters more than why."""
    try:
        return MoveReason(text)
    except ValueError:
        log.warning("an assignment's reason is not known here", extra={"reason": text})
        return MoveReason.RESTORE
