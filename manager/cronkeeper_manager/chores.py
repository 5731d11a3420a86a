"""What a leader does now and then: finish jobs, purge history, tidy the queue and the move requests, know the nodes.

What it tells people about is in `telling.py`.

Every chore is bounded, needs MySQL, and may be interrupted anywhere: the next leader begins it again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.placement import NodeInfo, WorkerInfo
from cronkeeper.domain.run import Run
from cronkeeper.errors import NotFoundError, WireFormatError
from cronkeeper.ports import JobQuery
from cronkeeper_manager.endings import has_no_fire_left, is_over, is_queue_entry_over, last_fire_within_grace
from cronkeeper_manager.failures import Failures
from cronkeeper_manager.holiday_watch import HolidayWatch
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.observe import Observer, Snapshot
from cronkeeper_manager.planner import Decision, settle_requests
from cronkeeper_manager.row_watch import RowWatch
from cronkeeper_manager.telling import Teller
from cronkeeper_manager.trail_keeper import TrailKeeper
from cronkeeper_manager.world import World

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_FAILURES_EVERY_S = 1.0
_FINISH_EVERY_S = 5.0
#: Jobs looked at in one go: those that fire once and are due, and the next page of all others.
_FINISH_EACH = 200
_PURGE_EVERY_S = 60.0
_PURGE_EACH = 2000
_QUEUE_EVERY_S = 10.0
_QUEUE_EACH = 200
_NODES_EACH = 100


class Chores:
    """Called each turn; each chore knows when it is due."""

    def __init__(self, leading: Leading, observer: Observer) -> None:
        self._leading = leading
        self._observer = observer
        self._due_s: dict[str, float] = {}
        self._page_after = 0
        self._once_after = 0
        self._teller = Teller(leading.notes)
        self._trail = TrailKeeper(leading)
        self._rows = RowWatch(leading)
        self._failures = Failures(leading)
        self._holidays = HolidayWatch(leading.store, leading.notes, leading.metrics)

    def work(self, snapshot: Snapshot, world: World, decision: Decision) -> None:
        """Do what is due. Raises UnavailableError or FencedError."""
        self._teller.tell(snapshot, decision)
        self._settle_requests(snapshot, world)
        self._keep_nodes(snapshot)
        if self._is_due("failures", _FAILURES_EVERY_S, snapshot):
            self._failures.work(snapshot.now_ms, world)
        if self._is_due("finish", _FINISH_EVERY_S, snapshot):
            self._finish(snapshot)
        if self._is_due("queue", _QUEUE_EVERY_S, snapshot):
            self._tidy_queue(snapshot)
        if self._is_due("purge", _PURGE_EVERY_S, snapshot):
            self._purge(snapshot)
        if snapshot.full:
            self._forget_removed(snapshot)
        self._trail.work(snapshot)
        self._rows.work(snapshot)

    def _is_due(self, chore: str, every_s: float, snapshot: Snapshot) -> bool:
        if snapshot.now_s < self._due_s.get(chore, 0.0):
            return False
        self._due_s[chore] = snapshot.now_s + every_s
        return True

    # -- jobs

    def _finish(self, snapshot: Snapshot) -> None:
        for job_id in self._next_once(snapshot):
            try:
                job = self._leading.mysql.call(lambda: self._leading.store.jobs.get(job_id))  # noqa: B023
            except (NotFoundError, WireFormatError):
                continue
            self._finish_if_over(job, snapshot.now_ms)
        query = JobQuery(limit=_FINISH_EACH, after=self._page_after)
        page = self._leading.mysql.call(lambda: self._leading.store.jobs.page(query))
        for job in page:
            self._finish_if_over(job, snapshot.now_ms)
        self._holidays.look(page, snapshot.now_ms)
        self._page_after = page[-1].id if len(page) == _FINISH_EACH else 0
        if not self._page_after:
            self._leading.mysql.call(lambda: self._holidays.end_round(snapshot.now_ms))

    def _next_once(self, snapshot: Snapshot) -> list[int]:
        """Return the next jobs that fire once and were due; round and round, so that none waits for ever."""
        due = sorted(job_id for job_id, at_ms in snapshot.catalog.once.items() if at_ms <= snapshot.now_ms)
        later = [job_id for job_id in due if job_id > self._once_after]
        chosen = (later or due)[:_FINISH_EACH]
        self._once_after = chosen[-1] if chosen else 0
        return chosen

    def _finish_if_over(self, job: Job, now_ms: int) -> None:
        if job.state is not JobState.ACTIVE:
            return
        try:
            if not has_no_fire_left(job, now_ms):
                return
            last_due_ms = last_fire_within_grace(job, now_ms)
        except (ValueError, ArithmeticError, LookupError) as exc:
            # Written by hand or by a newer version: one bad job must not stop the others.
            log.error("a job's end cannot be told", extra={"event": "job.unreadable", "job": job.id, "error": str(exc)})
            return
        store, mysql = self._leading.store, self._leading.mysql
        tasks = job.tasks()
        runs = [] if last_due_ms is None else mysql.call(lambda: store.runs.at(job.id, last_due_ms))
        open_runs = mysql.call(lambda: store.runs.open_runs(tasks)) + mysql.call(lambda: store.runs.pending(tasks))
        if not is_over(job, last_due_ms, runs, open_runs):
            return
        self._leading.check()
        if mysql.call(lambda: store.jobs.mark_finished(job.id, generation=job.generation)):
            log.info("a job has finished", extra={"event": "job.finished", "job": job.id})
            self._leading.notes.add("job.finished", str(job.id), "its schedule has no fire left")

    def _forget_removed(self, snapshot: Snapshot) -> None:
        """Drop the copies of jobs that are gone for good and that nobody holds any more."""
        catalog = snapshot.catalog
        gone = {task for task in set(snapshot.copies).difference(catalog.tasks) if not catalog.is_known(task)}
        for tasks in (*snapshot.assigned.values(), *snapshot.owned.values()):
            gone -= tasks
        if gone:
            jobs = sorted({task.job_id for task in gone})
            self._leading.mysql.call(lambda: self._leading.store.assignments.forget(jobs, term=self._leading.term))
            self._observer.forget_copies(gone)

    # -- wishes and runs on demand

    def _settle_requests(self, snapshot: Snapshot, world: World) -> None:
        if not snapshot.requests:
            return
        fulfilled, impossible = settle_requests(world)
        for task, why in impossible.items():
            log.warning(
                "a move request is impossible", extra={"event": "move.impossible", "task": str(task), "why": why}
            )
            self._leading.notes.add("move.impossible", str(task), why)
        for task in fulfilled:
            self._leading.notes.add("move.fulfilled", str(task), f"it is on {world.requests[task]} now")
        if done := sorted(fulfilled | impossible.keys()):
            self._leading.mysql.call(
                lambda: self._leading.store.move_requests.drop(done, term=self._leading.term),
            )

    def _tidy_queue(self, snapshot: Snapshot) -> None:
        for item in self._leading.coordinator.queued(watch=True)[:_QUEUE_EACH]:
            run = self._run_of(item.key)
            if is_queue_entry_over(run, item.key.fire_ms, snapshot.now_ms):
                self._leading.check()
                self._leading.coordinator.consume(item.key)

    def _run_of(self, key: RunKey) -> Run | None:
        try:
            return self._leading.mysql.call(lambda: self._leading.store.runs.get(key))
        except NotFoundError:
            return None

    def _purge(self, snapshot: Snapshot) -> None:
        before_ms = snapshot.now_ms - self._leading.runs_keep_days * _DAY_MS
        self._leading.check()
        count = self._leading.mysql.call(
            lambda: self._leading.store.runs.purge(before_ms=before_ms, limit=_PURGE_EACH),
        )
        if count:
            log.info("old runs were removed", extra={"event": "runs.purged", "runs": count})
        if count >= _PURGE_EACH:
            self._due_s["purge"] = snapshot.now_s + 1.0

    # -- nodes

    def _keep_nodes(self, snapshot: Snapshot) -> None:
        """Keep in ZooKeeper what each worker last said of itself, for when it is away, and what is wanted of it."""
        said = {name: info for name, info in snapshot.sessions.items() if not _is_kept(info, snapshot)}
        names = sorted(said.keys() | snapshot.stale_nodes)[:_NODES_EACH]
        if not names:
            return
        self._leading.check()
        nodes = self._leading.coordinator.nodes()
        for name in names:
            # As it is now: an admin may be cordoning it just now.
            node = nodes.get(name, NodeInfo(name))
            if name in snapshot.stale_nodes:
                wanted = snapshot.nodes[name]
                node = replace(node, cordoned=wanted.cordoned, draining=wanted.draining)
            self._leading.coordinator.save_node(replace(node, last=said.get(name, node.last)))


def _is_kept(info: WorkerInfo, snapshot: Snapshot) -> bool:
    return info.id in snapshot.nodes and snapshot.nodes[info.id].last == info
