"""Runs processes: starts what is ordered, reads its output, ends it in time, and tells how it ended.

One thread, one epoll, no locks. The runner drives an Executor for months; `cronkeeper-fire` drives one for a single
fire when daemon and runner are both away. `poll` does all the work and never blocks for longer than it is told.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from cronkeeper_worker import launch, programs, run_files
from cronkeeper_worker.launched import Launched, NotTried, Vanished, has_expired
from cronkeeper_worker.orders import (
    AccountError,
    Ended,
    Expired,
    Order,
    OrderError,
    RunEvent,
    SpawnFailed,
    Started,
    check,
    is_run_id,
)
from cronkeeper_worker.remains import Remains, signal_group
from cronkeeper_worker.run_process import OverRuns, RunProcess
from cronkeeper_worker.spawn import explain
from cronkeeper_worker.timers import Timer, Timers

if TYPE_CHECKING:
    from collections.abc import Callable

#: Forks between two looks at everything else: keeps pipes drained and clients answered while a thousand start.
_STARTS_PER_TURN = 32
#: How long a stray child may hold a run's output open after the main process has ended.
_DRAIN_S = 2.0
#: What cannot be read at the moment is read again after so long.
_AGAIN_S = 0.5


class Executor:
    """Carries out orders under one state folder, and reports by events.

    `flush_exits`: whether the note of a run's end is forced to the disk before the event comes out. Set it while nobody
    listens who writes the event down at once. `group` may read the notes and outputs of runs; `processes` bounds those
    of each account (0: half of what the kernel has). `log` takes a sentence for whoever looks after the node.
    """

    def __init__(
        self,
        state_dir: str,
        *,
        flush_exits: bool = True,
        group: int = -1,
        processes: int = 0,
        log: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.state_dir = state_dir
        self.flush_exits = flush_exits
        self._launcher = launch.Launcher(state_dir, group=group, processes=processes, log=log)
        #: What the kernel knows of each run, however far its processes go.
        self.groups = self._launcher.groups
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._queue: deque[Order] = deque()
        self._runs: dict[str, RunProcess] = {}
        self._over = OverRuns()
        self.timers = Timers()
        self._events: list[RunEvent] = []
        #: Notes that could not be written (the disk is full), until they are acknowledged.
        self.unwritten: dict[str, RunEvent] = {}
        self.remains = Remains(self.timers, self.groups)

    # ------------------------------------------------------------------------------------------------------- orders

    def start(self, order: Order) -> None:
        """Queue an order; `poll` answers with Started or SpawnFailed. One that is under way already is no error."""
        try:
            check(order)
        except OrderError as exc:
            self._events.append(SpawnFailed(order.run_id, str(exc), _now_ms()))
            return
        self._queue.append(order)

    def cancel(self, run_id: str) -> None:
        """End a run: SIGTERM to all of it, SIGKILL after the order's `kill_after_s`. Unknown runs are ignored."""
        for order in self._queue:
            if order.run_id == run_id:
                self._queue.remove(order)
                self._events.append(Ended(run_id, _now_ms(), None, None, False, True, 0, ""))
                return
        run = self._runs.get(run_id)
        if run is not None and not run.ended_ms and not run.cancelled:
            run.cancelled = True
            self._terminate(run)

    def running(self) -> list[Started]:
        """Return the runs whose process was executed and has not ended."""
        return [Started(run.run_id, run.pid, run.started_ms) for run in self._runs.values() if run.is_started]

    def knows(self, run_id: str) -> bool:
        """Say whether the run is queued or under way here."""
        return run_id in self._runs or any(order.run_id == run_id for order in self._queue)

    @property
    def idle(self) -> bool:
        """Nothing is queued, running or being cleared away."""
        return not (self._queue or self._runs or self.remains.busy)

    def forget(self, run_id: str) -> None:
        """Remove an ended run's folder with all it holds. Safe to repeat."""
        self.unwritten.pop(run_id, None)
        if is_run_id(run_id) and run_id not in self._runs and not self._launcher.folders.remove(run_id):
            self.remains.reap(programs.remove_tree(run_files.run_folder(self.state_dir, run_id)))

    # --------------------------------------------------------------------------------------------------------- loop

    def poll(self, timeout_s: float) -> list[RunEvent]:
        """Work for up to `timeout_s`, or until something happened; return what it was, oldest first."""
        self._start_next()
        if self._queue or self._events:
            timeout_s = 0
        ready = [(fd, self._handlers.get(fd)) for fd, _mask in self._epoll.poll(self.timers.wait_s(timeout_s))]
        for fd, handler in ready:
            # Another one of the same turn may have closed the descriptor, or have given its number to somebody else.
            if handler is not None and self._handlers.get(fd) is handler:
                handler()
        self.timers.run_due()
        for run in self._over.take(others_wait=bool(self._queue)):
            self._collect(run)
        events, self._events = self._events, []
        return events

    def watch(self, fd: int, handler: Callable[[], None], *, mask: int = select.EPOLLIN) -> None:
        """Have `poll` call `handler` while the descriptor is ready; calling again changes the mask."""
        if fd in self._handlers:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def reap(self, pid: int) -> None:
        """Collect a child of ours that ends soon."""
        self.remains.reap(pid)

    def tell(self, event: RunEvent) -> None:
        """Have the next `poll` return this event: for who finds out about runs that are not ours (see orphans)."""
        self._events.append(event)

    def close(self) -> None:
        """Let go of everything; runs go on, but nobody reads their output any more. For tests and for one-shot use."""
        for run in list(self._runs.values()):
            self._close_run(run)
        self._epoll.close()
        self._launcher.close()

    # -------------------------------------------------------------------------------------------------------- start

    def _start_next(self) -> None:
        some = [self._queue.popleft() for _ in range(min(_STARTS_PER_TURN, len(self._queue)))]
        again: list[Order] = []
        self._launcher.launch_all(
            filter(self._is_wanted, some),
            lambda order, how: again.append(order) if isinstance(how, NotTried) else self._on_launched(order, how),
        )
        self._queue.extendleft(reversed(again))
        self.remains.adopt(self._launcher.take_strays())

    def _is_wanted(self, order: Order) -> bool:
        folder = run_files.run_folder(self.state_dir, order.run_id)
        if os.path.isdir(folder):
            # Whatever may keep it from being started now, it was.
            self._answer_again(order, folder)
            return False
        if has_expired(order):
            # The last look before the process is made: only a pause between here and its first instruction is left.
            self._events.append(Expired(order.run_id))
            return False
        return True

    def _on_launched(self, order: Order, outcome: Launched | Exception, timer: Timer | None = None) -> None:
        folder = run_files.run_folder(self.state_dir, order.run_id)
        match outcome:
            case FileExistsError():
                self._answer_again(order, folder)
            case Vanished():
                self.timers.cancel(timer)
                self.note(folder, Ended(order.run_id, _now_ms(), None, None, False, False, 0, "", lost=True))
            case Exception():
                self.timers.cancel(timer)
                self._fail(order.run_id, folder, str(outcome), account=isinstance(outcome, AccountError))
            case Launched():
                self._attend(order, outcome, folder, timer)

    def _attend(self, order: Order, launched: Launched, folder: str, timer: Timer | None) -> None:
        """Be its parent from now on."""
        run = self._runs[order.run_id] = RunProcess(order, launched, folder)
        run.timer = timer
        if timer is None and order.timeout_s is not None:
            # From now on: the program may lie on a disk that hangs.
            run.timer = self.timers.after(order.timeout_s, lambda: self._on_timeout(order.run_id))
        if run.status < 0:
            self._on_started(run)
        else:
            os.set_blocking(run.status, False)
            self.watch(run.status, lambda: self._on_status(run))
        self.watch(run.output.fd, lambda: self._on_output(run))
        self.watch(run.pidfd, lambda: self._on_exit(run))

    def _answer_again(self, order: Order, folder: str) -> None:
        """The run was started before: tell what became of it, if it is the same order; refuse another one."""
        try:
            start = run_files.read_start(folder)
            if start is not None and run_files.is_of_another(start, order.nonce, launch.digest(order)):
                self._events.append(SpawnFailed(order.run_id, "another order has this run id", _now_ms()))
                return
            self._tell_again(order.run_id, folder)
        except OSError:
            # What became of it cannot be read now.
            self.timers.after(_AGAIN_S, lambda: self.start(order))

    def _tell_again(self, run_id: str, folder: str) -> None:
        run, ended = self._runs.get(run_id), run_files.read_exit(folder)
        if run is not None and run.is_started:
            self._events.append(Started(run.run_id, run.pid, run.started_ms))
        elif run is None and ended is not None:
            self._events.append(ended)

    def recall(self, run_id: str, nonce: str) -> bool:
        """Have `poll` tell again what became of a run that was started before by this nonce; False if there is none."""
        folder = run_files.run_folder(self.state_dir, run_id)
        start = run_files.read_start(folder) if is_run_id(run_id) else None
        if start is None or start.nonce != nonce:
            return False
        self._tell_again(run_id, folder)
        return True

    def _fail(self, run_id: str, folder: str, message: str, *, account: bool = False) -> None:
        event = SpawnFailed(run_id, message, _now_ms(), account)
        # When the disk is full, the note below goes the same way, and is kept in memory.
        with contextlib.suppress(OSError):
            self._launcher.folders.make_bare(run_id)
        self.note(folder, event)

    def _on_status(self, run: RunProcess) -> None:
        try:
            while piece := os.read(run.status, 4096):
                run.reason += piece
        except BlockingIOError:
            # It comes in pieces, by somebody whom others of the same account can stop in between: nobody waits for it.
            return
        self.unwatch(run.status)
        os.close(run.status)
        run.status = -1
        if run.reason:
            self._on_refused(run)
            return
        self._on_started(run)
        if run.cancelled or run.timed_out:
            # Before it was executed, a signal was heard by our own handlers, which it had of us.
            run.send(signal.SIGTERM)

    def _on_refused(self, run: RunProcess) -> None:
        """It was not executed: tell why; or have the shell try, which runs a text without a first line, and has words
        for what is missing."""
        os.waitpid(run.pid, 0)
        self.groups.remove(run.run_id)
        self._close_run(run)
        del self._runs[run.run_id]
        text, of_program = explain(run.reason)
        ended = run.cancelled or run.timed_out
        if run.direct is not None and of_program and not ended and not has_expired(run.direct):
            self._on_launched(run.direct, self._launcher.launch(run.direct, by_shell=True), run.timer)
            return
        self.timers.cancel(run.timer)
        if ended:
            self.note(run.folder, Ended(run.run_id, _now_ms(), None, None, run.timed_out, run.cancelled, 0, ""))
        elif run.direct is not None and of_program:
            self.forget(run.run_id)
            self._events.append(Expired(run.run_id))
        else:
            self._fail(run.run_id, run.folder, text)

    def _on_started(self, run: RunProcess) -> None:
        run.is_started = True
        if not run.started_ms:
            start = run_files.read_start(run.folder)
            run.started_ms = start.started_ms if start is not None else _now_ms()
        self._events.append(Started(run.run_id, run.pid, run.started_ms))

    # ----------------------------------------------------------------------------------------------------- watching

    def _on_output(self, run: RunProcess) -> None:
        if not run.output.take():
            self._close_output(run)
            if run.over:
                self._finish(run)

    def _on_exit(self, run: RunProcess) -> None:
        if run.status >= 0:
            # It was quicker than we are: first say that it started, or why not.
            self._on_status(run)
            if self._runs.get(run.run_id) is not run:
                return
        self._over.add(run, _now_ms())
        self.timers.cancel(run.timer)
        self.unwatch(run.pidfd)

    def _collect(self, run: RunProcess) -> None:
        run.look_how()
        # Until it is reaped its number cannot belong to anybody else, so this reaches nobody but its own group.
        signal_group(run.pid, signal.SIGTERM)
        os.waitpid(run.pid, 0)
        os.close(run.pidfd)
        run.pidfd = -1
        self.remains.clear(run.run_id, run.pid, run.kill_after_s, all_of_it=run.timed_out or run.cancelled)
        if run.output.fd < 0:
            self._finish(run)
        else:
            self.timers.after(_DRAIN_S, lambda: self._on_drained(run))

    def _on_drained(self, run: RunProcess) -> None:
        """A process that left the group still holds the output: the run is over without it."""
        if run.output.fd >= 0:
            run.output.take()
            self._close_output(run)
            self._finish(run)

    def _finish(self, run: RunProcess) -> None:
        self._close_run(run)
        del self._runs[run.run_id]
        event = Ended(
            run.run_id, run.ended_ms, run.exit_code, run.signal, run.timed_out, run.cancelled, run.output.size,
            run.output.tail(),
        )  # fmt: skip
        self.note(run.folder, event)

    def note(self, folder: str, event: Ended | SpawnFailed) -> None:
        """Write down how a run ended, and have `poll` return it."""
        # A full disk lets files go, but a broken one may not: the end is told all the same.
        with contextlib.suppress(OSError):
            run_files.withdraw(folder)
        try:
            run_files.write_exit(folder, event, flush=self.flush_exits)
        except OSError:
            # The disk is full or gone. Whoever listens now still learns it, and so does who connects later.
            self.unwritten[event.run_id] = event
        self._events.append(event)

    # ------------------------------------------------------------------------------------------------------- ending

    def _on_timeout(self, run_id: str) -> None:
        run = self._runs.get(run_id)
        if run is not None and not run.ended_ms and not run.cancelled:
            run.timed_out = True
            self._terminate(run)

    def _terminate(self, run: RunProcess) -> None:
        run.send(signal.SIGTERM)
        run.send(signal.SIGCONT)  # a stopped process would sleep on it
        self.groups.signal(run.run_id, signal.SIGTERM, but=run.pid)
        self.timers.cancel(run.timer)
        run.timer = self.timers.after(run.kill_after_s, lambda: self._kill(run))

    def _kill(self, run: RunProcess) -> None:
        run.kill_after_s = 0.0
        run.send(signal.SIGKILL)
        self.groups.kill(run.run_id)

    def _close_output(self, run: RunProcess) -> None:
        self.unwatch(run.output.fd)
        run.output.close()

    def _close_run(self, run: RunProcess) -> None:
        for fd in (run.pidfd, run.status):
            if fd >= 0:
                self.unwatch(fd)
                os.close(fd)
        run.pidfd = run.status = -1
        if run.output.fd >= 0:
            self._close_output(run)
        run.output.finish()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
