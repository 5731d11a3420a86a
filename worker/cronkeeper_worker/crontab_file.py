"""Puts crontab text where this node's cron finds it. The only module that knows python-crontab.

cron tells nobody what it ignores: a whole file for one bad line, for example. So every text is checked before it is put
in place, and read back by a second reader. Other people's entries are never touched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from crontab import CronItem, CronTab

from cronkeeper.domain.cronfields import parse_fields
from cronkeeper_worker import programs
from cronkeeper_worker.crontab_form import check_lines, check_shape, is_ours
from cronkeeper_worker.crontab_place import CrontabError, SystemFiles, wanted_files

#: A line with its end; lines end at line feeds only, as for cron.
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_BEGIN, _END = b"# BEGIN cronkeeper", b"# END cronkeeper"


class CrontabTarget(Protocol):
    """Where a node's entries go."""

    #: Whether entries name the account that they run as, as in /etc/cron.d.
    has_user_column: bool

    def read(self) -> tuple[str, ...]:
        """Return what stands there under our name now. Raises OSError."""
        ...

    def install(self, files: Sequence[str]) -> None:
        """Make these texts, and nothing else, stand there under our name. Touches only what differs.

        Raises ValueError for a text that is not ours to the letter, before anything is changed; OSError when it cannot
        be written: then cron sees the old or the new text of each file, never a mixture. Safe to repeat.
        """
        ...

    def renew(self) -> None:
        """Put the same texts in place once more, with new times, so that cron reads them again. Raises OSError."""
        ...

    def remove_all(self) -> None:
        """Leave nothing of ours. Raises OSError. Safe to repeat."""
        ...


class SystemCrontab(SystemFiles):
    """The files of a worker that runs as root all by itself."""

    has_user_column = True

    def __init__(self, directory: Path = Path("/etc/cron.d"), reader: SecondReader | None = None) -> None:
        super().__init__(directory, (reader or SecondReader(has_user_column=True)).verify)


class RootCrontab:
    """The same files, put in place by the root part, which looks at every line again. See `RunnerClient.place`."""

    has_user_column = True

    def __init__(self, directory: Path, place: Callable[[Sequence[str] | None], None]) -> None:
        self._reader = SecondReader(has_user_column=True)
        self._files = SystemFiles(directory, self._reader.verify, owner=0)
        self._place = place

    def read(self) -> tuple[str, ...]:
        return self._files.read()

    def install(self, files: Sequence[str]) -> None:
        news = {name: text for name, text in wanted_files(files).items() if not self._files.stands(name, text)}
        for name, text in news.items():
            self._reader.verify(name, text)
        if news or len(self.read()) != len(files):
            self._place(files)

    def renew(self) -> None:
        self._place(None)

    def remove_all(self) -> None:
        self._place(())


class UserCrontab:
    """A marked block at the end of the account's own crontab, for a worker that is not root; all through crontab(1)."""

    has_user_column = False

    def __init__(self, command: Sequence[str] = ("crontab",)) -> None:
        self._command = tuple(command)
        self._reader = SecondReader(has_user_column=False)

    @staticmethod
    def available() -> bool:
        """Whether this machine has the command."""
        return shutil.which("crontab") is not None

    def read(self) -> tuple[str, ...]:
        _others, ours = split(self._list())
        return (ours.decode("ascii"),) if ours else ()

    def install(self, files: Sequence[str]) -> None:
        before = self._list()
        others, _ours = split(before)
        after = join(others, "".join(files).encode())
        if after == before:
            return
        for number, text in enumerate(files):
            self._reader.verify(str(number), text)
        self._replace(after)
        if split(self._list()) != split(after):
            raise CrontabError("the crontab does not hold what was written to it; did somebody edit it meanwhile?")

    def renew(self) -> None:
        before = self._list()
        if split(before)[1]:
            self._replace(before)

    def remove_all(self) -> None:
        self.install(())

    def _list(self) -> bytes:
        """Return the account's crontab; nothing only if the command itself says that there is none."""
        status, out, err = self._run("-l")
        if status == 0:
            return self._list_exactly(out) if b"\\" in out else out
        if err.strip().startswith(b"no crontab for"):
            return b""
        raise CrontabError(f"the crontab cannot be read: {_words(err)}")

    def _list_exactly(self, listed: bytes) -> bytes:
        """Return the crontab's true bytes: Debian's `crontab -l` shows a carriage return as the two characters `\\r`.

        An editor gets the file itself; ours prints it and changes nothing.
        """
        status, out, err = self._run("-e", env={"VISUAL": "cat", "EDITOR": "cat"})
        if status != 0 or listed not in (out, out.replace(b"\r", b"\\r")):
            raise CrontabError(f"the crontab cannot be read: {_words(err)}")
        return out

    def _replace(self, content: bytes) -> None:
        if not content:
            status, _out, err = self._run("-r")
        else:
            status, _out, err = self._run("-", content)
        if status != 0:
            raise CrontabError(f"the crontab was refused: {_words(err)}")

    def _run(
        self, argument: str, content: bytes = b"", env: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, bytes]:
        try:
            return programs.run_tool([*self._command, argument], data=content, env=env)
        except OSError as exc:
            raise CrontabError(f"{self._command[0]} cannot be run: {exc}") from exc


