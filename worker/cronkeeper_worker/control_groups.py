"""A control group for each run, where the kernel has cgroup v2 and lets us: whoever leaves a run's session stays in it.

    <where we were started>/cronkeeper.runs-<state folder>/runner          ourselves, between two starts
                                                          /run-<run id>    a run, with all that comes of it

The runner steps into a run's group, makes the process, and steps out again: so there is no instant at which the job is
elsewhere, and none of it is the job's to do. The groups are threaded ones, as a thread steps aside at once: for
a process the kernel waits until all processors have taken notice, some 10 milliseconds at every lone fire.

Nothing here is needed for a run: where there are no groups, or one cannot be made, runs start without, and `reason`
says why. What is left in a group that is frozen is to be ended, whoever finds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_PREFIX, _OURS, _RUN = "cronkeeper.runs-", "runner", "run-"
_THREADS, _PIDS_MAX, _MOUNTS = "cgroup.threads", "pids.max", "/proc/self/mountinfo"
#: What the unit file names as DelegateSubgroup: then the group above it is ours, too, and holds no process.
_DELEGATED = "cronkeeper.main"
#: In the state folder: where the groups of this boot are, for a runner that is started from elsewhere.
NOTE = "control-groups"


class ControlGroups:
    """The groups of the runs of one state folder. `log` takes a sentence when something is worth one."""

    def __init__(self, state_dir: str, boot_id: str, log: Callable[[str], None] = lambda _sentence: None) -> None:
        self._log = log
        self._lock = self._home = -1
        self._origin = self._base = ""
        self._told = False
        #: Whether the kernel's controller of how many processes a group may have is at hand.
        self._bounds = False
        #: Ended runs of which something lives on.
        self.outlived: set[str] = set()
        #: Why runs have no groups; empty when they have.
        self.reason = ""
        try:
            self._settle(state_dir, boot_id)
        except OSError as exc:
            self.reason = f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}"
            self._let_go()
            self._base = ""

    def _settle(self, state_dir: str, boot_id: str) -> None:
        self._origin = own_group()
        place = place_below(self._origin)
        found = os.stat(state_dir)
        note = os.path.join(state_dir, NOTE)
        self._base = _noted(note, boot_id) or os.path.join(place, f"{_PREFIX}{found.st_dev:x}-{found.st_ino:x}")
        self._move_in()
        fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w") as file:
            file.write(f"{boot_id} {self._base}\n")
        if os.path.basename(self._origin) == _DELEGATED:
            _enable(place)
        _enable(self._base)
        self._bounds = os.path.exists(os.path.join(self._base, _OURS, _PIDS_MAX))
        _sweep(self._base)
        self.outlived = {name.removeprefix(_RUN) for name in os.listdir(self._base) if name.startswith(_RUN)}
        with contextlib.suppress(OSError):  # where we were started may be gone, now that we have left it
            remove_dead(place)

    def _move_in(self) -> None:
        for last in (False, False, True):
            try:
                self._make_base()
                # While we are here nobody else takes our groups for those of a dead one.
                self._lock = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
                _write(os.path.join(self._base, "cgroup.procs"), b"0")
                self._home = os.open(os.path.join(self._base, _OURS, _THREADS), os.O_WRONLY | os.O_CLOEXEC)
                self._go_home()
            except OSError as exc:
                self._let_go()
                # Somebody who cleans up was quicker than our lock.
                if last or exc.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
            else:
                return

    def _make_base(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._base)
        _make(os.path.join(self._base, _OURS))

    # ---------------------------------------------------------------------------------------------------------- start

    @contextlib.contextmanager
    def around(self, run_id: str) -> Iterator[None]:
        """What is forked within belongs to the run's group; if that cannot be, to ours, as everything else."""
        inside = not self.reason and self._enter(run_id)
        try:
            yield
        finally:
            if inside:
                self._leave()

    def _enter(self, run_id: str) -> bool:
        def step_in(threads: str) -> bool:
            _write(threads, b"0")
            return True

        return self._in_group(run_id, step_in) is not None

    def open(self, run_id: str) -> int:
        """Return a descriptor by which a process of one thread steps into the run's group, or into ours if that cannot
        be had, whatever it may do itself by then; -1: there are no groups. The caller closes it. Raises OSError."""
        if self.reason:
            return -1
        fd = self._in_group(run_id, lambda threads: os.open(threads, os.O_WRONLY | os.O_CLOEXEC))
        return os.dup(self._home) if fd is None else fd

    def _in_group(self, run_id: str, use: Callable[[str], T]) -> T | None:
        """Make the run's group, and return what is made of the file by which threads step in; None: there is none."""
        path = self._path(run_id)
        try:
            for last in (False, True):
                try:
                    _make(path)
                    return use(os.path.join(path, _THREADS))
                except OSError as exc:
                    # Whoever sweeps takes an empty group for one of the past.
                    if last or exc.errno not in (errno.ENOENT, errno.ENODEV):
                        raise
                    self._make_base()
        except OSError as exc:
            self._complain(f"a run has no control group of its own: {exc}")
        return None

    def holds(self, run_id: str, pid: int, mounts: str | None = None) -> bool:
        """Say whether the process is in the run's group; an ended one is where it was. `mounts`: as read before."""
        found = group_folder(_read(f"/proc/{pid}/cgroup"), _read(_MOUNTS) if mounts is None else mounts)
        return bool(self._base) and f"{found.removesuffix(' (deleted)')}/".startswith(f"{self._path(run_id)}/")

    def _leave(self) -> None:
        fault = None
        for way in (self._go_home, self._make_home, self._go_back):
            try:
                way()
            except OSError as exc:
                fault = fault or exc
            else:
                return
        # We stay in there, which `kill` knows, and step from there into the group of the next run.
        self._complain(f"the runner cannot leave the control group of a run: {fault}")

    def _go_home(self) -> None:
        os.write(self._home, b"0")

    def _make_home(self) -> None:
        """Somebody has removed it while nobody was in it."""
        self._make_base()
        home = os.open(os.path.join(self._base, _OURS, _THREADS), os.O_WRONLY | os.O_CLOEXEC)
        os.close(self._home)
        self._home = home
        self._go_home()

    def _go_back(self) -> None:
        _write(os.path.join(self._origin, "cgroup.procs"), b"0")

    def limit(self, run_id: str, processes: int) -> None:
        """Bound how many processes the run may have, where the kernel's controller is at hand."""
        if self._bounds:  # it takes the kernel as long to find no such file as to write into one
            with contextlib.suppress(OSError):
                _write(os.path.join(self._path(run_id), _PIDS_MAX), str(processes).encode())

    # ------------------------------------------------------------------------------------------------------------ end

    def populated(self, run_id: str) -> bool:
        """Say whether any process of the run is left, wherever it has gone."""
        return bool(self._base) and _populated(self._path(run_id))

    def members(self, run_id: str) -> list[int]:
        """Return the processes of the run; our own is none of them."""
        return _members(self._path(run_id)) if self._base else []

    def signal(self, run_id: str, number: int, *, but: int = 0) -> None:
        """Signal all processes of the run, but those of process group `but`."""
        mounts = _read(_MOUNTS)
        for pid in self.members(run_id):
            with contextlib.suppress(OSError):
                if os.getpgid(pid) != but:
                    self._signal(run_id, pid, number, mounts)

    def _signal(self, run_id: str, pid: int, number: int, mounts: str) -> None:
        """The proof comes after the handle, so that the handle is of what was proven."""
        handle = os.pidfd_open(pid)
        try:
            if self.holds(run_id, pid, mounts):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)

    def kill(self, run_id: str) -> None:
        """Send SIGKILL to all processes of the run. Again, if it is not empty soon: one may just have made another."""
        if not self._base:
            return
        path = self._path(run_id)
        if set(os.listdir("/proc/self/task")).isdisjoint(_read(os.path.join(path, _THREADS)).split()):
            # From now on none of them does anything, not even multiply; a frozen process can be killed.
            with contextlib.suppress(OSError):
                _write(os.path.join(path, "cgroup.freeze"), b"1")
        self.signal(run_id, signal.SIGKILL)

    def condemned(self) -> list[str]:
        """Return the runs that somebody who died meanwhile was about to kill."""
        frozen = [run for run in self.outlived if _read(os.path.join(self._path(run), "cgroup.freeze")).strip() == "1"]
        self.outlived.difference_update(frozen)
        return frozen

    def remove(self, run_id: str) -> bool:
        """Remove the group of a run that is over. False: there is somebody left in it. Safe to repeat."""
        return not self._base or _remove(self._path(run_id))

    def outlive(self, run_id: str) -> None:
        """What is left of a run that has ended by itself lives on, as under cron; say so."""
        self.outlived.add(run_id)
        self._log(f"run {run_id} has ended and left {len(self.members(run_id))} processes that go on")

    def sweep(self) -> None:
        """Remove the groups of those that have outlived their runs, and have ended meanwhile."""
        if self.outlived:
            self.outlived = {run_id for run_id in self.outlived if not self.remove(run_id)}

    def close(self) -> None:
        """Go back to where we came from, and leave nothing that is empty."""
        if not self._base:
            return
        with contextlib.suppress(OSError):
            self._go_back()
        self._let_go()
        remove_dead(os.path.dirname(self._base), only=os.path.basename(self._base))
        self._base, self.reason = "", "closed"

    def _let_go(self) -> None:
        for fd in (self._lock, self._home):
            if fd >= 0:
                os.close(fd)
        self._lock = self._home = -1

    def _path(self, run_id: str) -> str:
        return os.path.join(self._base, _RUN + run_id)

    def _complain(self, sentence: str) -> None:
        if not self._told:
            self._told = True
            self._log(sentence)


