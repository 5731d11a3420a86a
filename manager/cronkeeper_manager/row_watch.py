"""The leader's look at rows that were changed past the API: jobs, tokens, cordons. What counts is in `vouching.py`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from cronkeeper.ports import PlanRow, Token, TrailQuery
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.observe import Snapshot
from cronkeeper_manager.service.denials import is_identity
from cronkeeper_manager.vouching import (
    cordon_fault,
    identity_fault,
    last_entries,
    may_be_asked_for,
    node_fault,
    state_change,
    token_fault,
)

log = logging.getLogger(__name__)

#: Words about a change may come a little after it: our own events are written at the end of a turn.
PATIENCE_S = 5.0
_TOKENS_EVERY_S = 15.0
_WAITING = 2000
#: So many suspects are looked into in one turn.
_EACH_TURN = 50
_CAUSES = ("job.finished", "job.paused_after_failures")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job whose row has changed without a new generation."""

    seen_s: float
    before: PlanRow
    after: PlanRow | None
    what: str


class RowWatch:
    """Called each turn of the leader while MySQL answers; lives as long as a term."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading
        self._rows: dict[int, PlanRow] | None = None
        self._seen: object = None
        self._suspects: dict[int, Suspect] = {}
        self._tokens_due_s = 0.0
        #: Tokens that are in order as they are.
        self._good: dict[int, Token] = {}
        self._told: set[tuple[str, str, str]] = set()

    def work(self, snapshot: Snapshot) -> None:
        """Do what is due. Raises UnavailableError."""
        self._note_jobs(snapshot)
        self._look_into_jobs(snapshot)
        if snapshot.now_s >= self._tokens_due_s:
            self._tokens_due_s = snapshot.now_s + _TOKENS_EVERY_S
            self._look_at_tokens()
            self._look_at_cordons(snapshot)

    # -- jobs

    def _note_jobs(self, snapshot: Snapshot) -> None:
        rows = snapshot.catalog.rows
        if rows is self._seen:
            return
        before, self._seen, self._rows = self._rows, rows, dict(rows)
        for job_id, row in (before or {}).items():
            after = rows.get(job_id)
            if after is not row and (what := state_change(row, after)) and job_id not in snapshot.catalog.bad:
                self._suspects[job_id] = Suspect(snapshot.now_s, row, after, what)

    def _look_into_jobs(self, snapshot: Snapshot) -> None:
        due = [j for j, suspect in self._suspects.items() if snapshot.now_s - suspect.seen_s >= PATIENCE_S]
        for job_id in due[:_EACH_TURN]:
            suspect = self._suspects[job_id]
            if not (may_be_asked_for(suspect.before, suspect.after) and self._is_told_of(job_id, suspect.before)):
                self._tell("job", "job.altered", str(job_id), f"{suspect.what}; nobody asked for it, as far as told")
            del self._suspects[job_id]

    def _is_told_of(self, job_id: int, before: PlanRow) -> bool:
        """Say whether the trail, or an event of a leader, tells of a change of the job since its row was last sound."""
        entries = self._entries("job", str(job_id))
        if any(entry.at_ms >= before.updated_ms for entry in entries if entry.action not in ("job.created",)):
            return True
        events = self._leading.store.events
        for kind in _CAUSES:
            found = self._leading.mysql.call(lambda: events.latest(limit=1, kind=kind, subject=str(job_id)))  # noqa: B023
            if found and found[0].at_ms >= before.updated_ms:
                return True
        return False

    # -- tokens and cordons

    def _look_at_tokens(self) -> None:
        for row in self._leading.mysql.call(self._leading.store.tokens.all):
            if self._good.get(row.id) == row:
                continue
            if is_identity(row):
                fault = identity_fault(row, self._entries("identity", row.name))
            else:
                fault = token_fault(row, self._entries("token", str(row.id)))
            if fault:
                self._tell("token", "token.unknown", str(row.id), fault)
            else:
                self._good[row.id] = row

    def _look_at_cordons(self, snapshot: Snapshot) -> None:
        cordons = self._leading.mysql.call(self._leading.store.cordons.all)
        faults = {worker: cordon_fault(cordon, self._entries("worker", worker)) for worker, cordon in cordons.items()}
        faults |= {worker: node_fault(node, cordons) for worker, node in snapshot.nodes.items() if worker not in faults}
        for worker, fault in faults.items():
            if fault:
                self._tell("cordon", "cordon.unknown", worker, fault)

    # -- inside

    def _entries(self, kind: str, object_id: str) -> list[Entry]:
        """Return what the trail tells of an object, oldest first; what is not linked yet, too."""
        store, call = self._leading.store.trail, self._leading.mysql.call
        # What waits is read first: linked meanwhile, it is seen twice, and not missed.
        waiting: Sequence[Entry] = call(lambda: store.waiting(limit=_WAITING))
        links = call(lambda: store.page(TrailQuery(limit=10_000, kind=kind, object_id=object_id)))
        return [*(link.entry for link in links), *last_entries(waiting, kind, object_id)]

    def _tell(self, of: str, event: str, subject: str, why: str) -> None:
        if (event, subject, why) in self._told:
            return
        self._told.add((event, subject, why))
        notes, latest = self._leading.notes, self._leading.store.events.latest
        found = self._leading.mysql.call(lambda: latest(limit=1, kind=event, subject=subject))
        if found and found[0].detail == why:
            # A leader before us has told it.
            return
        self._leading.metrics.altered.labels(of).inc()
        log.error(
            "a row was changed past the API",
            extra={"event": "row.altered", "kind": event, "subject": subject, "why": why},
        )
        notes.add(event, subject, why)