def split(content: bytes) -> tuple[bytes, bytes]:
    """Take a crontab apart: everybody else's bytes, in order and unchanged, and the lines of our block.

    A line that is not ours to the letter stays, even if it has got between our marks.
    """
    others, ours = [], []
    inside = False
    for line in _LINE.findall(content):
        if line.rstrip(b"\n") == _BEGIN:
            inside = True
        elif line.rstrip(b"\n") == _END:
            inside = False
        elif inside and is_ours(line.decode("ascii", errors="replace")):
            ours.append(line)
        else:
            others.append(line)
    return b"".join(others), b"".join(ours)


def join(others: bytes, ours: bytes) -> bytes:
    """Put our block behind everybody else's lines. A last line without an end gets one, or ours would be part of it."""
    if not ours:
        return others
    gap = b"" if not others or others.endswith(b"\n") else b"\n"
    return others + gap + _BEGIN + b"\n" + ours + _END + b"\n"


class SecondReader:
    """Has a reader that shares no code with the writer find the same entries.

    That costs 0.1 ms for each. Each line stands for itself, so what was in a file's text before is not read again.
    """

    def __init__(self, *, has_user_column: bool) -> None:
        self._has_user_column = has_user_column
        self._known: dict[str, frozenset[str]] = {}
        #: How many entries have been read so far.
        self.entries_read = 0

    def verify(self, name: str, text: str) -> None:
        """Raise ValueError unless the file's text holds lines of ours only, and the entries mean the same to both."""
        lines = text.splitlines(keepends=True)
        known = self._known.get(name, frozenset())
        check_shape(text, len(lines))
        fresh = [line for line in lines if line not in known]
        check_lines(fresh)
        self._read([line.rstrip("\n") for line in fresh if not line.startswith("#")])
        self._known[name] = frozenset(lines)

    def _read(self, wanted: Sequence[str]) -> None:
        self.entries_read += len(wanted)
        account = self._has_user_column
        # Line by line: a CronTab that is given the whole text writes out again each entry that it reads.
        reader = CronTab(tab="", user=False if account else None)
        items = [CronItem.from_line(entry, cron=reader) for entry in wanted]
        found = [
            f"{item.slices.clean_render()} {f'{item.user} ' if account else ''}{item.command}"
            for item in items
            if item.is_valid() and item.is_enabled()
        ]
        if len(found) != len(wanted) or not all(map(_mean_the_same, wanted, found)):
            raise ValueError("python-crontab reads other entries than were written")


def _mean_the_same(wanted: str, found: str) -> bool:
    return wanted == found or _meaning(wanted) == _meaning(found)


def _meaning(entry: str) -> tuple[object, ...]:
    """Return when and what: python-crontab writes some fields in another way, such as Sunday's."""
    words = entry.split(" ")
    fields = parse_fields(" ".join(words[:5]))
    parts = (fields.minute, fields.hour, fields.day, fields.month, fields.weekday)
    return (*((part.values, part.star) for part in parts), words[5:])


def _words(message: bytes) -> str:
    return message.decode(errors="replace").strip()[:500] or "it gave no reason"
