"""What a run prints: its first part into a file, its last part in memory, the rest counted."""

from __future__ import annotations

import os

from cronkeeper_worker import run_files
from cronkeeper_worker.masking import Masker, patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_READ_BYTES = 65_536


class Capture:
    """Takes in the output of one run. Owns `fd`, which is non-blocking; -1 once closed.

    `secrets` are masked before anything is kept.
    """

    __slots__ = ("_file", "_folder", "_head_left", "_masker", "_tail", "fd", "size")

    def __init__(self, fd: int, folder: str, keep_bytes: int, secrets: Iterable[bytes] = ()) -> None:
        self.fd = fd
        #: Bytes that were printed, kept or not.
        self.size = 0
        self._folder = folder
        #: Opened by the first byte.
        self._file = -1
        self._head_left = keep_bytes
        self._masker = Masker(patterns(secrets))
        self._tail = b""

    def take(self) -> bool:
        """Read once. False at the end of the output."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        self.size += len(data)
        self._keep(self._masker.feed(data))
        return True

    def tail(self) -> str:
        """Return the end of the output."""
        return run_files.tail_text(self._tail)

    def close(self) -> None:
        """Let go of the pipe. What is printed from now on goes nowhere."""
        self._keep(self._masker.finish())
        os.close(self.fd)
        self.fd = -1

    def finish(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-run_files.TAIL_BYTES :]
        if self._head_left <= 0 or not data:
            return
        head = data[: self._head_left]
        self._head_left -= len(head)
        try:
            if self._file < 0:
                path = os.path.join(self._folder, run_files.OUTPUT)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            if os.write(self._file, head) < len(head):
                self._head_left = 0
        except OSError:
            # No space left: the job matters more than its log, whose tail is kept in memory.
            self._head_left = 0
