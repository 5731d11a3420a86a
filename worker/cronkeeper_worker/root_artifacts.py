"""Files of jobs, taken over from the daemon: what root executes lies where the daemon cannot change it.

The daemon fetches files into its own folder. The root part copies each into a folder of root's while it hashes it, and
executes its copy. A copy goes when the daemon has let go of the file.
"""

from __future__ import annotations

import contextlib
import os
import stat

from cronkeeper_worker.orders import OrderError
from cronkeeper_worker.root_rules import DAEMON_FOLDER
from cronkeeper_worker.verified import Digest

FOLDER = "artifacts"
_HEX = frozenset("0123456789abcdef")
_BLOCK = 1 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def take_over(top: str, sha256: str, size: object, uid: int) -> str:
    """Return the path of root's own copy of the daemon's file, made now if it is not there.

    Raises OrderError when the daemon's file is not the one that was signed, OSError when it cannot be copied.
    """
    if len(sha256) != 64 or not _HEX.issuperset(sha256):
        raise OrderError("the task's file has no sha256")
    path = os.path.join(top, FOLDER, sha256)
    if os.path.lexists(path):
        return path
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    # Runs under other accounts execute these files through a descriptor, but interpreters open them by path.
    os.chmod(os.path.dirname(path), 0o755)  # noqa: S103
    partial = f"{path}.part"
    try:
        source = _open(top, sha256, uid)
        try:
            _copy(source, partial, sha256, size)
        finally:
            os.close(source)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    os.rename(partial, path)
    return path


def tidy(top: str) -> None:
    """Remove the copies of files that the daemon has let go of, and what a death left half-made. Never fails."""
    folder = os.path.join(top, FOLDER)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if not os.path.lexists(os.path.join(top, DAEMON_FOLDER, FOLDER, name)):
                os.unlink(os.path.join(folder, name))


def _open(top: str, sha256: str, uid: int) -> int:
    """Open the daemon's file by no link, and only if it is a plain file of the daemon's: no device, no foreign file."""
    folders: list[int] = []
    try:
        try:
            folders.append(os.open(os.path.join(top, DAEMON_FOLDER), _FOLDER_FLAGS))
            folders.append(os.open(FOLDER, _FOLDER_FLAGS, dir_fd=folders[0]))
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            found = os.stat(sha256, dir_fd=folders[1], follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise OrderError(f"{FOLDER}/{sha256} is not a file")
            fd = os.open(sha256, flags, dir_fd=folders[1])
        finally:
            for folder in folders:
                os.close(folder)
    except OSError as exc:
        raise OrderError(f"the task's file {sha256} cannot be opened: {exc.strerror}") from exc
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
        os.close(fd)
        raise OrderError(f"{FOLDER}/{sha256} is not a file of the daemon's")
    return fd


def _copy(source: int, partial: str, sha256: str, size: object) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        digest, copied = Digest(), 0
        while block := os.read(source, _BLOCK):
            copied += len(block)
            if isinstance(size, int) and copied > size:
                break
            digest.update(block)
            if os.write(target, block) < len(block):
                raise OSError("no space left for a task's file")
        if copied != size or digest.hex() != sha256:
            raise OrderError("the artifact is not the file that was signed: it is not run")
        os.fchmod(target, 0o555)
    finally:
        os.close(target)
