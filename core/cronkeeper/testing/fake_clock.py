"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading


class FakeClock:
    """See cronkeeper.runtime.clock.Clock. Wall and boot-time clock move together unless the wall clock is set."""

    def __init__(self, now_ms: int = 1_795_219_200_000) -> None:
        self._now_ms = now_ms
        self._boot_s = 1000.0

    def now_ms(self) -> int:
        return self._now_ms

    def until_s(self, then_ms: int) -> float:
        return (then_ms - self._now_ms) / 1000

    def boot_s(self) -> float:
        return self._boot_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Time passes at once."""
        if not event.is_set():
            self.advance_ms(round(timeout_s * 1000))
        return event.is_set()

    def advance_ms(self, ms: int) -> None:
        """Let time pass."""
        self._now_ms += ms
        self._boot_s += ms / 1000

    def set_ms(self, now_ms: int) -> None:
        """Set the wall clock, as an operator or NTP might; the boot-time clock does not notice."""
        self._now_ms = now_ms
