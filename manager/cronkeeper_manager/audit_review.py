"""Looking closely: at fires without a clear row, at verdicts of before, at rows that nobody asked for."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.run import Reason
from cronkeeper.ports import AuditMark, Fate, Fire
from cronkeeper_manager.agenda import UNREADABLE
from cronkeeper_manager.audit_notes import Findings, phantom, unexpected, verdict_row, withdrawal
from cronkeeper_manager.auditor import (
    SETTLE_MS,
    Expected,
    Facts,
    MissReason,
    Outcome,
    Span,
    Verdict,
    expected_at,
    is_unexpected,
    judge,
    known_outcome,
    spans,
)
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.phantoms import AHEAD_MS, holds_up, may_drop, phantom_words

log = logging.getLogger(__name__)

_PAGE = 500
_AHEAD_EACH, _AHEAD_AGAIN_S, _PHANTOMS_KEPT = 2000, 10.0, 10_000
NOWHERE = Fire(TaskId(0, 0), 0)


class Reviewer:
    """Asks MySQL about few fires at a time. Raises UnavailableError."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading
        self._store = leading.store.audit
        self._missed_after = NOWHERE
        #: Rows of fires far ahead -> when (boot-time clock) they were seen first.
        self._ahead: dict[Fate, float] = {}
        #: Phantoms of late, told of already: a fire is looked at more than once.
        self._phantoms: dict[Fire, None] = {}

    def fates(self, fires: Sequence[Fire]) -> dict[Fire, Fate]:
        """Return what the ledger says of these fires."""
        return self._leading.mysql.call(lambda: self._store.fates(fires))

    def judge(self, fires: Sequence[Fire], facts: Facts) -> dict[Fire, Verdict]:
        """Return verdicts by the versions and rows of this very instant.

        Fires that nobody expects any more are left out: their job was removed, or it changed at that instant.
        """
        if not fires:
            return {}
        job_spans = self._spans_of(fires)
        fates = self.fates(fires)
        facts = replace(facts, cron_silent=self._cron_silent(fires, facts))
        verdicts = {}
        for fire in fires:
            of_job = job_spans.get(fire.task.job_id, [])
            try:
                version = expected_at(of_job, fire)
            except UNREADABLE as exc:
                verdicts[fire] = Verdict(Outcome.PENDING, None, f"its job cannot be read: {exc}")
                continue
            if version is not None:
                verdicts[fire] = judge(Expected(fire, version), fates.get(fire), of_job, facts)
        return verdicts

    def look_again(self, facts: Facts, found: Findings, *, held_back: bool) -> None:
        """Go through what is noted, page by page, for ever: withdraw what got a row since, judge what is held."""
        after = self._missed_after
        page = self._leading.mysql.call(lambda: self._store.missed_page(after, limit=_PAGE))
        self._missed_after = page[-1].fire if len(page) == _PAGE else NOWHERE
        if not page:
            return
        fates = self.fates([item.fire for item in page])
        open_fires: list[Fire] = []
        for item in page:
            known = known_outcome(fates.get(item.fire), facts.now_ms)
            if known is not None and known.outcome is not Outcome.PENDING:
                found.withdrawn.append(item.fire)
                if not item.held:
                    found.events.append(withdrawal(item, fates[item.fire], facts.now_ms))
            elif item.held and not held_back:
                open_fires.append(item.fire)
        verdicts = self.judge(open_fires, facts)
        found.withdrawn += [fire for fire in open_fires if fire not in verdicts]
        for fire, verdict in verdicts.items():
            if verdict.outcome is Outcome.MISSED:
                self._leading.metrics.missed.labels((verdict.reason or MissReason.UNKNOWN).value).inc()
                found.missed.append(verdict_row(fire, verdict, facts.now_ms, held=False))

    def tell_phantoms(self, fates: Iterable[Fate], facts: Facts, found: Findings) -> None:
        """Tell of rows that no worker of ours can have written; give up the runs of workers that there are not."""
        strangers = set()
        for fate in fates:
            if why := phantom_words(fate, facts.known, facts.assignments):
                self._tell_phantom(fate, why, facts, found)
                if holds_up(fate, facts.known):
                    strangers.add(fate.worker)
        for worker in sorted(strangers):
            store, term = self._leading.store.runs, self._leading.term
            self._leading.mysql.call(functools.partial(store.lose, worker, term=term, reason=Reason.WORKER_LOST.value))

    def look_ahead(self, facts: Facts, found: Findings) -> None:
        """Look for rows of fires that are not due for long, and remove those that can be nobody's.

        Seen twice, as the database's clock may have been set in between.
        """
        rows = self._leading.mysql.call(lambda: self._store.ahead(AHEAD_MS, limit=_AHEAD_EACH))
        now_s = self._leading.clock.boot_s()
        self._ahead = {fate: self._ahead.get(fate, now_s) for fate in rows}
        seen_twice = [fate for fate, seen_s in self._ahead.items() if now_s - seen_s >= _AHEAD_AGAIN_S]
        dropped = [fate for fate in seen_twice if may_drop(fate, facts.known, facts.leases)]
        if dropped:
            term = self._leading.term
            self._leading.mysql.call(lambda: self._store.drop_ahead(dropped, AHEAD_MS, term=term))
        for fate in seen_twice:
            what = "it was removed" if fate in dropped else f"the clock of {fate.worker} is wrong, so it stays"
            self._tell_phantom(fate, f"it was written long before it is due; {what}", facts, found)

    def _tell_phantom(self, fate: Fate, why: str, facts: Facts, found: Findings) -> None:
        if fate.fire in self._phantoms:
            return
        self._phantoms[fate.fire] = None
        if len(self._phantoms) > _PHANTOMS_KEPT:
            del self._phantoms[next(iter(self._phantoms))]
        self._leading.metrics.phantoms.inc()
        found.events.append(phantom(fate, why, facts.now_ms))

    def check_ledger(
        self, mark: AuditMark, known: Mapping[int, Sequence[Span]], facts: Facts, found: Findings
    ) -> tuple[AuditMark, bool]:
        """Look at the next rows of the ledger for one that no version of its job asked for; say whether more wait."""
        until_ms = facts.now_ms - SETTLE_MS
        page = self._leading.mysql.call(lambda: self._store.recorded(mark.checked, until_ms, limit=_PAGE))
        self.tell_phantoms(page, facts, found)
        suspects = [fate for fate in page if _is_suspect(known.get(fate.fire.task.job_id, ()), fate.fire)]
        if suspects:
            job_spans = self._spans_of([fate.fire for fate in suspects])
            for fate in suspects:
                if _is_unasked(job_spans.get(fate.fire.task.job_id, []), fate.fire):
                    self._leading.metrics.unexpected.inc()
                    found.events.append(unexpected(fate, facts.now_ms))
        return replace(mark, checked=page[-1].fire) if page else mark, len(page) == _PAGE

    def _spans_of(self, fires: Sequence[Fire]) -> dict[int, list[Span]]:
        job_ids = sorted({fire.task.job_id for fire in fires})
        versions = self._leading.mysql.call(lambda: self._store.versions(job_ids))
        return {job_id: spans([*some]) for job_id, some in groupby(versions, key=lambda item: item.job_id)}

    def _cron_silent(self, fires: Sequence[Fire], facts: Facts) -> dict[str, list[tuple[int, int]]]:
        owners = {facts.assignments[fire.task].worker for fire in fires if fire.task in facts.assignments} - {""}
        return {worker: self._silences(worker, facts.now_ms) for worker in sorted(owners)}

    def _silences(self, worker: str, now_ms: int) -> list[tuple[int, int]]:
        """Return when the worker's cron was silent, as its events tell."""
        events = self._leading.store.events
        begun = self._leading.mysql.call(lambda: events.latest(limit=20, kind="cron.silent", subject=worker))
        if not begun:
            return []
        back = self._leading.mysql.call(lambda: events.latest(limit=20, kind="cron.back", subject=worker))
        ends = sorted(event.at_ms for event in back)
        return [(event.at_ms, next((end for end in ends if end >= event.at_ms), now_ms)) for event in begun]


def _is_suspect(job_spans: Sequence[Span], fire: Fire) -> bool:
    try:
        return expected_at(job_spans, fire) is None
    except UNREADABLE:
        return False


def _is_unasked(job_spans: Sequence[Span], fire: Fire) -> bool:
    try:
        return is_unexpected(job_spans, fire)
    except UNREADABLE:
        return False
