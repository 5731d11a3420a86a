"""After a pause of the whole process, nothing is decided before somebody has looked whether it is still ours to decide.

A process that was stopped (SIGSTOP, a virtual machine that slept) believes what it believed before: that its session
lives, and that its tasks are its own. Longer than the leader's patience, and neither needs to be true.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cronkeeper.domain.placement import START_WITHIN_S
from cronkeeper.runtime.clock import Clock

log = logging.getLogger(__name__)

#: How often the guard notes that the process runs; a note that is older than PAUSE_S tells of a pause.
BEAT_S = 0.5
#: Nobody is given up sooner.
PAUSE_S = START_WITHIN_S
#: Without ZooKeeper nobody can look: after so long the node goes on by itself, as it does whenever it is cut off.
HOLD_S = 10.0
#: While it holds, the look is repeated so often.
LOOK_AGAIN_S = 0.2


class PauseGuard:
    """`beat` is the body of a loop; `holds` is asked before each decision; `around` wraps the look at our tasks.

    `heard_s` returns when (boot-time clock) the newest message was sent that ZooKeeper has acknowledged.
    """

    def __init__(self, clock: Clock, heard_s: Callable[[], float]) -> None:
        self._clock = clock
        self._heard_s = heard_s
        self._lock = threading.Lock()
        self._beat_s: float | None = None
        self._paused_s: float | None = None
        #: Called when a pause was found, from any thread: must only wake who looks.
        self.on_pause: Callable[[], None] = lambda: None

    def beat(self) -> float:
        """Note that the process runs."""
        self._note()
        return BEAT_S

    def holds(self) -> bool:
        """Say whether to decide nothing for now. Whoever runs first after a pause finds it out here."""
        self._note()
        with self._lock:
            if self._paused_s is not None and self._clock.boot_s() - self._paused_s > HOLD_S:
                self._paused_s = None
                log.warning("nobody could look after a pause; going on", extra={"event": "pause.unlooked"})
            return self._paused_s is not None

    def around(self, step: Callable[[], float]) -> Callable[[], float]:
        """Return a step that ends the hold once it has looked over a connection that has outlived the pause."""

        def looked() -> float:
            with self._lock:
                paused_s = self._paused_s
                fresh = paused_s is not None and self._heard_s() > paused_s
            wait_s = step()
            with self._lock:
                # Another pause, in the middle of the look, is for the next look to end.
                if fresh and self._paused_s == paused_s:
                    self._paused_s = None
                return wait_s if self._paused_s is None else min(wait_s, LOOK_AGAIN_S)

        return looked

    def _note(self) -> None:
        with self._lock:
            now_s, before_s = self._clock.boot_s(), self._beat_s
            self._beat_s = now_s
            # The first note begins it: whatever a start takes is no pause.
            paused_s = 0.0 if before_s is None else now_s - before_s
            paused = paused_s > PAUSE_S
            if paused:
                self._paused_s = now_s
        if paused:
            log.warning(
                "the process was paused; it looks at its tasks before it goes on",
                extra={"event": "worker.paused", "seconds": round(paused_s, 1)},
            )
            self.on_pause()
