"""The runs' folders: made, used again, removed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from cronkeeper_worker.run_files import EXIT, OUTPUT, START, WORK, blank, withdraw

#: What is made in such a folder belongs to the folder's group.
_SHARED = 0o2711


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
            spare = os.path.join(self._spare_dir, name)
            with contextlib.suppress(OSError):
                if not os.listdir(os.path.join(spare, WORK)):
                    self._offer(spare)

    def make(self, run_id: str, uid: int, gid: int) -> str:
        """Return the run's new folder, whose `work` belongs to the account. FileExistsError: it was started before.

        This is the one fence on this machine: whoever makes the folder starts the run.
        """
        folder = f"{self.runs}/{run_id}"
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
        folder = f"{self.runs}/{run_id}"
        try:
            withdraw(folder)
            if self._count < self._limit and not os.listdir(f"{folder}/{WORK}"):
                self._number += 1
                spare = f"{self._spare_dir}/{time.time_ns()}-{self._number}"
                # In one step: were it cleaned first and we died, it would look like a run that never started.
                os.rename(folder, spare)
                with contextlib.suppress(OSError):
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
        """Clean a folder and offer it to the next run of its account. OSError: it cannot be, and stays where it is."""
        work = f"{spare}/{WORK}"
        found = os.lstat(work)
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(work, 0o700)
        blank(spare)
        _unlink(f"{spare}/{OUTPUT}")
        self._spares.setdefault(found.st_uid, []).append(spare)
        self._count += 1


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
