"""Starts many plain runs of one account at once: one process makes all of theirs (see litter.py)."""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cronkeeper_worker import descriptors, litter, run_files, spawn
from cronkeeper_worker.launched import Job, Launched, NotTried, Vanished, has_expired, watched_or_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronkeeper_worker.accounts import Account
    from cronkeeper_worker.launch import Launcher
    from cronkeeper_worker.launched import Tell
    from cronkeeper_worker.orders import Order

#: Fewer than these are made one by one.
_FEWEST = 4
#: Each needs so many descriptors at a time: both ends of its output, its note, its control group, its process.
_DESCRIPTORS = 5
#: After one that took too long, its account's are made one by one for so long.
_SLOW_S = 60.0
#: The kernel has no room for a process: it is not the program that it refuses.
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM})


class _Ready(NamedTuple):
    """All that a run's process needs is there."""

    job: Job
    note: run_files.StartNote
    group_fd: int
    wanted: litter.Wanted

    def close(self) -> None:
        self.job.let_go()
        self.note.close()
        if self.group_fd >= 0:
            os.close(self.group_fd)


class Together:
    """Launches by way of a launcher."""

    def __init__(self, launcher: Launcher, null_fd: int, processes: int, log: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._null = null_fd
        self._processes = processes
        self._log = log
        #: By account: until when, by the monotonic clock, its runs are made one by one.
        self._slow_until: dict[int, float] = {}

    def is_for(self, account: Account, count: int) -> bool:
        """Say whether so many runs of the account are to come here: of one that is not root, and had no trouble."""
        now = time.monotonic()
        return count >= _FEWEST and account.uid != 0 and now >= self._slow_until.get(account.uid, now)

    def make(self, orders: Sequence[Order], account: Account, tell: Tell) -> None:
        """Start their processes; `tell` gets an exception for each that has none. NotTried: order it again."""
        try:
            descriptors.need(_DESCRIPTORS * len(orders))
            self._launcher.load(account)
        except OSError as exc:
            for order in orders:
                tell(order, exc)
            return
        ready = []
        for order in orders:
            try:
                ready.append(self._prepare(order, account))
            except (ValueError, OSError) as exc:
                tell(order, exc)
        for one, outcome in zip(ready, self._litter(ready, account), strict=True):
            try:
                found: Launched | Exception = self._found(one, outcome)
            except (NotTried, Vanished, ValueError, OSError) as exc:
                found = exc
            one.close()
            if not isinstance(found, Launched):
                self._launcher.undo(one.job)
                found = self._once_more(one, outcome, found)
            tell(one.job.order, found)

    def _prepare(self, order: Order, account: Account) -> _Ready:
        job = self._launcher.prepare(order, account)
        try:
            note = run_files.StartNote(job.folder, job.start)
        except BaseException:
            self._launcher.undo(job)
            job.let_go()
            raise
        group_fd = self._launcher.groups.open(order.run_id)
        if group_fd >= 0:
            self._launcher.groups.limit(order.run_id, self._processes)
        program = job.program(spawn.words(order.command))
        wanted = litter.Wanted(*program, job.work, job.output_fd, group_fd, partial(has_expired, order))
        return _Ready(job, note, group_fd, wanted)

    def _litter(self, ready: Sequence[_Ready], account: Account) -> Sequence[litter.Outcome]:
        try:
            made = litter.make([one.wanted for one in ready], self._null, partial(self._launcher.become, account))
        except OSError:
            made = [litter.Untried()] * len(ready)
        if any(
            isinstance(outcome, litter.Unknown)
            or (isinstance(outcome, litter.Untried) and not has_expired(one.job.order))
            for one, outcome in zip(ready, made, strict=True)
        ):
            self._slow_until[account.uid] = time.monotonic() + _SLOW_S
            self._log(f"runs of {account.name} are made one by one for a minute: not all could be made together")
        return made

    def _found(self, one: _Ready, outcome: litter.Outcome) -> Launched:
        """Return the process. Raises NotTried, Vanished, or OSError: why there is none."""
        job = one.job
        match outcome:
            case litter.Made(pid, started_ms):
                status_fd = -1
            case litter.Unknown(status_fd):
                pid, started_ms = run_files.find(job.folder, job.order.run_id), time.time_ns() // 1_000_000
                if not pid:
                    os.close(status_fd)
                    raise Vanished
            case litter.Refused(number):
                what = "cannot prepare the process" if number in _NO_ROOM else "cannot execute"
                raise OSError(number, f"{what}: {os.strerror(number)}")
            case litter.Untried():
                raise NotTried
        with watched_or_dead(pid, status_fd):
            ticks = run_files.start_ticks(pid)
            one.note.complete(job.start._replace(pid=pid, start_ticks=ticks, started_ms=started_ms))
            return Launched(pid, os.pidfd_open(pid), job.output, status_fd, started_ms=started_ms)

    def _once_more(self, one: _Ready, outcome: litter.Outcome, why: Exception) -> Launched | Exception:
        """What the kernel would not execute may be for the shell; what nobody has tried leaves no trace."""
        order = one.job.order
        if isinstance(outcome, litter.Refused) and outcome.errno not in _NO_ROOM and spawn.words(order.command):
            if not has_expired(order):
                return self._launcher.launch(order, by_shell=True)
            why = NotTried()
        if isinstance(why, NotTried) and not self._launcher.folders.remove(order.run_id):
            return OSError(errno.EBUSY, "the run's folder cannot be used again")
        return why
