"""What this process sets about itself, and so about all that it makes."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38


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


def die_with(parent: int) -> None:
    """Be killed when our parent ends, and let nobody look into us, or have us dumped. After the last change of account,
    which undoes both; what we make has none of it. OSError: the parent has ended already, or it cannot be had."""
    prctl = _load_prctl("a child cannot be bound to its parent")
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the parent has ended")


def close_all_but(kept: set[int]) -> None:
    """Close all descriptors but these; negative ones are none."""
    low = 0
    for fd in sorted({*kept, resource.getrlimit(resource.RLIMIT_NOFILE)[0]}):
        # An empty range is everything to Python's closerange(0, 0).
        if fd > low:
            os.closerange(low, fd)
        low = max(low, fd + 1)


def children() -> set[int]:
    """Return the children that the main thread has made, or that have come to the process, ended ones too. OSError:
    the kernel does not say."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(pid) for pid in file.read().split()}


def knows_its_children() -> bool:
    """Say whether the kernel tells a process who its children are."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


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
