"""The engine's thread: one inbox, one owner of all scheduling state, and a timer that is exact to the millisecond."""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Trigger
from cronkeeper.runtime.clock import Clock
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.orders import Ended, Expired, RunnerEvent, SpawnFailed, Started
from cronkeeper_worker.pause_guard import LOOK_AGAIN_S, PauseGuard
from cronkeeper_worker.sound_journal import is_damage

log = logging.getLogger(__name__)
T = TypeVar("T")

#: The clock is looked at this often whatever is due: somebody may have set it.
LONGEST_WAIT_S = 1.0
#: After a journal that could not be written (disk full), the thread rests for so long.
FAULT_REST_S = 1.0
#: How long a goodbye waits for the runs that have begun: whatever is not told by then counts as lost.
FINISH_S = 2.0
#: What the runner tells is written down at once; what comes sooner than this after it, together: each time is a sync.
HEAR_EVERY_S = 0.02
_FINISH_LOOK_S = 0.02


class EngineThread:
    """Runs what others ask for on the engine, in order; and looks whenever something is due."""

    def __init__(self, engine: Engine, clock: Clock, guard: PauseGuard, *, timers: bool) -> None:
        self._engine = engine
        self._clock = clock
        self._guard = guard
        self._timers = timers
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started: list[tuple[RunKey, int]] = []
        self._ended: list[Ended] = []
        self._expired: list[RunKey] = []
        self._looks = 0
        self._heard_s = -HEAR_EVERY_S
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._retired = threading.Event()

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run on the engine's thread soon."""
        self._inbox.put(action)
        self._wake.set()

    def ask(self, action: Callable[[], T], timeout_s: float = 30.0) -> T:
        """Run `action` on the engine's thread and return its result. Raises what it raises, or TimeoutError."""
        done = threading.Event()
        result: list[T] = []
        fault: list[BaseException] = []

        def run() -> None:
            try:
                result.append(action())
            except BaseException as exc:  # noqa: BLE001 - it is raised again, in the thread that asked
                fault.append(exc)
            done.set()

        self.post(run)
        if not done.wait(timeout_s):
            raise TimeoutError("the engine did not answer")
        if fault:
            raise fault[0]
        return result[0]

    def look(self, _number: int = 0) -> None:
        """Cron calls: look now. Many calls before the thread gets to it are one look."""
        with self._lock:
            self._looks += 1
        self._wake.set()

    def tell(self, event: RunnerEvent) -> None:
        """The runner tells something. Starts and ends come in herds: each herd is written down with one sync."""
        if isinstance(event, SpawnFailed):
            self.post(lambda: self._engine.on_spawn_failed(event))
            return
        with self._lock:
            # Whoever is the first wakes the thread, which then waits for the others by itself.
            first = not (self._started or self._ended)
            if isinstance(event, Started):
                self._started.append((RunKey.parse(event.run_id), event.started_ms))
            elif isinstance(event, Ended):
                self._ended.append(event)
            elif isinstance(event, Expired):
                self._expired.append(RunKey.parse(event.run_id))
        if first:
            self._wake.set()

    def held(self) -> bool:
        """Say whether nothing is to be decided before somebody has looked whose our tasks are."""
        return self._guard.holds()

    def retire(self, untold: Callable[[], int]) -> None:
        """Decide nothing more, for good; return once what has begun is over and told, at the latest after FINISH_S.

        `untold` counts what MySQL has not heard yet. The thread itself goes on until `stop`.
        """
        self._retired.set()
        until_s = self._clock.boot_s() + FINISH_S
        with contextlib.suppress(TimeoutError):
            while self._clock.boot_s() < until_s and (self.ask(self._engine.running, FINISH_S) or untold()):
                self._stopping.wait(_FINISH_LOOK_S)

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """The body of the thread."""
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._turn()
            except sqlite3.Error as exc:
                if is_damage(exc):
                    # The daemon ends with this thread, and the next one begins a new journal.
                    raise
                log.error("the journal cannot be written", extra={"event": "journal.fault", "error": str(exc)})
                self._stopping.wait(FAULT_REST_S)
            self._wake.wait(self._wait_s())

    def _turn(self) -> None:
        self._hear()
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                break
            action()
        if self._guard.holds():
            return
        self._look()
        if self._engine.pump():
            self._wake.set()

    def _look(self) -> None:
        """Decide about some of what is due. Cron calls once a minute: its call stands until all of it is decided."""
        with self._lock:
            looks, self._looks = self._looks, 0
        if self._retired.is_set() or not (looks or self._timers):
            return
        more = True
        try:
            more = self._engine.look_some(Trigger.CRON if looks else Trigger.TIMER)
        finally:
            if more and looks:
                # What the runner tells, and others want, is heard between the pieces.
                with self._lock:
                    self._looks += looks
                self._wake.set()

    def _hear(self) -> None:
        """Take in what the runner has told, unless it is to wait for more."""
        if self._unheard_s() > 0:
            return
        # After a pause, what came too late is not asked for again before somebody has looked whose it is.
        held = self._guard.holds()
        expired: list[RunKey] = []
        with self._lock:
            started, self._started = self._started, []
            ended, self._ended = self._ended, []
            if not held:
                expired, self._expired = self._expired, []
        try:
            if started or ended:
                self._engine.hear(started, ended)
            if expired:
                self._engine.on_expired(expired)
        except sqlite3.Error:
            # The runner says it once: it is heard when it can be written down. Hearing it twice does no harm.
            with self._lock:
                self._started, self._ended = started + self._started, ended + self._ended
                self._expired = expired + self._expired
            raise
        if started or ended or expired:
            self._heard_s = self._clock.boot_s()

    def _unheard_s(self) -> float:
        """Return how long what the runner has told is to wait for more of it."""
        return max(0.0, self._heard_s + HEAR_EVERY_S - self._clock.boot_s())

    def _wait_s(self) -> float:
        news = self._started or self._ended or (self._expired and not self._guard.holds())
        return min(self._unheard_s(), self._look_s()) if news else self._look_s()

    def _look_s(self) -> float:
        if self._retired.is_set():
            return LONGEST_WAIT_S
        if self._guard.holds():
            return LOOK_AGAIN_S
        next_ms = self._engine.next_look_ms() if self._timers else None
        if next_ms is None:
            return LONGEST_WAIT_S
        # What was waited for by whole milliseconds came half of one late.
        return min(LONGEST_WAIT_S, max(0.0, self._clock.until_s(next_ms)))
