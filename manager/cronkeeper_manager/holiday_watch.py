"""Holidays run out: tell people in time which jobs have copied too few years of them.

The leader holds no key, so it cannot save jobs; somebody who may has to ask for it (`POST /calendars/refresh`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from cronkeeper.domain.calendars import ends_within
from cronkeeper.domain.job import Job, JobState
from cronkeeper.ports import Event, Store
from cronkeeper.runtime.metrics import ManagerMetrics
from cronkeeper_manager.leading import Notes

log = logging.getLogger(__name__)

ENDING, RENEWED = "calendars.ending", "calendars.renewed"
#: People are told so long ahead, and again each day.
AHEAD_MONTHS = 18
_AGAIN_MS = 86_400_000


class HolidayWatch:
    """Sees every job once a round, with whatever the leader reads anyway. One for each leader."""

    def __init__(self, store: Store, notes: Notes, metrics: ManagerMetrics) -> None:
        self._store = store
        self._notes = notes
        self._metrics = metrics
        self._found: list[int] = []
        self._told: tuple[int, ...] | None = None
        self._told_ms = 0

    def look(self, jobs: Iterable[Job], now_ms: int) -> None:
        """Note those of the jobs whose holidays are known for too short a time."""
        alive = (job for job in jobs if job.state is not JobState.FINISHED)
        self._found += [job.id for job in alive if ends_within(job.spec.holiday_dates, AHEAD_MONTHS, now_ms=now_ms)]

    def end_round(self, now_ms: int) -> None:
        """Every job was seen: say what was found, if it is news. Raises UnavailableError."""
        found, self._found = tuple(self._found), []
        self._metrics.holidays_ending.set(len(found))
        if found == self._told and (not found or now_ms - self._told_ms < _AGAIN_MS):
            return
        if found:
            first = ", ".join(map(str, found[:10]))
            log.warning(
                "holidays of jobs run out, run cronkeeper calendars refresh",
                extra={"event": "calendars.ending", "jobs": len(found), "first": first},
            )
            what = f"{len(found)} jobs know their holidays for less than {AHEAD_MONTHS} months"
            self._notes.add(ENDING, "fleet", f"{what}: {first}; run: cronkeeper calendars refresh")
        elif self._told or self._was_ending():
            log.info("all jobs know their holidays for long enough", extra={"event": "calendars.renewed"})
            self._notes.add(RENEWED, "fleet", "all jobs know their holidays for long enough")
        self._told, self._told_ms = found, now_ms

    def _was_ending(self) -> bool:
        last = last_told(self._store)
        return last is not None and last.kind == ENDING


def last_told(store: Store) -> Event | None:
    """Return what a leader told last, None for nothing. Raises UnavailableError."""
    told = [event for kind in (ENDING, RENEWED) for event in store.events.latest(limit=1, kind=kind)]
    return max(told, key=lambda event: event.at_ms, default=None)
