"""What ended runs leave behind: processes in their process group or control group, and folders to be removed."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cronkeeper_worker.control_groups import ControlGroups
    from cronkeeper_worker.timers import Timers

_LOOK_S = 0.1
#: Nobody survives SIGKILL: whoever is there so long after it is a zombie that its new parent does not collect.
_ZOMBIE_S = 2.0
#: The kernel may count a process a moment longer than its parent does.
_SETTLE_S = 0.5
#: Between two looks at what lives on after its run.
_SWEEP_S = 60.0


class Remains:
    """Ends and reaps, a look at a time; `busy` while something is still to go."""

    def __init__(self, timers: Timers, groups: ControlGroups) -> None:
        self._timers = timers
        self._groups = groups
        #: Children that nobody waits for: they end whenever they like.
        self._strays: set[int] = set()
        self._left = 0
        self._sweep()

    @property
    def busy(self) -> bool:
        """Whether anything is still to go."""
        return self._left > 0

    def clear(self, run_id: str, group: int, kill_after_s: float, *, all_of_it: bool) -> None:
        """End what an ended run has left: it got SIGTERM, and gets SIGKILL after `kill_after_s`.

        That is its process `group`, if it has one; and with `all_of_it`, whatever has left that and is still in the
        run's control group. The process group's number stays taken while a member lives, and looking ten times a second
        leaves no time for the kernel to hand it out again.
        """
        self._left += 1
        self._clear(_Rest(run_id, group, boot_s() + kill_after_s, all_of_it=all_of_it))

    def reap(self, pid: int) -> None:
        """Collect a child of ours that ends soon."""
        self._left += 1
        self._reap(pid)

    def _clear(self, rest: _Rest) -> None:
        now = boot_s()
        grouped = rest.group > 0 and signal_group(rest.group, 0)
        if grouped:
            self._reap_strays()
        strays = not self._groups.remove(rest.run_id)
        if grouped or (strays and rest.all_of_it):
            if now >= rest.kill_at:
                self._kill(rest)
            waits = now < rest.kill_at + _ZOMBIE_S
        elif strays:
            rest.ungrouped_at = rest.ungrouped_at or now
            waits = now < rest.ungrouped_at + _SETTLE_S
        else:
            waits = False
        if waits:
            self._timers.after(_LOOK_S, lambda: self._clear(rest))
            return
        self._left -= 1
        if strays:
            self._groups.outlive(rest.run_id)

    def _kill(self, rest: _Rest) -> None:
        if rest.group > 0:
            signal_group(rest.group, signal.SIGKILL)
        if rest.all_of_it:
            self._groups.kill(rest.run_id)

    def _sweep(self) -> None:
        self._groups.sweep()
        self._reap_strays()
        self._timers.after(_SWEEP_S, self._sweep)

    def adopt(self, pids: Iterable[int]) -> None:
        """Collect children that came to us as their parent ended just when we were heir (litter.py), when they end."""
        self._strays.update(pids)
        self._reap_strays()

    def _reap_strays(self) -> None:
        for pid in list(self._strays):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] != 0
            except ChildProcessError:
                ended = True
            if ended:
                self._strays.discard(pid)

    def _reap(self, pid: int) -> None:
        if os.waitpid(pid, os.WNOHANG)[0]:
            self._left -= 1
        else:
            self._timers.after(_LOOK_S, lambda: self._reap(pid))


class _Rest:
    """Of one run."""

    __slots__ = ("all_of_it", "group", "kill_at", "run_id", "ungrouped_at")

    def __init__(self, run_id: str, group: int, kill_at: float, *, all_of_it: bool) -> None:
        self.run_id = run_id
        self.group = group
        self.kill_at = kill_at
        self.all_of_it = all_of_it
        #: Since when its process group has been empty.
        self.ungrouped_at = 0.0


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
