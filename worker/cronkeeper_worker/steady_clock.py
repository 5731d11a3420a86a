"""A wall clock that does not jump because the node's clock was set: the database decides which of the two is right."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from cronkeeper.runtime.clock import Clock

log = logging.getLogger(__name__)

#: The wall clock may part so much from the boot-time clock between two looks; more is a step. No slewing comes near.
STEP_MS = 2000


@dataclass(frozen=True, slots=True)
class Bearing:
    """What the wall clock said, epoch milliseconds, at an instant of the boot-time clock."""

    boot_s: float
    wall_ms: int

    def step_ms(self, boot_s: float, wall_ms: int) -> int:
        """Return how far the wall clock is from where it would be by now if nobody had set it."""
        return wall_ms - self.wall_ms - round((boot_s - self.boot_s) * 1000)


def is_right(step_ms: int, offset_ms: int) -> bool:
    """Say whether a step is to be followed: `offset_ms` is the clock after it minus the database's."""
    return abs(offset_ms) <= abs(offset_ms - step_ms)


class SteadyClock:
    """The node's clock, but for steps: after one it goes on as before, until `ask` has heard that the step is right.

    A step that nobody can judge is not followed: a fire is decided once, so a clock that runs ahead by mistake for a
    moment would use up all fires of the time in between. A clock that is wrong from the start is believed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._bearing = Bearing(clock.boot_s(), clock.now_ms())
        self._stepped = False

    def now_ms(self) -> int:
        """Return the wall clock in epoch milliseconds, UTC; steps that are not known to be right are left out."""
        with self._lock:
            return self._look()[0]

    def until_s(self, then_ms: int) -> float:
        """Return the seconds until `now_ms` returns `then_ms`; negative once that is past."""
        with self._lock:
            return self._clock.until_s(then_ms + self._look()[1])

    def boot_s(self) -> float:
        """Return seconds since boot, suspend included."""
        return self._clock.boot_s()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until the event is set or the time is over; say whether it is set."""
        return self._clock.wait(event, timeout_s)

    def node_ms(self) -> tuple[int, int]:
        """Return the node's own clock as it is, epoch milliseconds, and the step in it that is not followed."""
        with self._lock:
            now_ms, step_ms = self._look()
            return now_ms + step_ms, step_ms

    def judge(self, step_ms: int, offset_ms: int) -> None:
        """Take note that the node's clock is `offset_ms` ahead of the database's; `step_ms` was in it at that time."""
        with self._lock:
            now_ms, now_step_ms = self._look()
            again = abs(now_step_ms - step_ms) > STEP_MS
            if not self._stepped or again or not is_right(now_step_ms, offset_ms):
                return
            self._bearing, self._stepped = Bearing(self._clock.boot_s(), now_ms + now_step_ms), False
        log.warning("the clock was set right", extra={"event": "clock.set", "step_ms": step_ms})

    def _look(self) -> tuple[int, int]:
        """Return now, and the step that is left out of it."""
        boot_s, wall_ms = self._clock.boot_s(), self._clock.now_ms()
        step_ms = self._bearing.step_ms(boot_s, wall_ms)
        if abs(step_ms) <= STEP_MS:
            self._bearing = Bearing(boot_s, wall_ms)
            if self._stepped:
                self._stepped = False
                log.info("the clock is where it was", extra={"event": "clock.back"})
            return wall_ms, 0
        if not self._stepped:
            self._stepped = True
            log.warning(
                "the clock was set; fires go on by the old one until MySQL says which is right",
                extra={"event": "clock.stepped", "step_ms": step_ms},
            )
        return wall_ms - step_ms, step_ms
