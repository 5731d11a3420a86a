"""Failures, and the jobs that are paused for them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, literal, select, tuple_

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import JobState
from cronkeeper.domain.run import UNSUCCESSFUL, Run
from cronkeeper.store import run_rows, schema
from cronkeeper.store.flavour import Flavour, slices
from cronkeeper.store.job_versions import remember_jobs, touch
from cronkeeper.store.run_reads import read_rows
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term

_jobs, _failing, _runs = schema.jobs, schema.failing, schema.runs


class SqlFailureStore:
    """See cronkeeper.ports.FailureStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def noted(self, *, limit: int) -> dict[int, str]:
        query = select(_failing.c.job_id, _failing.c.nonce).order_by(_failing.c.job_id).limit(limit)
        return {int(job_id): nonce for job_id, nonce in self._db.read(lambda conn: conn.execute(query).all())}

    def settle(self, seen: Mapping[int, str], *, term: int) -> None:
        rows = sorted(seen.items())
        flavour = self._db.flavour

        def body(conn: Connection) -> None:
            hold_term(conn, flavour, term)
            for some in slices(rows):
                among = flavour.among(("job_id", "nonce"), len(some))
                values = tuple(value for row in some for value in row)
                conn.exec_driver_sql(f"DELETE FROM `failing` WHERE {among}", values)

        if rows:
            self._db.transaction(body, repeatable=True)

    def ends(self, job_id: int, *, after_ms: int, limit: int, before: RunKey | None = None) -> list[Run]:
        c = _runs.c
        columns = [literal("").label(name) if name == "output_tail" else c[name] for name in run_rows.COLUMNS]
        query = select(*columns).where(c.job_id == job_id, c.fire_ms > after_ms)
        if before is not None:
            place = (before.fire_ms, before.task.shard, before.attempt)
            query = query.where(c.fire_ms <= before.fire_ms, tuple_(c.fire_ms, c.shard, c.attempt) < place)
        query = query.order_by(c.fire_ms.desc(), c.shard.desc(), c.attempt.desc()).limit(limit)
        query = query.with_hint(_runs, "FORCE INDEX (runs_by_job)", "mysql")
        return self._db.read(lambda conn: read_rows(conn.execute(query)))

    def pause(self, job_id: int, *, generation: int, reason: str, term: int) -> bool:
        flavour, mark = self._db.flavour, self._db.flavour.mark
        text = (
            f"UPDATE `jobs` SET `state` = '{JobState.PAUSED}', `paused_generation` = {mark}, `state_reason` = {mark},"
            f" {touch(flavour)} WHERE `id` = {mark} AND `generation` = {mark} AND `state` = '{JobState.ACTIVE}'"
        )

        def body(conn: Connection) -> bool:
            hold_term(conn, flavour, term)
            if conn.exec_driver_sql(text, (generation, reason, job_id, generation)).rowcount == 1:
                remember_jobs(conn, flavour, [job_id])
                return True
            # An earlier call may have done it whose answer was lost.
            query = select(_jobs.c.state, _jobs.c.paused_generation)
            row = conn.execute(query.where(_jobs.c.id == job_id, _jobs.c.generation == generation)).first()
            return row is not None and (row.state, row.paused_generation) == (JobState.PAUSED.value, generation)

        return self._db.transaction(body, repeatable=True)


def note_failures(conn: Connection, flavour: Flavour, runs: Iterable[Run]) -> None:
    """Note, as part of a transaction, the jobs among these runs that have failed, if a leader acts on it."""
    failed = {run.key.task.job_id for run in runs if run.state in UNSUCCESSFUL}
    for some in slices(sorted(failed)):
        concerned = select(_jobs.c.id).where(_jobs.c.id.in_(some), _jobs.c.watched == 1).order_by(_jobs.c.id)
        rows = [(job_id, secrets.token_hex(16)) for job_id in conn.execute(concerned).scalars()]
        if rows:
            flavour.insert(conn, _failing, ("job_id", "nonce"), rows, flavour.replace_old(("job_id",), ("nonce",)))
