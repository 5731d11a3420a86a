"""A run whose parent we are: its process, what it is watched by, and what has become of it so far."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from cronkeeper_worker.capture import Capture
from cronkeeper_worker.remains import signal_group

if TYPE_CHECKING:
    from cronkeeper_worker.launched import Launched
    from cronkeeper_worker.orders import Order
    from cronkeeper_worker.timers import Timer

#: While others are to start, ended ones wait so long, or for so many: each holds up to three descriptors.
_ENDED_WAIT_S, _ENDED_MOST = 0.4, 256


class RunProcess:
    """A run that we are the parent of."""

    __slots__ = (
        "cancelled", "direct", "ended_ms", "exit_code", "folder", "is_started", "kill_after_s", "output", "over", "pid",
        "pidfd", "reason", "run_id", "signal", "started_ms", "status", "timed_out", "timer",
    )  # fmt: skip

    def __init__(self, order: Order, launched: Launched, folder: str) -> None:
        self.run_id = order.run_id
        self.folder = folder
        #: Its order, if it was to go without a shell.
        self.direct = order if launched.direct else None
        self.kill_after_s = order.kill_after_s
        self.pid = launched.pid
        #: Descriptors; -1 once closed.
        self.pidfd, self.status = launched.pidfd, launched.status_fd
        values = [secret.value.encode() for secret in order.secrets.values()]
        self.output = Capture(launched.output_fd, folder, order.output_kb * 1024, values)
        #: Why it is not executed, as far as it has been told.
        self.reason = b""
        #: When there was a process; `is_started` says that it is the job by now.
        self.started_ms = launched.started_ms
        self.is_started = False
        #: When its main process was seen to have ended; 0 before.
        self.ended_ms = 0
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.timed_out = False
        self.cancelled = False
        #: Its time-out; then the grace before SIGKILL.
        self.timer: Timer | None = None
        #: The main process has ended and was reaped.
        self.over = False

    def look_how(self) -> None:
        """Take note of how its main process has ended. Until that is reaped, its number cannot be anybody else's."""
        found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        assert found is not None
        if found.si_code == os.CLD_EXITED:
            self.exit_code = found.si_status
        else:
            self.signal = found.si_status
        self.over = True

    def send(self, number: int) -> None:
        """Signal its process group; or the process, where it has not come so far as to have one."""
        if not signal_group(self.pid, number) and self.pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.pidfd, number)


class OverRuns:
    """Runs whose main process was seen to have ended: those that are to start go first, but not for long."""

    def __init__(self) -> None:
        self._runs: list[RunProcess] = []
        self._first_s = 0.0

    def add(self, run: RunProcess, ended_ms: int) -> None:
        """Take note of it now; it is seen to later."""
        self._first_s = self._first_s if self._runs else time.monotonic()
        run.ended_ms = ended_ms
        self._runs.append(run)

    def take(self, *, others_wait: bool) -> list[RunProcess]:
        """Return those that are to be seen to now, oldest first; `others_wait` to be started."""
        if others_wait and len(self._runs) < _ENDED_MOST and time.monotonic() < self._first_s + _ENDED_WAIT_S:
            return []
        runs, self._runs = self._runs, []
        return runs
