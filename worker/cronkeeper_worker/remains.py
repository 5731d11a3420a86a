"""What ended runs leave behind: members of their process group, and folders that a program has to remove."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronkeeper_worker.timers import Timers

_LOOK_S = 0.1
#: Nobody survives SIGKILL: whoever is there so long after it is a zombie that its new parent does not collect.
_ZOMBIE_S = 2.0


class Remains:
    """Ends and reaps, a look at a time; `busy` while something is still to go."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._left = 0

    @property
    def busy(self) -> bool:
        """Whether anything is still to go."""
        return self._left > 0

    def clear_group(self, group: int, kill_after_s: float) -> None:
        """End the children that a main process left behind: they got SIGTERM, and get SIGKILL after `kill_after_s`.

        The group's number stays taken while a member lives, and looking ten times a second leaves no time for the
        kernel to hand it out again.
        """
        if signal_group(group, 0):
            self._left += 1
            self._clear(group, boot_s() + kill_after_s)

    def reap(self, pid: int) -> None:
        """Collect a child of ours that ends soon."""
        self._left += 1
        self._reap(pid)

    def _clear(self, group: int, kill_at: float) -> None:
        if not signal_group(group, 0):
            self._left -= 1
            return
        if boot_s() >= kill_at:
            signal_group(group, signal.SIGKILL)
            if boot_s() >= kill_at + _ZOMBIE_S:
                self._left -= 1
                return
        self._timers.after(_LOOK_S, lambda: self._clear(group, kill_at))

    def _reap(self, pid: int) -> None:
        if os.waitpid(pid, os.WNOHANG)[0]:
            self._left -= 1
        else:
            self._timers.after(_LOOK_S, lambda: self._reap(pid))


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; say whether there was anybody left to get it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member changed its account: it is there, and not ours to end
        return True
    return True


def boot_s() -> float:
    """Return the boot-time clock, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
