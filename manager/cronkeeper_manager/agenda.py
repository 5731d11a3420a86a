"""When each job is to be looked at next: of 100,000 jobs only those cost anything that are due. No I/O."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence

from cronkeeper.ports import Fire
from cronkeeper_manager.auditor import Delay, Span, due_within, next_due_ms

log = logging.getLogger(__name__)

#: A walk goes on by at most so much at a time.
STEP_MS = 60_000
_JOBS_EACH = 200
#: What a schedule that was written by hand, or by a newer version, may raise.
UNREADABLE = (ValueError, ArithmeticError, LookupError)


class Walk:
    """A way through time, on which every fire is met once: when its delay after its fire time is over.

    It goes on in whole steps, so that one instant (the mark) says how far it is, and may rest inside a step.
    """

    def __init__(self, delay: Delay) -> None:
        self._delay = delay
        self._next: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._until_ms: int | None = None

    @property
    def rests(self) -> bool:
        """Whether it is inside a step: jobs must not be put meanwhile, save by itself."""
        return self._until_ms is not None

    def put(self, job_id: int, job_spans: Sequence[Span], mark_ms: int) -> None:
        """Note when the job is due after the mark, instead of what was noted before."""
        self._next.pop(job_id, None)
        try:
            due_ms = next_due_ms(job_spans, mark_ms, self._delay)
        except UNREADABLE as exc:
            _tell_unreadable(job_id, exc)
            return
        if due_ms is not None:
            self._next[job_id] = due_ms
            heapq.heappush(self._heap, (due_ms, job_id))

    def go(
        self,
        mark_ms: int,
        now_ms: int,
        known: Mapping[int, Sequence[Span]],
        meet: Callable[[list[Fire]], None],
        in_time: Callable[[], bool],
    ) -> int:
        """Hand the fires that are due to `meet`, job by job, while `in_time`; return the new mark.

        Should `meet` raise, the walk is lost: begin a new one from a mark that was written.
        """
        while mark_ms < now_ms or self.rests:
            until_ms = self._until_ms or min(now_ms, mark_ms + STEP_MS)
            self._until_ms = until_ms
            while job_ids := self._pop(until_ms):
                fires: list[Fire] = []
                for job_id in job_ids:
                    fires += self._due(job_id, known.get(job_id, ()), mark_ms, until_ms)
                    self.put(job_id, known.get(job_id, ()), until_ms)
                meet(fires)
                if not in_time():
                    return mark_ms
            mark_ms, self._until_ms = until_ms, None
            if not in_time():
                break
        return mark_ms

    def _due(self, job_id: int, job_spans: Sequence[Span], mark_ms: int, until_ms: int) -> list[Fire]:
        try:
            # No schedule has more than one fire a second.
            due = due_within(job_spans, mark_ms, until_ms, self._delay, limit=STEP_MS // 1000)
        except UNREADABLE as exc:
            _tell_unreadable(job_id, exc)
            return []
        return [item.fire for item in due]

    def _pop(self, until_ms: int) -> list[int]:
        """Take some jobs that are due by then, earliest first."""
        found: list[int] = []
        while self._heap and self._heap[0][0] <= until_ms and len(found) < _JOBS_EACH:
            due_ms, job_id = heapq.heappop(self._heap)
            # What was noted anew since stands further down in the heap.
            if self._next.get(job_id) == due_ms:
                del self._next[job_id]
                found.append(job_id)
        return found


def _tell_unreadable(job_id: int, exc: Exception) -> None:
    log.error("a job cannot be audited", extra={"event": "audit.unreadable", "job": job_id, "error": str(exc)})
