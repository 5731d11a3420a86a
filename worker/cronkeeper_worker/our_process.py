"""What this process sets about itself, and so about all that it makes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38


def limit_processes(most: int) -> None:
    """Bound how many processes an account may have: one whose job multiplies leaves room for others.

    Runs get it from us. Root itself is not bound by it. (Our own account, where that is not root, does other things,
    too.) It is never raised, which takes more than root has in some containers.
    """
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def half_of_all_processes() -> int:
    """Return how many processes are half of what the kernel can have."""
    most = []
    for name in ("pid_max", "threads-max"):
        with open(f"/proc/sys/kernel/{name}") as file:
            most.append(int(file.read()))
    return min(most) // 2


def load_no_new_privs() -> Callable[[], None]:
    """Return a function that bars the process from ever gaining privileges (setuid programs, file capabilities)."""
    prctl = _load_prctl("runs cannot be barred from gaining privileges")
    return lambda: prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _load_prctl(what: str) -> Callable[[int, int], None]:
    """Return prctl(2) of two numbers, which raises OSError.

    ctypes is loaded before the first fork that needs it, and only then: 0.6 MiB.
    """
    try:
        import ctypes
    except ImportError as exc:
        raise OSError(errno.ENOSYS, f"{what}: {exc}") from exc

    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def prctl(option: int, value: int) -> None:
        if call(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    return prctl


@contextlib.contextmanager
def heir() -> Iterator[None]:
    """Make this process the next parent of the children of those of its children that end within. Raises OSError."""
    prctl = _load_prctl("the children of a child cannot be taken over")
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


def no_new_privs() -> None:
    """Bar this process from ever gaining privileges."""
    load_no_new_privs()()


def children() -> list[int]:
    """Return the children that this thread has made, or that have come to the process; none where the kernel does not
    say."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except (OSError, ValueError):
        return []


def keep_to_ourselves() -> None:
    """Mark whatever we have inherited to be closed at exec, as everything is that Python opens."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.set_inheritable(int(name), False)


def oom_score_adj() -> int:
    try:
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
