"""Many requests, one transaction: whoever comes while a write is under way goes along in the next one.

A caller that finds nobody at work does the work itself, at once: alone, nobody waits for anybody. When it is done, the
first of those who came meanwhile does the work for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: One batch stays one transaction of a few milliseconds.
MAX_BATCH = 100


@dataclass(slots=True)
class _Entry(Generic[T, R]):
    item: T
    #: Set when there is an outcome, or when this caller is to do the work.
    woken: threading.Event = field(default_factory=threading.Event)
    outcome: list[R | Exception] = field(default_factory=list)


class Gather(Generic[T, R]):
    """Hands items to `work` in batches. `work` returns an outcome for each item, in order: a result or an error."""

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R | Exception]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[_Entry[T, R]] = []
        self._busy = False

    def submit(self, item: T) -> R:
        """Return the item's result, or raise its error. Safe to call from several threads."""
        entry = _Entry[T, R](item)
        with self._lock:
            self._waiting.append(entry)
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
        with self._lock:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
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
            for entry in [*batch, *([heir] if heir is not None else [])]:
                entry.woken.set()
