"""Our files in /etc/cron.d, as cron wants them: what the root part does, and a worker that is root itself.

cron tells nobody what it ignores: a whole file for one bad line, a changed file whose time is the same second as
before. So every file gets a time that never repeats. Other people's entries are never touched.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_NAME = re.compile(r"cronkeeper-[0-9]+", re.ASCII)
_TEMPORARY = re.compile(r"\.cronkeeper-[0-9]+\.tmp", re.ASCII)


class CrontabError(OSError):
    """The crontab could not be read or written, and is as it was before. Try again later."""


class SystemFiles:
    """Files `cronkeeper-0`, `cronkeeper-1`, … in /etc/cron.d. `verify` gets the name and text of each before it goes in
    place, and raises ValueError for one that must not. `owner` is whose files they are: ours, unless told."""

    def __init__(self, directory: Path, verify: Callable[[str, str], None], *, owner: int | None = None) -> None:
        self._directory = directory
        self._owner = os.geteuid() if owner is None else owner
        self._verify = verify

    def read(self) -> tuple[str, ...]:
        """Return what stands there under our name now, whoever wrote it: bytes that are no text are marked as such.

        Raises OSError.
        """
        return tuple(path.read_text(errors="replace") for path in self._ours())

    def install(self, files: Sequence[str]) -> None:
        """Make these texts, and nothing else, stand there under our name. Raises ValueError, OSError."""
        wanted = wanted_files(files)
        news = {name: text for name, text in wanted.items() if not self.stands(name, text)}
        for name, text in news.items():
            self._verify(name, text)
        gone = [path for path in self._ours(temporary=True) if path.name not in wanted]
        if news or gone:
            self._change(news, gone)

    def renew(self) -> None:
        """Put the same texts in place once more, with new times. Raises OSError."""
        self._change({path.name: path.read_text() for path in self._ours()}, [])

    def _change(self, news: Mapping[str, str], gone: Sequence[Path]) -> None:
        """Write and remove files. Neither a file nor the folder ends up with a whole second that it has had before."""
        second = self._next_second()
        for name, text in news.items():
            self._write(name, text, second)
        for path in gone:
            # The temporary file of a text that has just been put in place is gone already.
            path.unlink(missing_ok=True)
        # All this gave the folder the present second, and cron may have looked in between: differ from that, too.
        second = max(second, int(self._directory.lstat().st_mtime) + 1)
        os.utime(self._directory, (second, second))
        _flush(self._directory)

    def remove_all(self) -> None:
        """Leave nothing of ours. Raises OSError."""
        self.install(())

    def _ours(self, *, temporary: bool = False) -> list[Path]:
        """Return our files, by number; with `temporary` also what a crash left half-made."""
        found = [path for path in self._directory.iterdir() if _NAME.fullmatch(path.name)]
        found.sort(key=lambda path: int(path.name.rpartition("-")[2]))
        if temporary:
            found += [path for path in self._directory.iterdir() if _TEMPORARY.fullmatch(path.name)]
        return found

    def stands(self, name: str, text: str) -> bool:
        """Say whether the file is there as cron wants it: a plain file, ours, without links or foreign writers."""
        path = self._directory / name
        try:
            found = path.lstat()
            return (
                stat.S_ISREG(found.st_mode)
                and stat.S_IMODE(found.st_mode) == 0o644
                and found.st_nlink == 1
                and found.st_uid == self._owner
                and path.read_bytes() == text.encode()
            )
        except FileNotFoundError:
            return False

    def _write(self, name: str, text: str, second: int) -> None:
        # cron skips names with a dot.
        temporary = self._directory / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
            file.flush()
            # Before the rename, so that cron never sees the new text with a time that it has seen already.
            os.utime(descriptor, (second, second))
            os.fsync(descriptor)
        if temporary.read_text() != text or temporary.stat().st_mtime_ns != second * 1_000_000_000:
            temporary.unlink()
            raise CrontabError(f"{temporary} does not hold what was written to it, or not the time that it was given")
        temporary.rename(self._directory / name)

    def _next_second(self) -> int:
        """Return a whole second after all that the folder and our files ever had: cron compares whole seconds.

        The folder gets the time of each of our changes, also of those to files that are gone.
        """
        times = [path.lstat().st_mtime for path in (self._directory, *self._ours())]
        return max(int(time.time()), int(max(times)) + 1)


def wanted_files(files: Sequence[str]) -> dict[str, str]:
    """Return the texts by the names of their files."""
    return {f"cronkeeper-{number}": text for number, text in enumerate(files)}


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
