"""Keeping the task znodes what MySQL says.

Nothing is ever signed here: a job's row and its tasks' znodes hold the same bytes, so healing is copying.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from cronkeeper.domain.ids import TaskId
from cronkeeper_manager.catalog import Catalog
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.observe import Observer, Snapshot
from cronkeeper_manager.signed_rows import alteration

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Jobs whose contents are compared in one turn, and in one request.
COMPARE_EACH_TURN = 250
#: Every job's contents are compared again after this long (or longer, where the rate does not allow it).
COMPARE_EVERY_S = 60.0
_CHUNK = 2000


def missing_tasks(snapshot: Snapshot) -> list[TaskId]:
    """Return the tasks of readable jobs that have no znode. PURE."""
    return sorted(set(snapshot.catalog.tasks).difference(snapshot.names))


def superfluous_tasks(snapshot: Snapshot) -> list[TaskId]:
    """Return the task znodes that nobody needs any more: no job wants them, nobody is given or owns them. PURE.

    A job that is not known may be newer than our last look at the jobs: it counts only after a full one.
    """
    catalog = snapshot.catalog
    candidates = set(snapshot.names).difference(catalog.tasks)
    if not candidates:
        return []
    held: set[TaskId] = set()
    for tasks in (*snapshot.assigned.values(), *snapshot.owned.values()):
        held |= candidates & tasks
    return sorted(
        task
        for task in candidates - held
        if task.job_id not in catalog.bad and (snapshot.full or task.job_id in catalog.rows)
    )


class Healer:
    """Puts task znodes right, a bounded amount each turn."""

    def __init__(self, leading: Leading, observer: Observer) -> None:
        self._leading = leading
        self._observer = observer
        self._seen = Catalog()
        #: Jobs whose contents are to be compared, as an ordered set.
        self._todo: dict[int, None] = {}
        self._round_s = leading.clock.boot_s()
        #: Jobs whose rows were told of as altered, and how.
        self._altered: dict[int, str] = {}
        #: The last snapshot that had every task's znode and no other.
        self._sound: Snapshot | None = None

    def heal(self, snapshot: Snapshot, *, budget_s: float) -> None:
        """One turn's worth, for about `budget_s` seconds at most. Raises UnavailableError or FencedError."""
        self._note_changes(snapshot)
        if not self._is_sound(snapshot):
            nothing_missing = self._put_missing(snapshot, budget_s)
            nothing_else = self._drop_superfluous(snapshot)
            self._sound = snapshot if nothing_missing and nothing_else else None
        self._compare(snapshot)

    def _is_sound(self, snapshot: Snapshot) -> bool:
        """Say whether the names need no checking, as neither they nor the jobs have changed since they were right."""
        sound = self._sound
        return (
            sound is not None
            and sound.catalog is snapshot.catalog
            and sound.names is snapshot.names
            and not snapshot.full
        )

    def _note_changes(self, snapshot: Snapshot) -> None:
        catalog, before = snapshot.catalog, self._seen
        if catalog is not before:
            changed = [job_id for job_id, row in catalog.rows.items() if before.rows.get(job_id) is not row]
            # What has changed goes first: somebody waits for it.
            self._todo = dict.fromkeys(changed) | self._todo
            self._seen = catalog
        if not self._todo and snapshot.now_s - self._round_s >= COMPARE_EVERY_S:
            self._round_s = snapshot.now_s
            self._todo = dict.fromkeys(catalog.rows)

    def _put_missing(self, snapshot: Snapshot, budget_s: float) -> bool:
        """Create the tasks that have no znode; say whether there were none."""
        missing, begun_s = missing_tasks(snapshot), self._leading.clock.boot_s()
        for some in chunked(missing, _CHUNK):
            envelopes = self._envelopes({task.job_id for task in some})
            self._leading.check()
            self._leading.coordinator.put_tasks({t: envelopes[t.job_id] for t in some if t.job_id in envelopes})
            self._count(some, "task znodes were missing", "znode.restored")
            if any(task.job_id not in envelopes for task in some):
                # Their rows are gone: the API server that removed them was quicker than our next look.
                self._observer.want_full()
            if self._leading.stopping() or self._leading.clock.boot_s() - begun_s > budget_s:
                break
        if missing:
            self._observer.note_change()
        return not missing

    def _drop_superfluous(self, snapshot: Snapshot) -> bool:
        """Drop what is not needed any more; say whether every znode is."""
        catalog = snapshot.catalog
        strangers = [task for task in snapshot.names if task not in catalog.tasks]
        if not snapshot.full and any(not catalog.is_known(task) for task in strangers):
            self._observer.want_full()
        if superfluous := superfluous_tasks(snapshot):
            self._leading.check()
            self._leading.coordinator.drop_tasks(superfluous)
            self._observer.note_change()
            self._count(superfluous, "task znodes were not needed any more", "znode.dropped")
        return not strangers

    def _compare(self, snapshot: Snapshot) -> None:
        jobs = list(self._todo)[:COMPARE_EACH_TURN]
        if not jobs:
            return
        # Znodes before rows: whoever writes both writes the row first, so what we copy is not older than what is there.
        tasks = [task for job_id in jobs for task in snapshot.catalog.tasks_of(job_id)]
        found = self._leading.coordinator.read_tasks(tasks)
        envelopes = self._envelopes(jobs)
        wrong = [task for task in tasks if task.job_id in envelopes and found.get(task) != envelopes[task.job_id]]
        if wrong:
            self._leading.check()
            # What is there and cannot be read was locked by somebody: it cannot be overwritten, only made anew.
            if locked := [task for task in wrong if task in snapshot.names and task not in found]:
                self._leading.coordinator.drop_tasks(locked)
            self._leading.coordinator.put_tasks({task: envelopes[task.job_id] for task in wrong})
            self._count(wrong, "task znodes were stale", "znode.healed")
        self._tell_altered(jobs)
        for job_id in jobs:
            del self._todo[job_id]

    def _tell_altered(self, jobs: Sequence[int]) -> None:
        """Tell of rows that say something else than their signed tasks: somebody wrote past the API."""
        for row in self._leading.mysql.call(lambda: self._leading.store.audit.signed(jobs)):
            why = alteration(row)
            if why and self._altered.get(row.job_id) != why:
                self._leading.metrics.altered.labels("job").inc()
                log.error("a job's row was changed", extra={"event": "job.altered", "job": row.job_id, "why": why})
                self._leading.notes.add("job.altered", str(row.job_id), why)
            if why:
                self._altered[row.job_id] = why
            else:
                self._altered.pop(row.job_id, None)

    def _envelopes(self, job_ids: Iterable[int]) -> dict[int, bytes]:
        wanted = sorted(job_ids)
        return self._leading.mysql.call(lambda: self._leading.store.jobs.envelopes(wanted))

    def _count(self, tasks: Sequence[TaskId], sentence: str, event: str) -> None:
        self._leading.metrics.healed.inc(len(tasks))
        log.info(sentence, extra={"event": event, "tasks": len(tasks), "first": str(tasks[0])})


def chunked(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
