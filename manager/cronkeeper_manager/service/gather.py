"""Many requests, one transaction: whoever comes while a write is under way goes along in the next one.

A caller that finds nobody at work does the work itself, at once: alone, nobody waits for anybody. When it is done, the
first of those who came meanwhile does the work for all of them. If the last batch was of several, they will soon be
back, and so will those who are about to hear: it waits for as many of them, since a batch costs hardly more than one
item, but no longer than a batch takes. Who was waited for in vain is not waited for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: One batch stays one transaction of a few milliseconds.
MAX_BATCH = 100
#: How long a batch waits for others: as long as the last one took (on a busy machine answers take longer, too), within
#: these bounds.
LINGER_S, MOST_LINGER_S = 0.004, 0.02


@dataclass(slots=True)
class _Entry(Generic[T, R]):
    item: T
    #: Set when there is an outcome, or when this caller is to do the work.
    woken: threading.Event = field(default_factory=threading.Event)
    outcome: list[R | Exception] = field(default_factory=list)


class Gather(Generic[T, R]):
    """Hands items to `work` in batches. `work` returns an outcome for each item, in order: a result or an error.

    `after` is told the outcomes of each batch before its callers are; the next batch is worked on meanwhile. It must
    not raise.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        after: Callable[[Sequence[R | Exception]], object] = lambda _: None,
        *,
        linger_s: tuple[float, float] = (LINGER_S, MOST_LINGER_S),
    ) -> None:
        self._work = work
        self._after = after
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._waiting: list[_Entry[T, R]] = []
        self._busy = False
        #: How many the present batch waits for.
        self._wanted = 0
        #: How many were in the last batch, and how long it took until its callers heard.
        self._last, self._took_s = 0, 0.0
        #: How many are in batches that are followed up, and whether such callers come back.
        self._followed, self._come_back = 0, True

    def submit(self, item: T) -> R:
        """Return the item's result, or raise its error. Safe to call from several threads."""
        entry = _Entry[T, R](item)
        with self._lock:
            self._waiting.append(entry)
            if len(self._waiting) >= self._wanted:
                self._arrived.notify()
            waits = self._busy
            self._busy = True
        if waits:
            entry.woken.wait()
        if not entry.outcome:
            self._do_batch()
        outcome = entry.outcome[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _do_batch(self) -> None:
        """Work for all who wait, ourselves among them, then hand over."""
        begun_s, batch = self._gathered()
        outcomes: Sequence[R | Exception] = []
        try:
            outcomes = self._work([entry.item for entry in batch])
        except Exception as exc:  # noqa: BLE001 - whatever it is, every caller must hear of it, and the next be let in
            outcomes = [exc] * len(batch)
        finally:
            for entry, outcome in zip(batch, outcomes, strict=False):
                entry.outcome.append(outcome)
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._busy = heir is not None
                self._followed += len(batch)
            if heir is not None:
                heir.woken.set()
            try:
                self._after(outcomes)
            finally:
                with self._lock:
                    self._followed -= len(batch)
                    self._took_s = time.monotonic() - begun_s
                for entry in batch:
                    entry.woken.set()

    def _gathered(self) -> tuple[float, list[_Entry[T, R]]]:
        """Return when the work begins, and whom it is for."""
        with self._lock:
            wanted = max(self._last, len(self._waiting) + self._followed if self._come_back else 0)
            self._wanted = min(wanted, MAX_BATCH)
            if self._wanted > 1:
                shortest_s, longest_s = self._linger_s
                bound_s = min(max(self._took_s, shortest_s), longest_s)
                self._come_back = self._arrived.wait_for(lambda: len(self._waiting) >= self._wanted, bound_s)
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            self._last = len(batch)
            return time.monotonic(), batch
