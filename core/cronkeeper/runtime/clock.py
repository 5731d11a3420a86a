"""Time, asked of one object, so that tests can hand in their own."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock for fire times and display; boot-time clock for leases and timeouts (it does not stop in suspend)."""

    def now_ms(self) -> int:
        """Return the wall clock in epoch milliseconds, UTC."""
        ...

    def until_s(self, then_ms: int) -> float:
        """Return the seconds until `now_ms` returns `then_ms`, to the microsecond; negative once that is past."""
        ...

    def boot_s(self) -> float:
        """Return seconds since boot, suspend included. Only differences mean anything."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until the event is set or the time is over; say whether it is set."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def until_s(self, then_ms: int) -> float:
        return (then_ms * 1_000_000 - time.time_ns()) / 1e9

    def boot_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)
