"""What a leader does about lost workers: take their lease away, give their runs up, clear their znodes."""

from __future__ import annotations

import logging

from cronkeeper.domain.placement import Lease
from cronkeeper.domain.run import Reason
from cronkeeper.errors import UnavailableError
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.liveness import Judgement, Verdict, spare
from cronkeeper_manager.observe import Observer, Snapshot

log = logging.getLogger(__name__)


class Burial:
    """One leader's dealings with the lost. A new leader does it all again, which changes nothing twice."""

    def __init__(self, leading: Leading, observer: Observer) -> None:
        self._leading = leading
        self._observer = observer
        #: Lost workers whose runs were given up.
        self._given_up: set[str] = set()

    def confirm(self, judgement: Judgement, before: frozenset[str], snapshot: Snapshot) -> Judgement:
        """Take away the leases of those that are newly lost; return the judgement without those that were quicker."""
        for worker in sorted(judgement.memory.lost - before):
            lease = None if snapshot.leases is None else snapshot.leases.get(worker)
            if lease is not None and lease.lost:
                # An earlier leader has told everybody.
                log.info("a worker is still lost", extra={"event": "worker.still_lost", "worker": worker})
            elif lease is None or self._take_lease(lease):
                log.warning("a worker is lost", extra={"event": "worker.lost", "worker": worker})
                self._leading.notes.add("worker.lost", worker, "neither its session nor its lease is alive")
            else:
                judgement = spare(judgement, worker)
        self._given_up &= judgement.memory.lost
        return judgement

    def bury(self, judgement: Judgement, snapshot: Snapshot) -> bool:
        """Give up the runs of the lost and clear their znodes; say whether anything was cleared.

        The runs come first: a task's next owner looks for lost runs when it takes over.
        """
        lost = [worker for worker, verdict in sorted(judgement.verdicts.items()) if verdict is Verdict.LOST]
        cleared = False
        for worker in lost:
            if worker not in self._given_up and self._leading.mysql.available:
                self._give_up_runs(worker)
            if worker in snapshot.assigned or worker in snapshot.owned:
                self._leading.coordinator.clear_worker(worker, self._leading.leadership)
                self._observer.keep_cleared(worker)
                cleared = True
        return cleared

    def _take_lease(self, lease: Lease) -> bool:
        """Move the lease by compare-and-set; False when the worker renewed it meanwhile, or nobody can tell."""
        leading = self._leading
        stale_ms = round(leading.liveness.lease_stale_s * 1000)
        try:
            return leading.mysql.call(
                lambda: leading.store.leases.declare_lost(
                    lease.worker, incarnation=lease.incarnation, stale_ms=stale_ms, term=leading.term
                )
            )
        except UnavailableError:
            return False

    def _give_up_runs(self, worker: str) -> None:
        leading = self._leading
        # What it began by ZooKeeper's fence while MySQL was away from it is to be lost (and run again) like the rest.
        notes = leading.coordinator.claims(worker)
        if notes:
            leading.mysql.call(lambda: leading.store.runs.record([note.as_run(key) for key, note in notes.items()]))
        lost = leading.mysql.call(
            lambda: leading.store.runs.lose(worker, term=leading.term, reason=Reason.WORKER_LOST.value)
        )
        self._given_up.add(worker)
        if lost:
            leading.metrics.lost_runs.inc(len(lost))
            log.warning("runs were lost", extra={"event": "runs.lost", "worker": worker, "runs": len(lost)})
            leading.notes.add("runs.lost", worker, f"{len(lost)} runs, the first {lost[0].id}")
