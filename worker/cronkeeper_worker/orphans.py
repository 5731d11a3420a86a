"""Runs whose parent is somebody else: a runner that died, one of another version, or `cronkeeper-fire` on its own.

They are found by their folders, proven by pid, start time and boot id, watched, and ended on demand. How such a run
ended is known to its parent alone; only when that says nothing within some seconds is the run told as lost.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from cronkeeper_worker import descriptors, run_files
from cronkeeper_worker.orders import Ended, RunEvent, Started

if TYPE_CHECKING:
    from cronkeeper_worker.executor import Executor

#: A living parent needs up to 2 s to collect the last output; after this long there is none.
_PARENT_ANSWERS_S = 4.0
#: A folder this old without a start belongs to a parent that died while it prepared the run.
_PREPARED_S = 10.0
_LOOK_S = 0.1


class _Orphan:
    __slots__ = ("cancelled", "folder", "pidfd", "run_id", "start", "timed_out")

    def __init__(self, run_id: str, folder: str, start: run_files.RunStart) -> None:
        self.run_id = run_id
        self.folder = folder
        self.start = start
        self.pidfd = -1
        self.cancelled = False
        self.timed_out = False


class Orphans:
    """Watches the runs under an executor's state folder that are not the executor's own. Reports through it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._runs = run_files.runs_folder(executor.state_dir)
        self._orphans: dict[str, _Orphan] = {}
        self._preparing: set[str] = set()

    @property
    def idle(self) -> bool:
        """No run of anybody else is under way."""
        return not (self._orphans or self._preparing)

    def running(self) -> list[Started]:
        """Return the living runs of others."""
        return [Started(o.run_id, o.start.pid, o.start.started_ms) for o in self._orphans.values() if o.pidfd >= 0]

    def knows(self, run_id: str) -> bool:
        """Say whether somebody else's run is under way, as far as we can tell."""
        return run_id in self._orphans or run_id in self._preparing

    def scan(self) -> list[RunEvent]:
        """Look through all folders: return the ends that nobody acknowledged yet, and begin to watch what is new."""
        ended: list[RunEvent] = []
        for run_id in sorted(os.listdir(self._runs)):
            if self._executor.knows(run_id):
                continue
            event = run_files.read_exit(os.path.join(self._runs, run_id))
            if event is not None:
                ended.append(event)
            elif run_id not in self._orphans and run_id not in self._preparing:
                self._adopt(run_id)
        return ended

    def finish_off(self, ended: list[RunEvent]) -> None:
        """End what is left of runs that were cancelled or timed out, and whose parent died before all of it was over.

        For a start, when no grace of our own can be under way.
        """
        for run_id in self._executor.groups.condemned():
            self._executor.remains.clear(run_id, 0, 0.0, all_of_it=True)
        for event in ended:
            if isinstance(event, Ended) and (event.cancelled or event.timed_out):
                start = run_files.read_start(os.path.join(self._runs, event.run_id))
                self._executor.remains.clear(event.run_id, 0, start.kill_after_s if start else 0.0, all_of_it=True)

    def cancel(self, run_id: str) -> None:
        """End the run of somebody else: SIGTERM, and SIGKILL after its grace. Unknown runs are ignored."""
        orphan = self._orphans.get(run_id)
        if orphan is not None and not orphan.cancelled:
            orphan.cancelled = True
            self._terminate(orphan)

    def _adopt(self, run_id: str) -> None:
        if not descriptors.are_free():
            # It would look as if it were over.
            self._wait_for(run_id)
            return
        folder = os.path.join(self._runs, run_id)
        start = run_files.read_start(folder)
        if start is not None and start.pid == 0:
            start = self._find(run_id, folder, start)
        if start is None:
            self._wait_for(run_id)
            return
        orphan = self._orphans[run_id] = _Orphan(run_id, folder, start)
        if not self._watch(orphan):
            self._gone(orphan)

    def _wait_for(self, run_id: str) -> None:
        self._preparing.add(run_id)
        self._executor.timers.after(_LOOK_S, lambda: self._on_prepared(run_id))

    def _find(self, run_id: str, folder: str, start: run_files.RunStart) -> run_files.RunStart | None:
        """Its parent is just making the process, or died in the act. None: wait for it to be written down."""
        if time.time() * 1000 - start.started_ms < _PREPARED_S * 1000:
            return None
        # Its control group holds what is its own, and nobody else; without one, somebody may pretend to be it.
        members = self._executor.groups.members(run_id)
        pid = next(filter(run_files.leads_a_session, members), 0) or run_files.find(folder, run_id)
        # Without a process it may have run or not: it is watched as what it is, dead, and told as lost.
        return start._replace(pid=pid, start_ticks=run_files.start_ticks(pid)) if pid else start

    def _watch(self, orphan: _Orphan) -> bool:
        """Get a handle of the process. The proof comes after the handle, so that the handle is of what was proven."""
        try:
            orphan.pidfd = os.pidfd_open(orphan.start.pid)
        except (OSError, ValueError):
            return False
        if not run_files.is_alive(orphan.start):
            self._close(orphan)
            return False
        self._executor.watch(orphan.pidfd, lambda: self._gone(orphan))
        if orphan.start.timeout_s is not None:
            # Its parent goes first, if it lives: only that can tell a time-out from any other SIGTERM.
            left = orphan.start.started_ms / 1000 + orphan.start.timeout_s + _PARENT_ANSWERS_S - time.time()
            self._executor.timers.after(max(0.0, left), lambda: self._on_timeout(orphan))
        return True

    def _on_prepared(self, run_id: str) -> None:
        """A folder without a start: another process is about to start the run, or died before it did."""
        if not descriptors.are_free():
            self._wait_for(run_id)
            return
        folder = os.path.join(self._runs, run_id)
        try:
            age_s = time.time() - os.stat(folder).st_mtime
        except FileNotFoundError:
            self._preparing.discard(run_id)
            return
        start = run_files.read_start(folder)
        waiting = start is None or start.pid == 0
        if waiting and run_files.read_exit(folder) is None and age_s < _PREPARED_S:
            self._wait_for(run_id)
            return
        self._preparing.discard(run_id)
        event = run_files.read_exit(folder)
        if event is not None:
            self._executor.tell(event)
        elif start is not None:
            self._adopt(run_id)
        else:
            # The process notes its start before it becomes the job; but a note may have gone with the power. It is lost
            # and not refused: a job that is to be run again after a loss is, and no other.
            self._write(folder, Ended(run_id, _now_ms(), None, None, False, False, 0, "", lost=True))

    def _gone(self, orphan: _Orphan) -> None:
        """The process is over: give its parent some seconds to say how."""
        self._close(orphan)
        self._await_answer(orphan, _now_ms(), time.monotonic() + _PARENT_ANSWERS_S)

    def _await_answer(self, orphan: _Orphan, ended_ms: int, until: float) -> None:
        readable = descriptors.are_free()
        event = run_files.read_exit(orphan.folder) if readable else None
        expected = event is None and time.monotonic() < until and os.path.isdir(orphan.folder)
        if expected or not readable:
            self._executor.timers.after(_LOOK_S, lambda: self._await_answer(orphan, ended_ms, until))
            return
        del self._orphans[orphan.run_id]
        by_order = orphan.cancelled or orphan.timed_out
        if isinstance(event, Ended):
            by_order = by_order or event.cancelled or event.timed_out
        self._executor.remains.clear(orphan.run_id, 0, orphan.start.kill_after_s, all_of_it=by_order)
        if event is not None:
            self._executor.tell(event)
        elif os.path.isdir(orphan.folder):
            self._write(orphan.folder, self._lost(orphan, ended_ms))

    def _lost(self, orphan: _Orphan, ended_ms: int) -> Ended:
        size, tail = run_files.output_tail(orphan.folder)
        return Ended(orphan.run_id, ended_ms, None, None, orphan.timed_out, orphan.cancelled, size, tail, lost=True)

    def _write(self, folder: str, event: Ended) -> None:
        self._executor.note(folder, event)

    def _on_timeout(self, orphan: _Orphan) -> None:
        if orphan.pidfd >= 0 and not orphan.cancelled:
            orphan.timed_out = True
            self._terminate(orphan)

    def _terminate(self, orphan: _Orphan) -> None:
        self._signal(orphan, signal.SIGTERM)
        self._executor.groups.signal(orphan.run_id, signal.SIGTERM, but=orphan.start.pid)
        self._executor.timers.after(orphan.start.kill_after_s, lambda: self._kill(orphan))

    def _kill(self, orphan: _Orphan) -> None:
        self._signal(orphan, signal.SIGKILL)
        self._executor.groups.kill(orphan.run_id)

    def _signal(self, orphan: _Orphan, number: signal.Signals) -> None:
        if orphan.pidfd >= 0 and run_files.is_alive(orphan.start):
            try:
                os.killpg(orphan.start.pid, number)
            except (ProcessLookupError, PermissionError):
                return

    def _close(self, orphan: _Orphan) -> None:
        if orphan.pidfd >= 0:
            self._executor.unwatch(orphan.pidfd)
            os.close(orphan.pidfd)
            orphan.pidfd = -1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
