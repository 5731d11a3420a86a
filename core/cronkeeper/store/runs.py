"""The ledger: claims, reports, requests. Reading is in run_reads.py, output in run_output.py."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Reason, Run, RunEvent, RunState, advance, outweighs
from cronkeeper.errors import ConflictError, NotFoundError, UnavailableError, UnknownOutcomeError
from cronkeeper.ports import RequestKey
from cronkeeper.store import run_rows, schema
from cronkeeper.store.failures import note_failures
from cronkeeper.store.flavour import Row, chunks, names, slices
from cronkeeper.store.notes import note_saved
from cronkeeper.store.run_output import RunOutput
from cronkeeper.store.run_reads import RunReads
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry


class SqlRunStore(RunReads, RunOutput):
    """See cronkeeper.ports.RunStore."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._record_end = run_rows.record_end(db.flavour)
        self._head_end = run_rows.head_end(db.flavour)
        mark = db.flavour.mark
        self._claim_alone = (
            f"INSERT INTO `runs` ({names(run_rows.COLUMNS)}) SELECT {db.flavour.marks(len(run_rows.COLUMNS))}"
            f" {db.flavour.from_nothing} WHERE NOT EXISTS (SELECT 1 FROM `assignments` WHERE `job_id` = {mark}"
            f" AND `shard` = {mark} AND `worker` NOT IN ('', {mark}) AND `epoch` > {mark})"
        )

    def claim(self, runs: Sequence[Run]) -> dict[RunKey, bool]:
        asked = False
        if len(runs) == 1:
            try:
                if self._is_granted_alone(runs[0]):
                    return {runs[0].key: True}
            except UnknownOutcomeError:
                asked = True
        nonces = {run.key: run.nonce for run in runs}
        owners: dict[RunKey, str] = {}
        outdated = self._outdated(runs)
        if outdated:
            kept = self._db.read(lambda conn: self._owners(conn, sorted(outdated)))
            owners |= {key: kept.get(key, "") for key in outdated}
            runs = [run for run in runs if run.key not in outdated]
        owners |= self._take(runs, asked=asked)
        return {key: owners.get(key, nonce) == nonce for key, nonce in nonces.items()}

    def record(self, runs: Sequence[Run]) -> list[RunKey]:
        astray = self._outdated([run for run in runs if run.is_skip], after_assignment=True)
        runs = [run for run in runs if not (run.is_skip and run.key in astray)]
        # Of several reports of one run the last one counts.
        reported = {run.key: run for run in runs}
        foreign: list[RunKey] = []
        # Sorting is stable: several reports of one run stay in their order.
        for rows in chunks([run_rows.to_row(run) for run in sorted(runs, key=lambda run: run.key)]):
            foreign += self._record(rows, reported)
        return foreign

    def request(self, *runs: Run, trail: Sequence[Entry] = (), request: RequestKey | None = None) -> None:
        def body(conn: Connection) -> None:
            for rows in chunks([run_rows.to_row(run) for run in runs]):
                try:
                    self._flavour.insert(conn, schema.runs, run_rows.COLUMNS, rows)
                except IntegrityError as exc:
                    raise ConflictError("one of these runs is there already") from exc
            add_trail(conn, self._flavour, trail)
            if request is not None:
                note_saved(conn, request, [run.id for run in runs])

        def landed(conn: Connection) -> bool:
            # All or nothing, so the first one tells.
            stored = self._read_one(conn, runs[0].key, lock=True)
            return stored is not None and (stored.nonce, stored.trigger) == (runs[0].nonce, runs[0].trigger)

        self._db.transaction(body, landed=landed)

    def request_many(self, runs: Sequence[Run], *, trail: Sequence[Entry] = ()) -> dict[RunKey, bool]:
        if trail:
            self._db.transaction(lambda conn: add_trail(conn, self._flavour, trail), repeatable=True)
        owners = self._take(runs)
        return {run.key: owners.get(run.key, run.nonce) == run.nonce for run in runs}

    def claim_pending(self, run: Run) -> bool:
        values = {
            "state": run.state.value,
            "worker": run.worker,
            "nonce": run.nonce,
            "generation": run.generation,
            "fence": run.fence,
            "claimed_ms": run.claimed_ms,
            "autonomous": int(run.autonomous),
        }
        table = schema.runs
        claimable = table.c.state.in_(run_rows.CLAIMABLE_STATES)
        update = table.update().where(self._is(run.key), claimable).values(values)

        def body(conn: Connection) -> bool:
            if conn.execute(update).rowcount == 1:
                return True
            stored = self._read_one(conn, run.key)
            # An earlier call may have done it whose answer was lost.
            over = (RunState.PENDING, RunState.LOST)
            return stored is not None and stored.nonce == run.nonce and stored.state not in over

        return self._db.statement(body, repeatable=True)

    def request_cancel(self, key: RunKey, *, trail: Sequence[Entry] = ()) -> Run:
        def body(conn: Connection) -> Run:
            stored = self._read_one(conn, key, lock=True)
            if stored is None:
                raise NotFoundError(f"there is no run {key}")
            if stored.state.value in run_rows.OVER_STATES:
                raise ConflictError(f"run {key} is over: {stored.state}")
            asked = stored.evolve(cancel_requested=True)
            if stored.state is RunState.PENDING:
                state = advance(stored.state, RunEvent.CANCEL)
                asked = asked.evolve(state=state, reason=Reason.REQUESTED, ended_ms=self._now(conn))
            changes = dict(zip(run_rows.COLUMNS, run_rows.to_row(asked), strict=True))
            kept = {name: changes[name] for name in ("state", "reason", "ended_ms", "cancel_requested")}
            conn.execute(schema.runs.update().where(self._is(key)).values(kept))
            add_trail(conn, self._flavour, trail)
            return asked

        def landed(conn: Connection) -> bool:
            stored = self._read_one(conn, key, lock=True)
            return stored is not None and stored.cancel_requested

        return self._db.transaction(body, landed=landed)

    def lose(self, worker: str, *, term: int, reason: str) -> list[Run]:
        why = Reason(reason)

        def body(conn: Connection) -> list[Run]:
            hold_term(conn, self._flavour, term)
            given_up = [
                run.evolve(state=advance(run.state, RunEvent.LOSE), reason=why)
                for run in self._of_worker(conn, worker, run_rows.LOSABLE_STATES, lock=True)
            ]
            self._lose(conn, given_up)
            return given_up

        def landed(conn: Connection) -> bool:
            # Whoever is not active any more is lost, or has told the truth since.
            return not self._of_worker(conn, worker, run_rows.LOSABLE_STATES, lock=True)

        return self._db.transaction(body, landed=landed)

    def give_up(self, runs: Sequence[Run]) -> list[RunKey]:
        lost: list[RunKey] = []
        for some in slices(sorted(runs, key=lambda run: run.key)):
            lost += self._db.transaction(functools.partial(self._give_up, runs=some), repeatable=True)
        return lost

    def purge(self, *, before_ms: int, limit: int) -> int:
        removed = 0
        while removed < limit:
            wanted = min(limit - removed, 500)
            some = functools.partial(self._purge, before_ms=before_ms, limit=wanted)
            count = self._db.transaction(some, repeatable=True)
            removed += count
            if count < wanted:
                break
        self._db.transaction(lambda conn: self._purge_notes(conn, before_ms), repeatable=True)
        return removed

    def _is_granted_alone(self, run: Run) -> bool:
        """Insert the row if it is missing and the task nobody else's since: one question, where a fire is due alone.

        False says nothing: whoever wants to know asks for both, one after the other.
        """
        task = run.key.task
        values = (*run_rows.to_row(run), task.job_id, task.shard, run.worker, run.fence)

        def body(conn: Connection) -> bool:
            try:
                return conn.exec_driver_sql(self._claim_alone, values).rowcount == 1
            except IntegrityError:
                return False

        return self._db.statement(body)

    def _outdated(self, runs: Sequence[Run], *, after_assignment: bool = False) -> set[RunKey]:
        """Return the runs of workers whose task was given to another one since; or only those for fires after that.

        Not a fence, as the row may be older on another member of a Galera cluster; but a worker that comes back late
        is stopped by it even where the present owner cannot reach MySQL, and was granted the fire by ZooKeeper.
        """
        tasks = {(run.key.task.job_id, run.key.task.shard) for run in runs}
        found: dict[Row, tuple[str, int, int]] = {}
        for some in slices(sorted(tasks)):
            among = self._flavour.among(("job_id", "shard"), len(some))
            text = f"SELECT `job_id`, `shard`, `worker`, `epoch`, `assigned_ms` FROM `assignments` WHERE {among}"
            values = tuple(value for task in some for value in task)
            for row in self._db.read(lambda conn: conn.exec_driver_sql(text, values).all()):  # noqa: B023
                found[tuple(row[:2])] = (row[2], row[3], row[4])
        outdated = set()
        for run in runs:
            worker, epoch, assigned_ms = found.get((run.key.task.job_id, run.key.task.shard), ("", 0, 0))
            theirs = not after_assignment or run.key.fire_ms > assigned_ms
            if worker not in ("", run.worker) and epoch > run.fence and theirs:
                outdated.add(run.key)
        return outdated

    def _take(self, runs: Sequence[Run], *, asked: bool = False) -> dict[RunKey, str]:
        """Insert rows that are missing; return the nonces of at least those that were there.

        With `asked`, it was tried already, and the answer was lost.
        """
        owners: dict[RunKey, str] = {}
        # All claimants go through the keys in the same order, or they would wait for each other in a circle.
        for rows in chunks([run_rows.to_row(run) for run in sorted(runs, key=lambda run: run.key)]):
            owners |= self._claim(rows, asked)
        return owners

    def _claim(self, rows: Sequence[Row], asked: bool) -> dict[RunKey, str]:
        """Insert rows that are missing; return the nonces of those that were there, or of all."""
        if not asked:
            with contextlib.suppress(UnknownOutcomeError):
                return self._db.statement(lambda conn: self._insert_claims(conn, rows))
        # Whatever came of it, inserting what is missing and reading the nonces back says whose the rows are.
        try:
            return self._db.statement(lambda conn: self._insert_missing(conn, rows, synced=True))
        except UnknownOutcomeError as exc:
            raise UnavailableError("the database does not answer; claim again with the same nonces") from exc

    def _insert_claims(self, conn: Connection, rows: Sequence[Row]) -> dict[RunKey, str]:
        # A plain INSERT, all or nothing: the one statement that a claim costs when nobody else wants any of it.
        try:
            self._flavour.insert(conn, schema.runs, run_rows.COLUMNS, rows)
        except IntegrityError:
            return self._insert_missing(conn, rows)
        return {}

    def _insert_missing(self, conn: Connection, rows: Sequence[Row], *, synced: bool = False) -> dict[RunKey, str]:
        if synced:
            self._db.synced(conn)
        self._flavour.insert(conn, schema.runs, run_rows.COLUMNS, rows, self._flavour.keep_old("nonce"))
        return self._owners(conn, [run_rows.key_of(row[:4]) for row in rows])

    def _owners(self, conn: Connection, keys: Sequence[RunKey]) -> dict[RunKey, str]:
        """Return whose rows these are, by nonce."""
        found = self._select(conn, names((*run_rows.KEY, "nonce", "state")), keys)
        # A claim that the leader has given up is nobody's: a later attempt may be under way elsewhere.
        return {run_rows.key_of(row[:4]): "" if row[5] == RunState.LOST else row[4] for row in found}

    def _record(self, rows: Sequence[Row], reported: Mapping[RunKey, Run]) -> list[RunKey]:
        flavour = self._flavour
        keys = list(dict.fromkeys(run_rows.key_of(row[:4]) for row in rows))

        def body(conn: Connection) -> list[RunKey]:
            flavour.insert(conn, schema.runs, run_rows.COLUMNS, rows, self._record_end)
            stored = self._stored(conn, [reported[key] for key in keys])
            stored = [self._replace_skipped(conn, run, reported[run.key]) for run in stored]
            ours = [run for run in stored if run.nonce == reported[run.key].nonce]
            self._move_heads(conn, ours)
            note_failures(conn, flavour, ours)
            return sorted(run.key for run in stored if run.nonce != reported[run.key].nonce)

        return self._db.transaction(body, repeatable=True)

    def _stored(self, conn: Connection, reported: Sequence[Run]) -> list[Run]:
        """Return these runs, which are ordered by key, as the table has them now.

        To read a row's 20 values costs more than to write it. Where those are as reported that tell whose it is and how
        far it has come, the rest is not asked for.
        """
        told = [(run.nonce, run.state.value, run.started_ms, run.ended_ms) for run in reported]
        columns = names(("nonce", "state", "started_ms", "ended_ms"))
        found = self._select(conn, columns, [run.key for run in reported], f"ORDER BY {names(run_rows.KEY)}")
        same = [tuple(row) == one for row, one in zip(found, told, strict=False)]
        as_told = [run for run, one in zip(reported, same, strict=False) if one]
        if len(as_told) == len(reported):
            return as_told
        kept = {run.key for run in as_told}
        others = [run.key for run in reported if run.key not in kept]
        return [*as_told, *self._runs(self._select(conn, names(run_rows.COLUMNS), others))]

    def _select(self, conn: Connection, columns: str, keys: Sequence[RunKey], end: str = "") -> Sequence[Any]:
        among = self._flavour.among(run_rows.KEY, len(keys))
        text = f"SELECT {columns} FROM `runs` {self._flavour.by_key()} WHERE {among} {end}"
        return conn.exec_driver_sql(text, tuple(value for key in keys for value in run_rows.key_row(key))).all()

    def _replace_skipped(self, conn: Connection, stored: Run, reported: Run) -> Run:
        """Return the row as it is afterwards: a worker that was cut off did run what another one has skipped."""
        if not outweighs(reported, stored):
            return stored
        values = dict(zip(run_rows.COLUMNS, run_rows.to_row(reported), strict=True))
        skipped = schema.runs.c.state == RunState.SKIPPED.value
        conn.execute(schema.runs.update().where(self._is(stored.key), skipped).values(values))
        return reported

    def _give_up(self, conn: Connection, runs: Sequence[Run]) -> list[RunKey]:
        reasons = {(run.key, run.nonce): run.reason for run in runs}
        text = (
            f"SELECT {names(run_rows.COLUMNS)} FROM `runs` {self._flavour.by_key()}"
            f" WHERE {self._flavour.among(run_rows.KEY, len(runs))} {self._flavour.locked()}"
        )
        stored = self._runs(
            conn.exec_driver_sql(text, tuple(value for run in runs for value in run_rows.key_row(run.key)))
        )
        ours = [run for run in stored if (run.key, run.nonce) in reasons]
        lost = [
            run.evolve(state=advance(run.state, RunEvent.LOSE), reason=reasons[run.key, run.nonce])
            for run in ours
            if run.state is RunState.CLAIMED
        ]
        self._lose(conn, lost)
        return sorted(run.key for run in ours if run.state in (RunState.CLAIMED, RunState.LOST))

    def _lose(self, conn: Connection, lost: Sequence[Run]) -> None:
        """Write these runs, which are locked, as lost."""
        by_reason: dict[str | None, list[Run]] = {}
        for run in lost:
            by_reason.setdefault(None if run.reason is None else run.reason.value, []).append(run)
        for reason, group in by_reason.items():
            for some in slices(group):
                text = (
                    f"UPDATE `runs` SET `state` = '{RunState.LOST}', `reason` = {self._flavour.mark}"
                    f" WHERE {self._flavour.among(run_rows.KEY, len(some))}"
                )
                keys = [value for run in some for value in run_rows.key_row(run.key)]
                conn.exec_driver_sql(text, (reason, *keys))
                self._move_heads(conn, some)
        note_failures(conn, self._flavour, lost)

    def _move_heads(self, conn: Connection, runs: Sequence[Run]) -> None:
        if heads := run_rows.newest_heads(runs):
            self._flavour.insert(conn, schema.job_heads, run_rows.HEAD, heads, self._head_end)

    def _purge(self, conn: Connection, before_ms: int, limit: int) -> int:
        keys = self._old_keys(conn, before_ms, limit)
        if not keys:
            return 0
        values = tuple(value for key in keys for value in key)
        for table in ("run_output", "runs"):
            conn.exec_driver_sql(f"DELETE FROM `{table}` WHERE {self._flavour.among(run_rows.KEY, len(keys))}", values)
        return len(keys)

    def _purge_notes(self, conn: Connection, before_ms: int) -> None:
        """Events and remembered answers grow with the ledger and go with it."""
        conn.execute(schema.events.delete().where(schema.events.c.at_ms < before_ms))
        conn.execute(schema.idempotency.delete().where(schema.idempotency.c.created_ms < before_ms))
