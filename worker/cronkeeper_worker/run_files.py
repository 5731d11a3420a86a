"""The durable facts of a run, in its folder, so that a later process can tell the truth about it.

    runs/<run id>/start.json   written by the process itself, as its last act before it becomes the job
    runs/<run id>/output       the first `output_kb` KiB of stdout and stderr; absent as long as there is none
    runs/<run id>/exit.json    how it ended, or why it was never executed
    runs/<run id>/secrets      as long as it runs: the secrets that it asked for as files, mode 0400, of its account
    runs/<run id>/work         the job's own folder, owned by its account

All but `work` and the files of `secrets` belongs to the runner's account: a job can neither read nor forge it. An empty
or torn file is an absent one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from typing import Any, NamedTuple

from cronkeeper_worker.orders import Ended, Secret, SpawnFailed, event_from, event_to_json

#: Of a run's output, this much of the end always comes with the news of its end.
TAIL_BYTES = 4096
_START_BYTES = 640
#: What is made in such a folder belongs to the folder's group.
_SHARED = 0o2711
START, EXIT, OUTPUT, WORK, SECRETS = "start.json", "exit.json", "output", "work", "secrets"


class RunStart(NamedTuple):
    """What proves that a run's process is the one we started: its pid alone never does."""

    #: 0 as long as the process is being made: then nobody can tell whether it is.
    pid: int
    #: The process's start time, in clock ticks since boot (field 22 of /proc/<pid>/stat).
    start_ticks: int
    boot_id: str
    nonce: str
    #: Of the whole order, SHA-256 in hex.
    digest: str
    started_ms: int
    timeout_s: float | None
    kill_after_s: float


def deliver(folder: str, secrets: dict[str, Secret], uid: int, gid: int) -> dict[str, str]:
    """Return the variables by which a run gets its secrets; write those that it wants as files. Raises OSError."""
    variables = {}
    for name, secret in secrets.items():
        variables[name] = secret.value
        if not secret.as_file:
            continue
        place = os.path.join(folder, SECRETS)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)
        # By path, as its account: past the umask of who started us, others must be able to pass through, and no more.
        for passage in (folder, place):
            os.chmod(passage, os.stat(passage).st_mode & stat.S_ISGID | 0o711)  # noqa: S103
        variables[name] = os.path.join(place, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(variables[name], flags, 0o400)
        try:
            data = secret.value.encode()
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, "no space left for a secret")
            os.fchown(fd, uid, gid)
        finally:
            os.close(fd)
    return variables


def withdraw(folder: str) -> None:
    """Remove the files of a run's secrets. Safe to repeat."""
    place = os.path.join(folder, SECRETS)
    try:
        for name in os.listdir(place):
            _unlink(os.path.join(place, name))
        os.rmdir(place)
    except FileNotFoundError:
        return


def runs_folder(state_dir: str) -> str:
    """Return the folder that holds one folder for each run."""
    return os.path.join(state_dir, "runs")


def run_folder(state_dir: str, run_id: str) -> str:
    """Return the folder of one run."""
    return os.path.join(state_dir, "runs", run_id)


def read_start(folder: str) -> RunStart | None:
    """Return the proof of start, or None when the process was never let go."""
    data = _read(os.path.join(folder, START))
    try:
        return RunStart(**data) if data is not None else None
    except TypeError:
        return None


def read_exit(folder: str) -> Ended | SpawnFailed | None:
    """Return how the run ended, or None while nobody has said so."""
    data = _read(os.path.join(folder, EXIT))
    try:
        event = event_from(data) if data is not None else None
    except ValueError:
        return None
    return event if isinstance(event, (Ended, SpawnFailed)) else None


def is_alive(start: RunStart) -> bool:
    """Say whether the very process that was started is still there (a zombie is not)."""
    if start.boot_id != boot_id():
        return False
    found = _stat(start.pid)
    return found is not None and found[1] == start.start_ticks and found[0] not in ("Z", "X")


def find(folder: str, run_id: str) -> int:
    """Return the pid of a run's main process when its parent died before it wrote it down; 0 when there is none.

    It leads a session, and stands in the run's own work folder or has the run's id in its first environment.
    """
    work = os.path.realpath(os.path.join(folder, WORK))
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.getsid(int(name)) != int(name):
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                named = f"CRONKEEPER_RUN_ID={run_id}".encode() in file.read().split(b"\0")
            if named or os.readlink(f"/proc/{name}/cwd") == work:
                return int(name)
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return 0


def boot_id() -> str:
    """Return what is different after every boot of the machine."""
    global _boot_id
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id") as file:
            _boot_id = file.read().strip()
    return _boot_id


_boot_id = ""


def start_ticks(pid: int | str) -> int:
    """Return the start time of a process (`self` for this one) in clock ticks since boot; 0 when there is none."""
    found = _stat(pid)
    return found[1] if found is not None else 0


