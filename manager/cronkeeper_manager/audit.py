"""The auditor at work: a bounded piece of each of the leader's turns. What it concludes is decided in `auditor.py`.

One mark in MySQL says how far it is; it moves in the same transaction in which the verdicts and their events are
written, under the leader's term. So a new leader goes on where the last one was, and nothing in between is forgotten.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import AuditMark, Fire, JobVersion
from cronkeeper_manager.agenda import Walk
from cronkeeper_manager.audit_notes import Findings, verdict_row
from cronkeeper_manager.audit_review import Reviewer
from cronkeeper_manager.audit_slim import slim
from cronkeeper_manager.auditor import (
    FRESH_MS,
    Facts,
    MissReason,
    Outcome,
    Span,
    Verdict,
    known_outcome,
    overdue_delay_ms,
    settle_delay_ms,
    spans,
)
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.observe import Snapshot

log = logging.getLogger(__name__)

#: So much of a turn may go into auditing.
BUDGET_S = 0.25
#: Without a turn for so long, nobody audited: the platform counts as having been down.
GAP_MS = 30_000
#: After such a gap, workers first carry home what they have.
RETURN_MS = 60_000
#: Of each job at most so many missed fires are listed in an hour; more are counted.
LISTED_MOST = 1000
_HOUR_MS = 3_600_000
_GAPS_KEPT = 100
_FIRES_EACH, _PAGE, _PURGE_EACH = 500, 500, 2000
#: Versions may become visible so long after the instant that they bear.
_NEWS_LATE_MS = 60_000
_ASK_EVERY_MS, _LOOK_EVERY_MS, _WRITE_EVERY_MS, _PURGE_EVERY_MS = 5_000, 2_000, 10_000, 600_000


class Auditor:
    """Called each turn of the leader while MySQL answers; lives as long as a term."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading
        self._store = leading.store.audit
        self._reviewer = Reviewer(leading)
        self._hold_until_ms = 0
        #: When this leader audited last, written or not.
        self._beat_ms = 0
        self._heard_ms: dict[str, int] = {}
        self._due_ms: dict[str, int] = {}
        self._listed: Counter[int] = Counter()
        self._forget()

    def _forget(self) -> None:
        """Begin anew from the mark that was written last."""
        self._mark: AuditMark | None = None
        self._spans: dict[int, list[Span]] = {}
        self._loaded_after: tuple[int, int] | None = (0, 0)
        self._asked_ms = 0
        self._deciding = Walk(settle_delay_ms)
        self._warning = Walk(overdue_delay_ms)

    def work(self, snapshot: Snapshot, unplaced: Mapping[TaskId, str], *, budget_s: float = BUDGET_S) -> None:
        """Do a bounded piece of work. Raises UnavailableError or FencedError; what was not written is found again."""
        try:
            self._work(snapshot, unplaced, self._leading.clock.boot_s() + budget_s)
        except UnavailableError:
            self._forget()
            raise

    def _work(self, snapshot: Snapshot, unplaced: Mapping[TaskId, str], until_s: float) -> None:
        now_ms = snapshot.now_ms
        self._hear(snapshot)
        mark = self._mark = self._begin(now_ms)
        if not self._load(mark, now_ms, until_s):
            return
        facts = Facts(
            now_ms,
            assignments=snapshot.copies,
            leases=snapshot.leases or {},
            heard_ms=self._heard_ms,
            unplaced=unplaced,
            gaps=mark.gaps,
            known=snapshot.known,
        )
        found, held_back = Findings(), now_ms < self._hold_until_ms
        mark = self._go(mark, facts, found, until_s, held_back=held_back)
        if self._is_due("look", _LOOK_EVERY_MS, now_ms):
            self._reviewer.look_again(facts, found, held_back=held_back)
            self._reviewer.look_ahead(facts, found)
            more = True
            while more:
                mark, more = self._reviewer.check_ledger(mark, self._spans, facts, found)
                more = more and self._leading.clock.boot_s() < until_s
        # Rows older than this are being removed by the leader's chores.
        kept_from_ms = now_ms - self._leading.runs_keep_days * 24 * _HOUR_MS
        mark = replace(mark, known_from_ms=max(mark.known_from_ms, kept_from_ms))
        self._write(mark, found, now_ms)
        if self._is_due("purge", _PURGE_EVERY_MS, now_ms):
            self._leading.check()
            self._leading.mysql.call(lambda: self._store.purge(before_ms=kept_from_ms, limit=_PURGE_EACH))
        self._leading.metrics.audit_lag.set((now_ms - mark.decided_ms) / 1000)

    # -- beginning

    def _begin(self, now_ms: int) -> AuditMark:
        """Return the mark of the leader before, or of the last turn; note for how long nobody audited."""
        mark = self._mark or self._leading.mysql.call(self._store.mark)
        if not mark.beat_ms:
            mark = AuditMark(now_ms, now_ms, Fire(TaskId(0, 0), now_ms), now_ms, known_from_ms=now_ms)
        beat_ms = max(mark.beat_ms, self._beat_ms)
        if now_ms - beat_ms > GAP_MS:
            log.warning("nobody audited for a while", extra={"event": "audit.gap", "since": rfc3339(beat_ms)})
            mark = replace(mark, gaps=(*mark.gaps, (beat_ms, now_ms))[-_GAPS_KEPT:])
            self._hold_until_ms = now_ms + RETURN_MS
        self._beat_ms = now_ms
        return replace(mark, beat_ms=now_ms)

    def _hear(self, snapshot: Snapshot) -> None:
        leases = snapshot.leases or {}
        fresh = {name for name, lease in leases.items() if not lease.lost and lease.age_ms < FRESH_MS}
        self._heard_ms = {name: self._heard_ms.get(name, snapshot.now_ms) for name in fresh}

    def _load(self, mark: AuditMark, now_ms: int, until_s: float) -> bool:
        """Read the versions of all jobs once, then what has changed; say whether all of them are known."""
        if self._loaded_after == (0, 0):
            self._asked_ms = now_ms
        while self._loaded_after is not None:
            self._loaded_after = self._read_versions(0, self._loaded_after, mark)
            if self._loaded_after is not None and self._leading.clock.boot_s() > until_s:
                return False
        if now_ms - self._asked_ms < _ASK_EVERY_MS or self._deciding.rests or self._warning.rests:
            return True
        after: tuple[int, int] | None = (0, 0)
        while after is not None:
            after = self._read_versions(self._asked_ms - _NEWS_LATE_MS, after, mark)
        self._asked_ms = now_ms
        return True

    def _read_versions(self, since_ms: int, after: tuple[int, int], mark: AuditMark) -> tuple[int, int] | None:
        """Read a page; return where the next one begins, or None when this was the last."""
        page = self._leading.mysql.call(lambda: self._store.changed_versions(since_ms, after=after, limit=_PAGE))
        self._keep(page, mark)
        return (page[-1].job_id, page[-1].generation) if page else None

    def _keep(self, versions: Iterable[JobVersion], mark: AuditMark) -> None:
        """Note what is new, and when to look at those jobs next."""
        for job_id, some in groupby(versions, key=lambda item: item.job_id):
            known = {_key(span.version): span.version for span in self._spans.get(job_id, ())}
            fresh = {_key(version): slim(version) for version in some}
            if all(known.get(key) == version for key, version in fresh.items()):
                continue
            of_job = [span for span in spans([*(known | fresh).values()]) if not _is_over(span, mark)]
            self._spans[job_id] = of_job
            self._deciding.put(job_id, of_job, mark.decided_ms)
            self._warning.put(job_id, of_job, mark.warned_ms)

    # -- deciding

    def _go(self, mark: AuditMark, facts: Facts, found: Findings, until_s: float, *, held_back: bool) -> AuditMark:
        """Go on from the mark as far as the time leads."""

        def in_time() -> bool:
            return self._leading.clock.boot_s() < until_s

        def settle(fires: list[Fire]) -> None:
            for start in range(0, len(fires), _FIRES_EACH):
                self._settle(fires[start : start + _FIRES_EACH], facts, found)

        def warn(fires: list[Fire]) -> None:
            for start in range(0, len(fires), _FIRES_EACH):
                some = fires[start : start + _FIRES_EACH]
                fates = self._reviewer.fates(some)
                found.overdue += [fire for fire in some if fire not in fates]

        if held_back:
            return mark
        decided_ms = self._deciding.go(mark.decided_ms, facts.now_ms, self._spans, settle, in_time)
        warned_ms = self._warning.go(mark.warned_ms, facts.now_ms, self._spans, warn, in_time)
        return replace(mark, decided_ms=decided_ms, warned_ms=warned_ms)

    def _settle(self, fires: list[Fire], facts: Facts, found: Findings) -> None:
        """Decide about fires whose fate has to be known."""
        fates = self._reviewer.fates(fires)
        self._reviewer.tell_phantoms(fates.values(), facts, found)
        verdicts: dict[Fire, Verdict] = {}
        for fire in fires:
            verdict = known_outcome(fates.get(fire), facts.now_ms)
            if verdict is not None and verdict.outcome is not Outcome.PENDING:
                verdicts[fire] = verdict
        unclear = [fire for fire in fires if fire not in verdicts]
        judged = self._reviewer.judge(unclear, facts)
        for verdict in (*verdicts.values(), *judged.values()):
            self._leading.metrics.audited.labels(verdict.outcome.value).inc()
        for fire, verdict in judged.items():
            self._note(fire, verdict, facts.now_ms, found)

    def _note(self, fire: Fire, verdict: Verdict, now_ms: int, found: Findings) -> None:
        if verdict.outcome not in (Outcome.MISSED, Outcome.PENDING):
            return
        if verdict.outcome is Outcome.MISSED:
            self._leading.metrics.missed.labels((verdict.reason or MissReason.UNKNOWN).value).inc()
        if self._is_due("listed", _HOUR_MS, now_ms):
            self._listed.clear()
        self._listed[fire.task.job_id] += 1
        if self._listed[fire.task.job_id] > LISTED_MOST:
            found.unlisted[fire.task.job_id] += 1
        else:
            found.missed.append(verdict_row(fire, verdict, now_ms, held=verdict.outcome is Outcome.PENDING))

    # -- writing

    def _write(self, mark: AuditMark, found: Findings, now_ms: int) -> None:
        if found or self._is_due("write", _WRITE_EVERY_MS, now_ms):
            self._leading.mysql.call(
                lambda: self._store.save(
                    mark,
                    missed=found.missed,
                    withdrawn=found.withdrawn,
                    events=found.all_events(now_ms),
                    term=self._leading.term,
                )
            )
            found.log()
        self._mark = mark

    def _is_due(self, what: str, every_ms: int, now_ms: int) -> bool:
        if now_ms < self._due_ms.get(what, 0):
            return False
        self._due_ms[what] = now_ms + every_ms
        return True


def _key(version: JobVersion) -> tuple[int, str]:
    return version.generation, version.state.value


def _is_over(span: Span, mark: AuditMark) -> bool:
    """Say whether the auditor is done with all that this version was answerable for."""
    if span.end_ms is None:
        return False
    oldest_ms = min(mark.decided_ms, mark.warned_ms, mark.checked.fire_ms)
    return span.end_ms + settle_delay_ms(span.version.spec) + _NEWS_LATE_MS < oldest_ms
