"""What one piece of auditing has found, and how people are told. No I/O but the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cronkeeper.domain.instants import rfc3339
from cronkeeper.ports import Event, Fate, Fire, Missed
from cronkeeper_manager.auditor import MissReason, Verdict

log = logging.getLogger(__name__)

#: More than so many in one go are told of in one event.
ONE_BY_ONE = 5


@dataclass(slots=True)
class Findings:
    """What is to be written with the mark."""

    missed: list[Missed] = field(default_factory=list)
    withdrawn: list[Fire] = field(default_factory=list)
    #: Missed fires, by job, beyond those that are listed.
    unlisted: Counter[int] = field(default_factory=Counter)
    overdue: list[Fire] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missed or self.withdrawn or self.unlisted or self.overdue or self.events)

    def all_events(self, now_ms: int) -> list[Event]:
        """Return an event for each thing that was found, or one for many of a kind."""
        verdicts = [(item.fire, f"{item.reason}: {item.detail}") for item in self.missed if not item.held]
        overdue = [(fire, "nothing is known of it yet") for fire in self.overdue]
        counted = [
            Event(now_ms, "fire.missed", str(job_id), f"{count} more fires have no row; they are not listed one by one")
            for job_id, count in sorted(self.unlisted.items())
        ]
        return [
            *self.events,
            *_told("fire.missed", verdicts, now_ms),
            *counted,
            *_told("fire.overdue", overdue, now_ms),
        ]

    def log(self) -> None:
        """Say in the log what was found."""
        verdicts = [item for item in self.missed if not item.held]
        if verdicts:
            first = verdicts[0]
            more = {"fires": len(verdicts), "first": str(first.fire), "reason": first.reason, "why": first.detail}
            log.error("fires were missed", extra={"event": "fire.missed", **more})
        if self.unlisted:
            more = {"fires": self.unlisted.total(), "jobs": len(self.unlisted)}
            log.error("more fires were missed than are listed", extra={"event": "fire.unlisted", **more})
        if self.overdue:
            more = {"fires": len(self.overdue), "first": str(self.overdue[0])}
            log.warning("fires are overdue", extra={"event": "fire.overdue", **more})


def verdict_row(fire: Fire, verdict: Verdict, now_ms: int, *, held: bool) -> Missed:
    """Return what is kept of a verdict."""
    return Missed(fire, (verdict.reason or MissReason.UNKNOWN).value, verdict.detail, now_ms, held)


def withdrawal(item: Missed, fate: Fate, now_ms: int) -> Event:
    """Return the event for a fire that was called missed and has a row after all."""
    said = f"{rfc3339(item.fire.fire_ms)} was called missed ({item.reason}); its row has arrived: {fate.state}"
    log.info("a fire that was called missed has a row", extra={"event": "fire.withdrawn", "fire": str(item.fire)})
    return Event(now_ms, "fire.withdrawn", str(item.fire.task), said)


def unexpected(fate: Fate, now_ms: int) -> Event:
    """Return the event for a row that no version of the job asked for."""
    fire = fate.fire
    said = f"{rfc3339(fire.fire_ms)} was not due; {fate.worker} went by generation {fate.generation}"
    log.error("a fire was recorded that was not due", extra={"event": "fire.unexpected", "fire": str(fire)})
    return Event(now_ms, "fire.unexpected", str(fire.task), said)


def phantom(fate: Fate, why: str, now_ms: int) -> Event:
    """Return the event for a row that no worker of ours can have written."""
    fire = fate.fire
    said = f"{rfc3339(fire.fire_ms)} is recorded as {fate.state}: {why}"
    log.error("a row of the ledger is a stranger's", extra={"event": "run.phantom", "fire": str(fire), "why": why})
    return Event(now_ms, "run.phantom", str(fire.task), said)


def _told(kind: str, fires: Sequence[tuple[Fire, str]], now_ms: int) -> list[Event]:
    if len(fires) <= ONE_BY_ONE:
        return [Event(now_ms, kind, str(fire.task), f"{rfc3339(fire.fire_ms)}: {why}") for fire, why in fires]
    first, why = fires[0]
    reasons = Counter(detail.partition(":")[0] for _, detail in fires)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    said = f"{len(fires)} fires ({counts}); the first is {first.task} at {rfc3339(first.fire_ms)}: {why}"
    return [Event(now_ms, kind, "fleet", said)]
