"""Starts many plain runs of one account at once: one process makes all of theirs (see litter.py)."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cronkeeper_worker import descriptors, litter, our_process, run_files, spawn
from cronkeeper_worker.launched import Job, Launched, NotTried, Vanished, has_expired, watched_or_dead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronkeeper_worker.accounts import Account
    from cronkeeper_worker.launch import Launcher
    from cronkeeper_worker.launched import Tell
    from cronkeeper_worker.orders import Order

#: Fewer than these are made one by one.
_FEWEST = 4
#: Each needs so many descriptors at a time: both ends of its output, its note, folder, control group and process.
_DESCRIPTORS = 6
#: After one that took too long, its account's are made one by one for so long.
_SLOW_S = 60.0
#: The kernel has no room for a process: it is not the program that it refuses.
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM})


class _Ready(NamedTuple):
    """All that a run's process needs is there."""

    job: Job
    note: run_files.StartNote
    wanted: litter.Wanted

    def close(self) -> None:
        self.job.let_go()
        self.note.close()
        for fd in (self.wanted.folder_fd, self.wanted.group_fd):
            if fd >= 0:
                os.close(fd)


class Together:
    """Launches by way of a launcher."""

    def __init__(
        self,
        launcher: Launcher,
        null_fd: int,
        processes: int,
        log: Callable[[str], None],
    ) -> None:
        self._launcher = launcher
        self._null = null_fd
        self._processes = processes
        #: Children that have come to us, and are no run's.
        self.strays: set[int] = set()
        self._log = log
        #: By account: until when, by the monotonic clock, its runs are made one by one.
        self._slow_until: dict[int, float] = {}
        self._can = our_process.knows_its_children()

    def is_for(self, account: Account, count: int) -> bool:
        """Say whether so many runs of the account can be made now: of one that is not root, and had no trouble."""
        if not (self._can and count >= _FEWEST and account.uid != 0):
            return False
        try:
            descriptors.need(_DESCRIPTORS * count)
            self._launcher.load(account)
        except OSError:  # one by one it may go, or is told why not
            return False
        now = time.monotonic()
        return now >= self._slow_until.get(account.uid, now)

    def make(self, orders: Sequence[Order], account: Account, tell: Tell) -> None:
        """Start their processes; `tell` gets an exception for each that has none. NotTried: order it again."""
        ready = []
        for order in orders:
            try:
                ready.append(self._prepare(order, account))
            except (ValueError, OSError) as exc:
                tell(order, exc)
        before = our_process.children()
        made = self._litter(ready, account)
        born = our_process.children() - before
        # No run's, until one of unknown fate is found among them.
        self.strays |= born - {outcome.pid for outcome in made if isinstance(outcome, litter.Made)}
        for one, outcome in zip(ready, made, strict=True):
            found: Launched | Exception = self._found(one, outcome, born)
            one.close()
            if not isinstance(found, Launched):
                self._launcher.undo(one.job)
                found = self._once_more(one, outcome, found)
            tell(one.job.order, found)

    def _prepare(self, order: Order, account: Account) -> _Ready:
        job = self._launcher.prepare(order, account)
        with contextlib.ExitStack() as stack:
            stack.callback(self._launcher.undo, job)
            stack.callback(job.let_go)
            argv, environment = job.program(spawn.words(order.command))
            note = run_files.StartNote(job.folder, job.start)
            stack.callback(note.close)
            folder_fd = os.open(job.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, folder_fd)
            wanted = litter.Wanted(
                [os.fsencode(word) for word in argv],
                {os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
                folder_fd,
                job.output_fd,
                self._launcher.groups.open(order.run_id),
                partial(has_expired, order),
            )
            stack.pop_all()
        return _Ready(job, note, wanted)

    def _litter(self, ready: Sequence[_Ready], account: Account) -> Sequence[litter.Outcome]:
        become = partial(self._launcher.become, account)
        try:
            made, stuck = litter.make([one.wanted for one in ready], self._null, become)
        except OSError:
            made, stuck = [litter.Untried()] * len(ready), False
        begun = [outcome for outcome in made if not isinstance(outcome, litter.Untried)]
        over = all(has_expired(one.job.order) for one in ready)
        if stuck or any(isinstance(outcome, litter.Unknown) for outcome in made) or not (begun or over):
            self._slow_until[account.uid] = time.monotonic() + _SLOW_S
            self._log(f"runs of {account.name} are made one by one for a minute: not all could be made together")
        return made

    def _found(self, one: _Ready, outcome: litter.Outcome, born: set[int]) -> Launched | Exception:
        """Return the process, or why there is none. What its maker says is believed as far as it is our child."""
        status_fd, started_ms = -1, time.time_ns() // 1_000_000
        match outcome:
            case litter.Untried():
                return NotTried()
            case litter.Refused(number):
                what = "cannot prepare the process" if number in _NO_ROOM else "cannot execute"
                return OSError(number, f"{what}: {os.strerror(number)}")
            case litter.Made(pid, started_ms):
                pid = pid if pid in born else 0
            case litter.Unknown(status_fd):
                pid = self._seek(one.job)
        try:
            if pid:
                return self._watched(one, pid, status_fd, started_ms)
        except OSError as exc:
            # It may have done all that it was to do.
            self._log(f"run {one.job.order.run_id} cannot be watched: {exc}")
            return Vanished()
        if status_fd >= 0:
            os.close(status_fd)
        return Vanished()

    def _seek(self, job: Job) -> int:
        """Return which child of ours is the job's process, ended or not; 0: none."""
        groups, run_id = self._launcher.groups, job.order.run_id
        for pid in list(self.strays):
            with contextlib.suppress(OSError):  # without control groups an ended one cannot be told
                if groups.holds(run_id, pid) or (groups.reason and os.readlink(f"/proc/{pid}/cwd") == job.work):
                    self.strays.discard(pid)
                    return pid
        return 0

    def _watched(self, one: _Ready, pid: int, status_fd: int, started_ms: int) -> Launched:
        with watched_or_dead(pid, status_fd):
            ticks = run_files.start_ticks(pid)
            one.note.complete(one.job.start._replace(pid=pid, start_ticks=ticks, started_ms=started_ms))
            launched = Launched(pid, os.pidfd_open(pid), one.job.output, status_fd, started_ms=started_ms)
        self._launcher.groups.limit(one.job.order.run_id, self._processes)
        return launched

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
