"""Telling people, once each: jobs that cannot be read, tasks without a worker, clocks that are wrong."""

from __future__ import annotations

import logging

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Lease
from cronkeeper_manager.leading import Notes
from cronkeeper_manager.observe import MAX_CLOCK_OFFSET_MS, Snapshot
from cronkeeper_manager.planner import Decision

log = logging.getLogger(__name__)

#: A clock that is further off than this is worth a warning.
CLOCK_WARNING_MS = 1_000
#: A witness that was silent for so long, while the other was not, is told of.
HALF_SEEN_AFTER_S = 30.0
FRESH_LEASE_MS = 15_000
#: A task without a worker is told of after so long: at a start, workers come one by one.
UNPLACED_AFTER_S = 30.0
#: More tasks than this are told of in one event.
_ONE_BY_ONE = 20


class Teller:
    """Remembers what it has told, for one leader."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._bad: dict[int, str] = {}
        self._twins: dict[str, str] = {}
        self._unplaced_since: dict[TaskId, float] = {}
        self._told_unplaced: set[TaskId] = set()
        self._skewed: set[str] = set()
        #: Workers of which one witness is silent -> since when, and what is told of it.
        self._half_seen: dict[str, tuple[float, str]] = {}
        self._told_half_seen: set[str] = set()

    def tell(self, snapshot: Snapshot, decision: Decision) -> None:
        """Note and log what is new."""
        self._tell_bad_jobs(snapshot)
        self._tell_twins(snapshot)
        self._tell_unplaced(snapshot, decision)
        self._tell_clocks(snapshot)
        self._tell_witnesses(snapshot)

    def _tell_bad_jobs(self, snapshot: Snapshot) -> None:
        for job_id, why in snapshot.catalog.bad.items():
            if self._bad.get(job_id) != why:
                log.error("a job cannot be read", extra={"event": "job.unreadable", "job": job_id, "error": why})
                self._notes.add("job.unreadable", str(job_id), why)
        self._bad = dict(snapshot.catalog.bad)

    def _tell_twins(self, snapshot: Snapshot) -> None:
        for worker, other in snapshot.catalog.twins.items():
            if self._twins.get(worker) != other:
                why = f"{other} has the same shard: no job with @reboot runs here; give it another worker_id"
                log.error("two workers have the same shard", extra={"event": "worker.twin", "worker": worker})
                self._notes.add("worker.twin", worker, why)
        self._twins = dict(snapshot.catalog.twins)

    def _tell_unplaced(self, snapshot: Snapshot, decision: Decision) -> None:
        since = self._unplaced_since
        self._unplaced_since = {task: since.get(task, snapshot.now_s) for task in decision.unplaced}
        self._told_unplaced &= decision.unplaced.keys()
        due_s = snapshot.now_s - UNPLACED_AFTER_S
        fresh = [t for t, at_s in self._unplaced_since.items() if at_s <= due_s and t not in self._told_unplaced]
        if not fresh:
            return
        self._told_unplaced.update(fresh)
        log.warning(
            "tasks have no worker", extra={"event": "task.unplaced", "tasks": len(fresh), "first": str(fresh[0])}
        )
        if len(fresh) > _ONE_BY_ONE:
            why = decision.unplaced[fresh[0]]
            self._notes.add("task.unplaced", "fleet", f"{len(fresh)} tasks have no worker, as {fresh[0]}: {why}")
            return
        for task in fresh:
            self._notes.add("task.unplaced", str(task), decision.unplaced[task])

    def _tell_clocks(self, snapshot: Snapshot) -> None:
        offsets = {w: lease.clock_offset_ms for w, lease in (snapshot.leases or {}).items() if w in snapshot.sessions}
        skewed = {worker for worker, offset in offsets.items() if abs(offset) > CLOCK_WARNING_MS}
        for worker in sorted(skewed - self._skewed):
            offset = offsets[worker]
            more = "; it is given nothing new" if abs(offset) > MAX_CLOCK_OFFSET_MS else ""
            log.warning("a clock is wrong", extra={"event": "worker.clock", "worker": worker, "offset_ms": offset})
            self._notes.add("worker.clock", worker, f"{offset} ms from the database's{more}")
        self._skewed = skewed

    def _tell_witnesses(self, snapshot: Snapshot) -> None:
        """Tell of workers that one store hears and the other does not: cut off from it, or a stranger's forgery."""
        if snapshot.leases is None:
            self._half_seen = {}
            return
        before = self._half_seen
        found = {w: why for w in snapshot.known if (why := half_seen(w in snapshot.sessions, snapshot.leases.get(w)))}
        self._half_seen = {w: (before[w][0] if w in before else snapshot.now_s, why) for w, why in found.items()}
        self._told_half_seen &= found.keys()
        for worker, (since_s, why) in sorted(self._half_seen.items()):
            if worker in self._told_half_seen or snapshot.now_s - since_s < HALF_SEEN_AFTER_S:
                continue
            self._told_half_seen.add(worker)
            log.warning("a witness of a worker is silent", extra={"event": "worker.half_seen", "worker": worker})
            self._notes.add("worker.half_seen", worker, why)


def half_seen(has_session: bool, lease: Lease | None) -> str:
    """Say which of a worker's two witnesses is silent while the other is not; an empty text where they agree. PURE."""
    heard = lease is not None and not lease.lost and lease.age_ms < FRESH_LEASE_MS
    if has_session and not heard:
        return "ZooKeeper has its session, and MySQL hears nothing of it"
    if heard and not has_session:
        return "MySQL hears of it, and ZooKeeper has no session of it"
    return ""
