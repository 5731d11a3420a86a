"""Timers of a single-threaded loop, on the boot-time clock, which does not stop while the machine sleeps."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPACT_FROM = 64


class Timer:
    """One thing to do later. Let go of it by `Timers.cancel`."""

    __slots__ = ("do",)

    def __init__(self, do: Callable[[], object]) -> None:
        self.do: Callable[[], object] | None = do


class Timers:
    """Who sets a timer for tomorrow and cancels it today leaves nothing behind, nor anything that it held."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._cancelled = 0

    def after(self, delay_s: float, do: Callable[[], object]) -> Timer:
        """Have `run_due` call `do` once, in `delay_s` seconds."""
        timer = Timer(do)
        self._number += 1
        heapq.heappush(self._heap, (_boot_s() + delay_s, self._number, timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Do not call it any more. Safe to repeat, and for a timer that is over."""
        if timer is None or timer.do is None:
            return
        timer.do = None
        self._cancelled += 1
        if self._cancelled > max(_COMPACT_FROM, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].do is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def wait_s(self, at_most_s: float) -> float:
        """Return how long to sleep until the next timer."""
        return min(at_most_s, max(0.0, self._heap[0][0] - _boot_s())) if self._heap else at_most_s

    def run_due(self) -> None:
        """Call what is due, oldest first."""
        while self._heap and self._heap[0][0] <= _boot_s():
            timer = heapq.heappop(self._heap)[2]
            do, timer.do = timer.do, None
            if do is None:
                self._cancelled -= 1
            else:
                do()

    def __len__(self) -> int:
        return len(self._heap)


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
