"""The durable facts of a run, in its folder, so that a later process can tell the truth about it.

    runs/<run id>/start.json   written by the process itself, as its last act before it becomes the job
    runs/<run id>/output       the first `output_kb` KiB of stdout and stderr; absent as long as there is none
    runs/<run id>/exit.json    how it ended, or why it was never executed
    runs/<run id>/secrets      as long as it runs: the secrets that it asked for as files, mode 0400, of its account
    runs/<run id>/work         the job's own folder, owned by its account

All but `work` and the files of `secrets` belongs to the runner's account: a job can neither read nor forge it. A file
that is empty, blank or torn is an absent one.

Folders are used again, and so are both notes: written over in place, as to cut a file short takes ext4 longer than all
else that is done for it. A note is blanked before its folder is offered. Other processes see that at once, but a crash
of the machine may undo it and keep the folder's new name: such a note is of another run, or of another boot.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Any, NamedTuple

from cronkeeper_worker.orders import Ended, Secret, SpawnFailed, event_from, event_to_json

#: Of a run's output, this much of the end always comes with the news of its end.
TAIL_BYTES = 4096
#: The width of each note, blanks included. What a disk writes whole or not at all are 512 bytes: none of them is half
#: the end of one run, half that of another. A longer end, and only that, takes a file that was cut short.
_START_BYTES, _EXIT_BYTES = 640, 512
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
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(place, name))
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
    data = _read(f"{folder}/{START}")
    try:
        return RunStart(**data) if data is not None else None
    except TypeError:
        return None


def read_exit(folder: str) -> Ended | SpawnFailed | None:
    """Return how the run ended, or None while nobody has said so."""
    data = _read(f"{folder}/{EXIT}")
    try:
        event = event_from(data) if data is not None else None
    except ValueError:
        return None
    if not isinstance(event, (Ended, SpawnFailed)) or event.run_id != os.path.basename(folder):
        return None
    return event


def is_of_another(start: RunStart, nonce: str, digest: str) -> bool:
    """Say whether a folder was made for another order than this one. What is of another boot proves nothing."""
    return (start.nonce, start.digest) != (nonce, digest) and start.boot_id == boot_id()


def is_alive(start: RunStart) -> bool:
    """Say whether the very process that was started is still there (a zombie is not)."""
    if start.boot_id != boot_id():
        return False
    found = _stat(start.pid)
    return found is not None and found[1] == start.start_ticks and found[0] not in ("Z", "X")


def find(folder: str, run_id: str) -> int:
    """Return the pid of a run's main process when its parent died before it wrote it down; 0 when there is none.

    It leads a session, is of the account whose the run's own work folder is, and stands in there or has the run's id
    in its first environment: who pretends to be it can have nothing signalled but what is of that account anyway.
    """
    work = os.path.realpath(os.path.join(folder, WORK))
    try:
        account = os.stat(work).st_uid
    except FileNotFoundError:
        return 0
    for name in os.listdir("/proc"):
        if not (name.isdigit() and leads_a_session(int(name))):
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid != account:
                continue
            with open(f"/proc/{name}/environ", "rb") as file:
                named = f"CRONKEEPER_RUN_ID={run_id}".encode() in file.read().split(b"\0")
            if named or os.readlink(f"/proc/{name}/cwd") == work:
                return int(name)
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return 0


def leads_a_session(pid: int) -> bool:
    """Say whether the process is there and leads a session, as the main process of every run does."""
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


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
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(fd, 4096).rpartition(b")")[2].split()
        finally:
            os.close(fd)
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError):
        return None


class StartNote:
    """The proof of a start, written in two strokes: that there may be a process, and then which.

    Whoever finds the first alone knows that the parent died in between. Each is one system call over the same bytes, so
    that a reader finds the one or the other. Nothing is flushed to the disk: after a crash of the machine no run lives.
    """

    def __init__(self, folder: str, start: RunStart) -> None:
        self._fd = os.open(f"{folder}/{START}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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

    def close(self) -> None:
        """Write no more."""
        os.close(self._fd)

    def __enter__(self) -> StartNote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_exit(folder: str, event: Ended | SpawnFailed, *, flush: bool) -> None:
    """Leave how it ended.

    With `flush` it is on the disk when this returns; without, a crash of the machine may lose the last seconds' answers
    (such a run is then told as lost).
    """
    data = json.dumps(event_to_json(event)).encode().ljust(_EXIT_BYTES)
    fd = os.open(f"{folder}/{EXIT}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        # By one system call over nothing or blanks: a part of it is no JSON, and `_read` takes it for an absent one.
        _clear(fd, _EXIT_BYTES)
        if os.pwrite(fd, data, 0) < len(data):
            raise OSError(errno.ENOSPC, "no space left for the facts of a run", folder)
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)
    if flush:
        place = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(place)
        finally:
            os.close(place)


def blank(folder: str) -> None:
    """Make absent notes of those in a folder that is to be used again. Raises OSError."""
    for name, width in ((START, _START_BYTES), (EXIT, _EXIT_BYTES)):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                _clear(fd, width)
            finally:
                os.close(fd)


def _clear(fd: int, width: int) -> None:
    """Make an absent note of what is in a file, so that nothing shows through what is written over it."""
    old = os.pread(fd, width + 1, 0)
    if len(old) > width:
        os.ftruncate(fd, 0)
    elif old.strip() and os.pwrite(fd, b" " * len(old), 0) < len(old):
        raise OSError(errno.ENOSPC, "no space left for the facts of a run")


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
        # Between the two the folder may have become another run's.
        os.stat(path)
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None
