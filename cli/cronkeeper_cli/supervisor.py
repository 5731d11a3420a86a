"""A small supervisor: forks parts of this program, starts the dead ones again, stops them all.

Forked, not executed: the parts share what was imported before, which makes them start in milliseconds and keeps one
copy of it in memory. That asks for a process of a single thread, which this one therefore is and stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cronkeeper.errors import CronkeeperError

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
#: A part that ran for so long counts as sound again: its next end is its first failure.
_SOUND_AFTER_S = 30.0
#: Signals that come so soon after the first are no second wish.
_SAME_WISH_S = 1.0
_LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOG_LOOK_S = 60.0
_TAIL_LINES = 15


@dataclass(eq=False, kw_only=True)
class Child:
    """What is watched: its name, and how its starts went."""

    name: str
    pidfd: int = -1
    failures: int = 0
    started_s: float = 0.0
    #: When it is to be started again (monotonic); None while it runs.
    again_s: float | None = None


@dataclass(eq=False, kw_only=True)
class Part(Child):
    """A child of our own: what it runs, whose result is its exit status."""

    run: Callable[[], int]
    #: Runs to its end once; it is not started again.
    once: bool = False
    pid: int = 0
    status: int | None = None

    @property
    def running(self) -> bool:
        return self.pid != 0


@dataclass(eq=False, kw_only=True)
class Foreign(Child):
    """A child that somebody else starts and reaps (ZooKeeper): its pid now, and how it is started again."""

    pid: Callable[[], int | None]
    start: Callable[[], None]


def wait_before_restart_s(failures: int) -> float:
    """Return the seconds to wait before the next start after so many failures in a row: doubled, bounded."""
    return min(_FIRST_WAIT_S * 2.0 ** min(failures - 1, 16), _LONGEST_WAIT_S)


@dataclass
class Supervisor:
    """Children of one process. Use it from the main thread only; `log_dir` gets one file for each part."""

    log_dir: Path
    say: Callable[[str], None]
    parts: list[Part] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._next_log_look_s = time.monotonic() + _LOG_LOOK_S

    @property
    def stop_asked(self) -> int:
        """How often TERM, INT or HUP came."""
        return self._signals

    def catch_signals(self) -> None:
        """Have TERM, INT and HUP counted and end the present wait. They end nothing by themselves."""

        def count(_number: int, _frame: object) -> None:
            self._signals += 1

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, count)
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)

    def start(self, part: Part) -> None:
        """Fork one part and watch it from now on."""
        if part not in self.parts:
            self.parts.append(part)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(part, parent)
        part.pid, part.started_s, part.again_s, part.status = pid, time.monotonic(), None, None
        part.pidfd = os.pidfd_open(pid)
        self._selector.register(part.pidfd, selectors.EVENT_READ, part)

    def watch(self, child: Foreign) -> None:
        """Watch a child that was just started by somebody else."""
        if child not in self.foreign:
            self.foreign.append(child)
        pid = child.pid()
        if pid is None:
            raise RuntimeError(f"{child.name} is not running")
        child.started_s, child.again_s = time.monotonic(), None
        child.pidfd = os.pidfd_open(pid)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def turn(self, wait_s: float) -> None:
        """Wait for an event, at most so long; note who ended, and start again whose time has come."""
        now = time.monotonic()
        due = [child.again_s for child in (*self.parts, *self.foreign) if child.again_s is not None]
        wait_s = max(0.0, min([wait_s, self._next_log_look_s - now, *(at - now for at in due)]))
        for key, _ in self._selector.select(wait_s):
            if isinstance(key.data, Part):
                self._reap(key.data)
                if not key.data.once:
                    self._plan_restart(key.data, f"ended with status {key.data.status} ({self.log_path(key.data)})")
            elif isinstance(key.data, Foreign):
                self._forget(key.data)
                self._plan_restart(key.data, "ended")
            else:
                self._drain_wakes()
        self._restart_due()
        self._look_after_logs()

    def stop_parts(self, timeout_s: float) -> None:
        """TERM to all parts, and KILL to those that are still there after `timeout_s` or at the next signal."""
        for child in (*self.parts, *self.foreign):
            child.again_s = None
        for part in self._running():
            os.kill(part.pid, signal.SIGTERM)
        self._wait_for_end(timeout_s)
        for part in self._running():
            os.killpg(part.pid, signal.SIGKILL)
            select.select([part.pidfd], [], [])
            self._reap(part)

    def _running(self) -> list[Part]:
        return [part for part in self.parts if part.running]

    def _wait_for_end(self, timeout_s: float) -> None:
        begun = time.monotonic()
        asked = self._signals
        while self._running() and (left_s := begun + timeout_s - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                if isinstance(key.data, Part):
                    self._reap(key.data)
                elif key.data is None:
                    self._drain_wakes()
            if self._signals > asked and time.monotonic() - begun > _SAME_WISH_S:
                return
            # A terminal and a service manager may both tell us of the same end; who asks again later, means it.
            asked = self._signals

    def tail(self, part: Part) -> str:
        """Return the last lines of a part's log."""
        path = self.log_path(part)
        lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if path.exists() else []
        return "\n".join([f"--- the end of {path}:", *lines])

    def log_path(self, part: Part) -> Path:
        """Where a part's standard output and error go."""
        return self.log_dir / f"{part.name}.log"

    def _become(self, part: Part, parent: int) -> NoReturn:
        status = 1
        try:
            _prepare_child(part.name, parent, self.log_path(part))
            self._selector.close()
            for other in (*self.parts, *self.foreign):
                if other.pidfd >= 0:
                    os.close(other.pidfd)
            status = part.run()
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 1
        except BaseException:  # noqa: BLE001 - the child must not go on as a second supervisor, whatever happened
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not sys.exit: what the parent registered for its own end is not for its children.
            os._exit(status)

    def _plan_restart(self, child: Child, how: str) -> None:
        now = time.monotonic()
        child.failures = 1 if now - child.started_s > _SOUND_AFTER_S else child.failures + 1
        wait_s = wait_before_restart_s(child.failures)
        child.again_s = now + wait_s
        self.say(f"{child.name} {how}; it is started again in {wait_s:.1f} s")

    def _reap(self, part: Part) -> None:
        pid, raw = os.waitpid(part.pid, 0)
        part.status = os.waitstatus_to_exitcode(raw)
        self._forget(part)
        part.pid = 0
        # What it left in its group (gunicorn's worker, if its master was killed) must not meet its successor.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _forget(self, child: Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1

    def _restart_due(self) -> None:
        now = time.monotonic()
        for child in (*self.parts, *self.foreign):
            if child.again_s is None or child.again_s > now:
                continue
            try:
                self._start_again(child)
            except (OSError, CronkeeperError) as exc:
                self._plan_restart(child, f"did not start ({exc})")

    def _start_again(self, child: Child) -> None:
        if isinstance(child, Part):
            self.start(child)
        elif isinstance(child, Foreign):
            child.start()
            self.watch(child)

    def _drain_wakes(self) -> None:
        try:
            while os.read(self._wake_out, 512):
                pass
        except BlockingIOError:
            pass

    def _look_after_logs(self) -> None:
        if time.monotonic() < self._next_log_look_s:
            return
        self._next_log_look_s = time.monotonic() + _LOG_LOOK_S
        for part in self.parts:
            shorten_log(self.log_path(part))


def shorten_log(path: Path, limit_bytes: int = _LOG_LIMIT_BYTES) -> None:
    """Keep a log that is being appended to within its limit: what is there goes to `<log>.old`, and it begins anew."""
    if not path.exists() or path.stat().st_size <= limit_bytes:
        return
    path.with_suffix(".log.old").write_bytes(path.read_bytes())
    os.truncate(path, 0)


def _prepare_child(name: str, parent: int, log_path: Path) -> None:
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)  # it died between the fork and our asking to be told
    libc.prctl(_PR_SET_NAME, f"ck-{name}".encode(), 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with log_path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