def own_group() -> str:
    """Return the folder of our own control group. Raises FileNotFoundError where there is no cgroup v2."""
    with open("/proc/self/cgroup") as groups, open(_MOUNTS) as mounts:
        found = group_folder(groups.read(), mounts.read())
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no cgroup v2 is mounted here")
    return found


def group_folder(groups: str, mounts: str) -> str:
    """Return the folder of the cgroup v2 that /proc/<pid>/cgroup names; empty if no mount shows it."""
    for name in (line[3:] for line in groups.splitlines() if line.startswith("0::")):
        for fields in (line.split() for line in mounts.splitlines() if " - cgroup2 " in line):
            # Field 4 is what of the hierarchy is mounted, field 5 is where.
            top = fields[3].rstrip("/")
            if f"{name}/".startswith(f"{top}/") and "/../" not in f"{name}/":
                return f"{fields[4]}{name[len(top) :]}".rstrip("/")
    return ""


def missing() -> str:
    """Return why runs started from here could have no control groups; empty if they could. For `doctor`."""
    try:
        place = place_below(own_group())
    except OSError as exc:
        return exc.strerror or str(exc)
    return "" if os.access(place, os.W_OK) else f"{place} cannot be written"


def tidy() -> None:
    """Remove the groups that dead runners, which were started from where we are, have left. Raises OSError."""
    remove_dead(place_below(own_group()))


