"""Policies of namespaces, and the check of quotas within the transaction that writes jobs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, select, text

from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.quota import Quotas, Usage, excess, retry_after_s, window_of
from cronkeeper.errors import QuotaExceededError
from cronkeeper.ports import NamespacePolicy, NewJob, Weighing
from cronkeeper.store import schema
from cronkeeper.store.flavour import Flavour
from cronkeeper.store.script import Script
from cronkeeper.store.session import Database
from cronkeeper.store.trail import add_trail
from cronkeeper.wire.trail import Entry

_table, _jobs, _creates = schema.namespaces, schema.jobs, schema.creates
_QUOTAS = ("max_jobs", "max_fires_per_minute", "min_interval_s", "max_artifact_bytes", "max_creates_per_minute")
_COLUMNS = ("name", "run_as", *_QUOTAS, "updated_ms", "writes")


class SqlNamespaceStore:
    """See cronkeeper.ports.NamespaceStore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, name: str) -> NamespacePolicy:
        row = self._db.read(lambda conn: conn.execute(select(*_table.c).where(_table.c.name == name)).first())
        return NamespacePolicy(name) if row is None else _policy(row)

    def all(self) -> list[NamespacePolicy]:
        def body(conn: Connection) -> list[NamespacePolicy]:
            found = {row.name: _policy(row) for row in conn.execute(select(*_table.c))}
            held = conn.execute(select(_jobs.c.namespace).distinct()).scalars()
            return [found.get(name, NamespacePolicy(name)) for name in sorted({*found, *held})]

        return self._db.read(body)

    def save(self, policy: NamespacePolicy, *, trail: Sequence[Entry] = ()) -> None:
        bounds = [getattr(policy.quotas, quota) for quota in _QUOTAS]
        run_as = None if policy.run_as is None else json.dumps(list(policy.run_as))
        row = (policy.name, run_as, *bounds, policy.updated_ms or 0, 0)

        def body(conn: Connection) -> None:
            flavour = self._db.flavour
            flavour.insert(conn, _table, _COLUMNS, [row], flavour.replace_old(("name",), _COLUMNS[1:-1]))
            add_trail(conn, flavour, trail)

        self._db.transaction(body, repeatable=True)

    def usage(self, name: str, load_of: Callable[[str], float]) -> Usage:
        return self._db.read(lambda conn: _usage(conn, name, load_of))


class QuotaCheck:
    """Holds one transaction's write of jobs against the quotas of their namespaces: begin, write, end."""

    def __init__(self, script: Script, flavour: Flavour, weighing: Weighing) -> None:
        self._script = script
        self._flavour = flavour
        self._weighing = weighing
        self._before: dict[NamespacePolicy, Usage] = {}

    def begin(self, new: Sequence[NewJob], changed: Sequence[tuple[Job, int]]) -> None:
        """Wait for whoever else writes into these namespaces; count creations. Raises QuotaExceededError."""
        wanted = {*(item.namespace for item in new), *(job.spec.namespace for job, _ in changed)}
        for policy in self._locked(sorted(wanted)):
            self._count_creations(policy, [item.by for item in new if item.namespace == policy.name])
            self._before[policy] = self._usage(policy)

    def end(self) -> None:
        """Compare what there is now. Raises QuotaExceededError: the transaction must then be undone."""
        for policy, before in self._before.items():
            after = self._usage(policy)
            if found := excess(policy.quotas, before, after):
                raise QuotaExceededError(policy.name, found.quota, found.field, found.limit, found.wanted)

    def _usage(self, policy: NamespacePolicy) -> Usage:
        files = policy.quotas.max_artifact_bytes is not None
        return _usage(self._script.conn, policy.name, self._weighing.load_of, files=files)

    def _locked(self, names: Sequence[str]) -> list[NamespacePolicy]:
        """Return the policies with a bound that is counted, each row locked.

        By a write, not by a locking read: in a cluster only what was written collides with another server's write.
        """
        for name in names:
            # All of them before the first read: what is read must be what the others have committed.
            update = f"UPDATE `namespaces` SET `writes` = `writes` + 1 WHERE `name` = {self._flavour.mark}"
            self._script.conn.exec_driver_sql(update, (name,))
        rows = self._script.conn.execute(select(*_table.c).where(_table.c.name.in_(names)).order_by(_table.c.name))
        return [policy for policy in map(_policy, rows) if policy.quotas.counted]

    def _count_creations(self, policy: NamespacePolicy, by: Sequence[str]) -> None:
        limit = policy.quotas.max_creates_per_minute
        if limit is None or not by:
            return
        window = window_of(self._weighing.now_ms)
        for token, count in sorted(Counter(by).items()):
            key = (_creates.c.namespace == policy.name, _creates.c.token == token)
            row = self._script.conn.execute(select(_creates.c.minute, _creates.c.count).where(*key)).first()
            minute, before = (window, 0) if row is None else row
            wanted = count + (before if minute == window else 0)
            if wanted > limit:
                wait_s = retry_after_s(self._weighing.now_ms)
                raise QuotaExceededError(policy.name, "max_creates_per_minute", "namespace", limit, wanted, wait_s)
            values = {"minute": window, "count": wanted}
            if row is None:
                self._script.conn.execute(_creates.insert().values(namespace=policy.name, token=token, **values))
            else:
                self._script.conn.execute(_creates.update().where(*key).values(values))


def _policy(row: Any) -> NamespacePolicy:
    run_as = None if row.run_as is None else tuple(str(account) for account in json.loads(row.run_as))
    quotas = Quotas(*(getattr(row, quota) for quota in _QUOTAS))
    return NamespacePolicy(row.name, run_as, quotas, row.updated_ms)


def _usage(conn: Connection, name: str, load_of: Callable[[str], float], *, files: bool = True) -> Usage:
    """Add up what is there: a sum that is kept beside the rows would go wrong unnoticed.

    Plain reads: whoever writes into the namespace holds its policy's row.
    """
    size_of = "CASE WHEN JSON_VALID(`spec`) THEN JSON_EXTRACT(`spec`, '$.artifact.size') END" if files else "0"
    statement = text(
        f"SELECT `schedule`, COUNT(*), SUM(`shards`), SUM({size_of}) FROM `jobs`"
        " WHERE `namespace` = :name AND `state` <> :finished GROUP BY `schedule`"
    ).bindparams(name=name, finished=JobState.FINISHED.value)
    jobs, fires, size = 0, 0.0, 0
    for schedule, count, tasks, bytes_ in conn.execute(statement):
        jobs += int(count)
        fires += int(tasks) * load_of(schedule)
        size += int(bytes_ or 0)
    return Usage(jobs, fires, size)
