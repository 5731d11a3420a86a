"""Where a test server runs: on this machine's loopback, or in a network namespace with an address of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NEW_NET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Host:
    """A place for servers: they bind `address`, and their command line begins with `enter`."""

    name: str
    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


#: This machine itself.
LOOPBACK = Host("loopback")


class NetSpace:
    """A network namespace that lives as long as this object is open, or a process runs in it. Needs root.

    Nothing of it is on any disk: if the test's process is killed, the kernel removes it.
    """

    def __init__(self) -> None:
        made: list[int] = []

        def make() -> None:
            _check(_libc.unshare(_NEW_NET), "unshare")
            made.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))

        # Of a thread of its own: the namespace of the caller stays what it is.
        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        if not made:
            raise OSError("no network namespace could be made; the harness needs root")
        self._fd = made[0]

    @property
    def path(self) -> str:
        """The file that names it for nsenter(1) and ip(8), for as long as this object is open."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @property
    def inode(self) -> int:
        """What `readlink /proc/PID/ns/net` says in brackets."""
        return os.fstat(self._fd).st_ino

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command line that run it in here; the program keeps nsenter's pid."""
        return ("nsenter", f"--net={self.path}", "--")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread in here for a while: its sockets, its new threads and its children are in here.

        A socket or a thread stays where it was made.
        """
        before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self._fd, _NEW_NET), "setns")
            try:
                yield
            finally:
                _check(_libc.setns(before, _NEW_NET), "setns")
        finally:
            os.close(before)

    def close(self) -> None:
        """Let go of it; closing twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def namespaces_in_use() -> set[int]:
    """Return the network namespaces that any process of this machine is in, as `NetSpace.inode` names them."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.add(int(os.readlink(link)[len("net:[") : -1]))
    return found


def _check(status: int, call: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