def remove_dead(place: str, *, only: str = "") -> None:
    """Remove the empty groups of runners that are no more."""
    for name in os.listdir(place):
        if not name.startswith(_PREFIX) or (only and name != only):
            continue
        path = os.path.join(place, name)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _sweep(path)
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(os.path.join(path, _OURS))
                os.rmdir(path)
            finally:
                os.close(fd)


def place_below(origin: str) -> str:
    """Return below which group ours lies: where we were started, and not within a group that is ours already."""
    head, found, _ = origin.partition(f"/{_PREFIX}")
    if found:
        return head
    return os.path.dirname(origin) if os.path.basename(origin) == _DELEGATED else origin


def _noted(note: str, boot_id: str) -> str:
    """Return where the groups of this boot are; empty if there are none."""
    boot, _, path = _read(note).rstrip("\n").partition(" ")
    known = boot == boot_id and os.path.basename(path).startswith(_PREFIX) and os.path.isdir(path)
    return path if known else ""


def _enable(path: str) -> None:
    """Have the groups below bound their processes, if the kernel and whoever is above allow it."""
    with contextlib.suppress(OSError):
        _write(os.path.join(path, "cgroup.subtree_control"), b"+pids")


def _make(path: str) -> None:
    """Make a group that a thread can step into. Safe to repeat."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    _write(os.path.join(path, "cgroup.type"), b"threaded")


def _populated(path: str) -> bool:
    return "populated 1" in _read(os.path.join(path, "cgroup.events"))


def _members(path: str) -> list[int]:
    threads: list[str] = []
    for folder, _, _ in os.walk(path):
        threads += _read(os.path.join(folder, _THREADS)).split()
    found = set()
    for thread in threads:
        for line in _read(f"/proc/{thread}/status").splitlines():
            if line.startswith("Tgid:"):
                found.add(int(line.split()[1]))
    return sorted(found - {os.getpid()})


def _sweep(base: str) -> None:
    for name in os.listdir(base):
        if name.startswith(_RUN):
            _remove(os.path.join(base, name))


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        if _populated(path):
            return False
        # A job that may do so has made groups of its own in there.
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return not os.path.isdir(path)
    return True


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, ValueError):
        return ""