def _stat(pid: int | str) -> tuple[str, int] | None:
    """Return state and start time. The command's name stands in brackets and may hold anything, brackets too."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError):
        return None


class StartNote:
    """The proof of a start, written in two strokes: that there may be a process, and then which.

    Whoever finds the first alone knows that the parent died in between. Each is one system call over the same bytes, so
    that a reader finds the one or the other. Nothing is flushed to the disk: after a crash of the machine no run lives.
    """

    def __init__(self, folder: str, start: RunStart) -> None:
        path = os.path.join(folder, START)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self.complete(start)
        except BaseException:
            os.close(self._fd)
            raise

    def complete(self, start: RunStart) -> None:
        """Write down the process."""
        data = json.dumps(start._asdict()).encode().ljust(_START_BYTES)
        if os.pwrite(self._fd, data, 0) < len(data):
            raise OSError(errno.ENOSPC, "no space left for the facts of a run")

    def __enter__(self) -> StartNote:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def write_exit(folder: str, event: Ended | SpawnFailed, *, flush: bool) -> None:
    """Leave how it ended.

    With `flush` it is on the disk when this returns; without, a crash of the machine may lose the last seconds' answers
    (such a run is then told as lost).
    """
    _write(os.path.join(folder, EXIT), json.dumps(event_to_json(event)), flush=flush)


def tail_text(tail: bytes) -> str:
    """Decode the end of an output, whose first character may have been cut in two."""
    if len(tail) >= TAIL_BYTES:
        for _ in range(3):
            if tail[0] & 0xC0 == 0x80:
                tail = tail[1:]
    return tail.decode(errors="replace")


def output_tail(folder: str) -> tuple[int, str]:
    """Return size and end of the output that was kept: all that is known of a run that lost its parent."""
    try:
        with open(os.path.join(folder, OUTPUT), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return size, tail_text(file.read())
    except FileNotFoundError:
        return 0, ""


def _read(path: str) -> dict[str, Any] | None:
    """Return the JSON object, or None when it is missing or torn (by a crash of the machine)."""
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write(path: str, text: str, *, flush: bool) -> None:
    """Write the file by one system call. No rename: a torn file is no JSON, and `_read` takes it for an absent one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        data = text.encode()
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, "no space left for the facts of a run", path)
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)
    if flush:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _share(folder: str, group: int) -> None:
    """Give a run's folder of before to the group that may read it. None of this is a job's to change."""
    with contextlib.suppress(OSError):
        if os.stat(folder).st_gid == group:
            return
        os.chown(folder, -1, group)
        os.chmod(folder, _SHARED)
    for name in (OUTPUT, EXIT):
        with contextlib.suppress(OSError):
            os.chown(os.path.join(folder, name), -1, group)
            os.chmod(os.path.join(folder, name), 0o640)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Folders:
    """Makes and removes the runs' folders, using them again: most runs leave an empty work folder and two short notes.

    On ext4 a new inode costs 0.03 ms, but up to 1 ms in the minutes after many were deleted, and a run needs four. A
    folder is used again for the same account only, so that nothing passes from one account to another.

    `group` may read how runs ended and what they printed: the daemon, where it is another account than ours. Under a
    umask of 027 files get it by way of their folder.
    """

    def __init__(self, state_dir: str, *, spares: int = 2048, group: int = -1) -> None:
        self._group = group
        self.runs = os.path.join(state_dir, "runs")
        self._spare_dir = os.path.join(state_dir, "spare")
        # Others must be able to pass through to their own work folder, and to nothing else.
        for folder, mode in ((self.runs, 0o711), (self._spare_dir, 0o700)):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, mode)
        self._limit = spares
        self._spares: dict[int, list[str]] = {}
        self._count = 0
        self._number = 0
        if group >= 0:
            for folder in (self.runs, self._spare_dir):
                for name in os.listdir(folder):
                    _share(os.path.join(folder, name), group)
        for name in os.listdir(self._spare_dir):
            # Of an earlier runner: it may have died before it cleaned them.
            self._offer(os.path.join(self._spare_dir, name))

    def make(self, run_id: str, uid: int, gid: int) -> str:
        """Return the run's new folder, whose `work` belongs to the account. FileExistsError: it was started before.

        This is the one fence on this machine: whoever makes the folder starts the run.
        """
        folder = os.path.join(self.runs, run_id)
        spares = self._spares.get(uid)
        while spares:
            try:
                os.rename(spares[-1], folder)
            except FileNotFoundError:  # another process of ours took it
                spares.pop()
                self._count -= 1
                continue
            except OSError as exc:
                if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise FileExistsError(exc.errno, "the run was started before", folder) from exc
                raise
            spares.pop()
            self._count -= 1
            return folder
        self.make_bare(run_id)
        work = os.path.join(folder, WORK)
        os.mkdir(work, 0o700)
        os.chown(work, uid, gid)
        os.chmod(work, 0o700)
        return folder

    def make_bare(self, run_id: str) -> None:
        """Make the folder of a run that has nowhere to work: of one that was never executed, it holds but the end."""
        folder = os.path.join(self.runs, run_id)
        os.mkdir(folder, 0o711)
        if self._group >= 0:
            os.chown(folder, -1, self._group)
            os.chmod(folder, _SHARED)

    def remove(self, run_id: str) -> bool:
        """Remove an ended run's folder. False when the job left so much in it that a program must do it."""
        folder = os.path.join(self.runs, run_id)
        try:
            withdraw(folder)
            if self._count < self._limit and not os.listdir(os.path.join(folder, WORK)):
                self._number += 1
                spare = os.path.join(self._spare_dir, f"{time.time_ns()}-{self._number}")
                # In one step: were it cleaned first and we died, it would look like a run that never started.
                os.rename(folder, spare)
                self._offer(spare)
                return True
        except OSError:
            pass  # a run that never got its work folder, or none at all: what is there is removed below
        try:
            for name in (START, OUTPUT, EXIT):
                _unlink(os.path.join(folder, name))
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(os.path.join(folder, WORK))
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)
        except OSError:
            return False
        return True

    def _offer(self, spare: str) -> None:
        """Clean a folder and offer it to the next run of its account. One that cannot be cleaned stays where it is."""
        work = os.path.join(spare, WORK)
        with contextlib.suppress(OSError):
            if os.listdir(work):
                return
            os.chmod(work, 0o700)
            for name in (START, EXIT):
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(os.path.join(spare, name), 0)
            _unlink(os.path.join(spare, OUTPUT))
            self._spares.setdefault(os.lstat(work).st_uid, []).append(spare)
            self._count += 1
