"""Reading the ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, tuple_

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger, may_go
from cronkeeper.errors import NotFoundError, WireFormatError
from cronkeeper.ports import LastFire, Span
from cronkeeper.store import run_rows, schema
from cronkeeper.store.flavour import Row, names, slices
from cronkeeper.store.session import Database

log = logging.getLogger(__name__)

_runs = schema.runs
_COLUMNS = [_runs.c[name] for name in run_rows.COLUMNS]
#: SQLite joins at most 500 SELECTs in one statement.
_UNIONS = 250


class RunReads:
    """The reading half of the run store."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._flavour = db.flavour

    def get(self, key: RunKey) -> Run:
        run = self._db.read(lambda conn: self._read_one(conn, key))
        if run is None:
            raise NotFoundError(f"there is no run {key}")
        return run

    def history(self, job_id: int, *, limit: int, before: RunKey | None = None) -> list[Run]:
        c = _runs.c
        query = select(*_COLUMNS).where(c.job_id == job_id)
        if before is not None:
            # The first condition says nothing new, but it is one that an index can begin at.
            place = (before.fire_ms, before.task.shard, before.attempt)
            query = query.where(c.fire_ms <= before.fire_ms, tuple_(c.fire_ms, c.shard, c.attempt) < place)
        query = query.order_by(c.fire_ms.desc(), c.shard.desc(), c.attempt.desc()).limit(limit)
        # Without the hint MySQL sorts the job's whole history when its statistics are old.
        query = query.with_hint(_runs, "FORCE INDEX (runs_by_job)", "mysql")
        return self._db.read(lambda conn: self._runs(conn.execute(query)))

    def at(self, job_id: int, fire_ms: int) -> list[Run]:
        c = _runs.c
        query = select(*_COLUMNS).where(c.job_id == job_id, c.fire_ms == fire_ms).order_by(c.shard, c.attempt)
        return self._db.read(lambda conn: self._runs(conn.execute(query)))

    def last_fires(self, tasks: Mapping[TaskId, Span]) -> dict[TaskId, LastFire]:
        # Two steps down the primary key for each task, however long its history is; a retry adds no fire time.
        mark = self._flavour.mark
        newest = (
            "(SELECT r.`fire_ms` FROM `runs` AS r WHERE r.`job_id` = t.`job_id` AND r.`shard` = t.`shard`"
            f" AND r.`attempt` = 1 AND r.`trigger` <> '{Trigger.MANUAL}' AND r.`fire_ms` <= t.`until_ms`"
            f" AND (r.`state` <> '{RunState.SKIPPED}' OR r.`fire_ms` <= t.`early_ms`)"
            " ORDER BY r.`fire_ms` DESC LIMIT 1)"
        )
        generation = (
            "(SELECT r.`generation` FROM `runs` AS r WHERE r.`job_id` = t.`job_id` AND r.`shard` = t.`shard`"
            f" AND r.`state` <> '{RunState.PENDING}' AND r.`generation` > 0"
            " ORDER BY r.`fire_ms` DESC, r.`attempt` DESC LIMIT 1)"
        )

        def body(conn: Connection) -> dict[TaskId, LastFire]:
            found: dict[TaskId, LastFire] = {}
            for some in slices(list(tasks.items()), _UNIONS):
                one = f"SELECT {mark} AS `job_id`, {mark} AS `shard`, {mark} AS `early_ms`, {mark} AS `until_ms`"
                wanted = " UNION ALL ".join([one] * len(some))
                text = f"SELECT t.`job_id`, t.`shard`, {newest}, {generation} FROM ({wanted}) AS t"
                values = tuple(value for task, span in some for value in (task.job_id, task.shard, *span))
                for job_id, shard, fire_ms, number in conn.exec_driver_sql(text, values):
                    if fire_ms is not None or number is not None:
                        found[TaskId(job_id, shard)] = LastFire(fire_ms, number or 0)
            return found

        return self._db.read(body)

    def open_runs(self, tasks: Sequence[TaskId]) -> list[Run]:
        return self._db.read(lambda conn: self._of_tasks(conn, tasks, run_rows.ACTIVE_STATES))

    def lost_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        lost = (RunState.LOST.value,)
        return self._db.read(lambda conn: self._of_tasks(conn, tasks, lost, self._latest, (since_ms,)))

    def failed_runs(self, tasks: Sequence[TaskId], *, since_ms: int) -> list[Run]:
        failed = (RunState.FAILED.value, RunState.TIMED_OUT.value)
        return self._db.read(
            lambda conn: self._of_tasks(conn, tasks, failed, self._latest, (since_ms,), index="runs_by_job")
        )

    @property
    def _latest(self) -> str:
        """A condition: not older than a given fire time, and without a later attempt."""
        return (
            f" AND r.`fire_ms` >= {self._flavour.mark} AND NOT EXISTS (SELECT 1 FROM `runs` AS later"
            " WHERE later.`job_id` = r.`job_id` AND later.`shard` = r.`shard`"
            " AND later.`fire_ms` = r.`fire_ms` AND later.`attempt` > r.`attempt`)"
        )

    def pending(self, tasks: Sequence[TaskId]) -> list[Run]:
        return self._db.read(lambda conn: self._may_go(conn, tasks))

    def last_durations(self) -> dict[int, int]:
        text = (
            "SELECT h.`job_id`, r.`ended_ms` - r.`started_ms` FROM `job_heads` AS h JOIN `runs` AS r"
            " ON r.`job_id` = h.`job_id` AND r.`shard` = h.`shard` AND r.`fire_ms` = h.`fire_ms`"
            " AND r.`attempt` = h.`attempt` WHERE r.`started_ms` IS NOT NULL AND r.`ended_ms` IS NOT NULL"
        )
        return self._db.read(lambda conn: {int(job_id): int(took) for job_id, took in conn.exec_driver_sql(text)})

    def cancellations(self, worker: str) -> list[RunKey]:
        asked = self._db.read(lambda conn: self._of_worker(conn, worker, run_rows.ACTIVE_STATES, cancel_requested=True))
        return [run.key for run in asked]

    def _of_tasks(
        self,
        conn: Connection,
        tasks: Sequence[TaskId],
        states: Sequence[str],
        end: str = "",
        values: Row = (),
        *,
        index: str = "runs_by_state",
    ) -> list[Run]:
        """Return the tasks' runs in these states; never by way of the tasks' whole history."""
        wanted = set(tasks)
        found: list[Run] = []
        for some in slices(sorted({task.job_id for task in wanted})):
            text = (
                f"SELECT {_columns_of('r')} FROM `runs` AS r {self._flavour.using(index)}"
                f" WHERE r.`state` IN ({self._flavour.marks(len(states))})"
                f" AND r.`job_id` IN ({self._flavour.marks(len(some))}){end}"
            )
            found += self._runs(conn.exec_driver_sql(text, (*states, *some, *values)))
        return sorted((run for run in found if run.key.task in wanted), key=lambda run: run.key)

    def _may_go(self, conn: Connection, tasks: Sequence[TaskId]) -> list[Run]:
        """Return the tasks' pending runs; a backfill of thousands costs no more rows than may go at once.

        Workers ask again and again for all of their tasks, and mostly nothing waits: that is one question.
        """
        wanted = set(tasks)
        found: list[Run] = []
        waiting = select(_runs.c.job_id).distinct().where(_runs.c.state == RunState.PENDING.value)
        waiting = waiting.with_hint(_runs, "FORCE INDEX (runs_by_state)", "mysql")
        jobs = {task.job_id for task in wanted}.intersection(conn.execute(waiting).scalars())
        of_backfill = f"(r.`fence` > 0 AND r.`worker` = '' AND r.`trigger` = '{Trigger.MANUAL}')"
        for some in slices(sorted(jobs)):
            ranked = (
                f"SELECT {_columns_of('r')}, {of_backfill} AS `of_backfill`,"
                f" ROW_NUMBER() OVER (PARTITION BY r.`job_id`, r.`shard`, {of_backfill}"
                " ORDER BY r.`fire_ms`, r.`attempt`) AS `place`"
                f" FROM `runs` AS r {self._flavour.using('runs_by_state')}"
                f" WHERE r.`state` = '{RunState.PENDING}' AND r.`job_id` IN ({self._flavour.marks(len(some))})"
            )
            text = (
                f"SELECT {_columns_of('ranked')} FROM ({ranked}) AS ranked"
                " WHERE ranked.`of_backfill` = 0 OR ranked.`place` <= ranked.`fence`"
            )
            found += self._runs(conn.exec_driver_sql(text, tuple(some)))
        pending = [run for run in found if run.key.task in wanted]
        queued = sorted({run.key.task for run in pending if run.at_once})
        active = self._of_tasks(conn, queued, run_rows.ACTIVE_STATES) if queued else []
        return may_go(pending, active)

    def _of_worker(
        self,
        conn: Connection,
        worker: str,
        states: Sequence[str],
        *,
        lock: bool = False,
        cancel_requested: bool = False,
    ) -> list[Run]:
        asked = " AND `cancel_requested` = 1" if cancel_requested else ""
        text = (
            f"SELECT {names(run_rows.COLUMNS)} FROM `runs` {self._flavour.using('runs_by_state')}"
            f" WHERE `state` IN ({self._flavour.marks(len(states))}) AND `worker` = {self._flavour.mark}{asked}"
            f" ORDER BY {names(run_rows.KEY)} {self._flavour.locked() if lock else ''}"
        )
        return self._runs(conn.exec_driver_sql(text, (*states, worker)))

    def _old_keys(self, conn: Connection, before_ms: int, limit: int) -> list[Row]:
        """Return keys of runs that are over and older; never a job's last run, which its page links to."""
        mark = self._flavour.mark
        text = (
            f"SELECT r.`job_id`, r.`shard`, r.`fire_ms`, r.`attempt` FROM `runs` AS r"
            f" {self._flavour.using('runs_by_fire')} WHERE r.`fire_ms` < {mark}"
            f" AND r.`state` IN ({self._flavour.marks(len(run_rows.OVER_STATES))})"
            " AND NOT EXISTS (SELECT 1 FROM `job_heads` AS h"
            " WHERE h.`job_id` = r.`job_id` AND h.`fire_ms` = r.`fire_ms`)"
            f" ORDER BY r.`fire_ms` LIMIT {mark}"
        )
        return [tuple(row) for row in conn.exec_driver_sql(text, (before_ms, *run_rows.OVER_STATES, limit))]

    def _read_one(self, conn: Connection, key: RunKey, *, lock: bool = False) -> Run | None:
        query = select(*_COLUMNS).where(self._is(key))
        row = conn.execute(query.with_for_update() if lock else query).first()
        return None if row is None else run_rows.from_row(row)

    def _is(self, key: RunKey) -> ColumnElement[bool]:
        c = _runs.c
        task = and_(c.job_id == key.task.job_id, c.shard == key.task.shard)
        return and_(task, c.fire_ms == key.fire_ms, c.attempt == key.attempt)

    def _now(self, conn: Connection) -> int:
        return int(conn.exec_driver_sql(f"SELECT {self._flavour.now_ms}").scalar_one())

    def _runs(self, rows: Iterable[Any]) -> list[Run]:
        return read_rows(rows)


def read_rows(rows: Iterable[Any]) -> list[Run]:
    """Read the rows that can be read; one of a newer version must not hide the others."""
    found: list[Run] = []
    for row in rows:
        try:
            found.append(run_rows.from_row(row))
        except WireFormatError as exc:
            log.error("a run's row cannot be read and is left out", extra={"job": row[0], "error": str(exc)})
    return found


def _columns_of(alias: str) -> str:
    return ", ".join(f"{alias}.`{name}`" for name in run_rows.COLUMNS)
