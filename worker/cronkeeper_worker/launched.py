"""What a launch begins with and ends in."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from cronkeeper_worker import run_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cronkeeper_worker.accounts import Account
    from cronkeeper_worker.orders import Order

    #: Is told what has become of an order.
    Tell = Callable[[Order, "Launched | Exception"], None]


class Launched(NamedTuple):
    """A process on its way to becoming the job, and what to watch it by. The caller closes the descriptors."""

    pid: int
    pidfd: int
    #: stdout and stderr, non-blocking; end of file when nobody holds the other end.
    output_fd: int
    #: End of file when the job is executed; before that, the reason why it cannot be. -1: it is executed already.
    status_fd: int
    #: It goes without a shell, which may know how to run what the kernel refuses to execute.
    direct: bool = False
    #: When there was a process, in Unix milliseconds; 0: its own note tells.
    started_ms: int = 0


class Job(NamedTuple):
    """Everything about a run that is settled before there is a process."""

    order: Order
    account: Account
    environment: dict[str, str]
    start: run_files.RunStart
    folder: str
    program_fd: int
    #: Both ends of its output.
    output: int
    output_fd: int

    @property
    def work(self) -> str:
        """Return the job's own folder."""
        return os.path.join(self.folder, run_files.WORK)

    def let_go(self) -> None:
        """Close what its process has by now, or never will have."""
        os.close(self.output_fd)
        if self.program_fd >= 0:
            os.close(self.program_fd)

    def program(self, direct: list[str] | None) -> tuple[list[str], dict[str, str]]:
        """Return what is to be executed, and its environment: the words, or a shell that reads the command line."""
        if direct is None:
            return ["/bin/sh", "-c", self.order.command], self.environment
        # As a shell would tell it.
        return direct, {**self.environment, "PWD": self.work}


class NotTried(Exception):
    """Nobody has tried to make a process: the order can be given again."""


class Vanished(Exception):
    """There may have been a process, and there is none any more: nobody knows what it did."""


def has_expired(order: Order) -> bool:
    """Say whether the order is of no use any more: its claim is to be asked for again."""
    return order.expires_boot_s is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > order.expires_boot_s


@contextlib.contextmanager
def watched_or_dead(pid: int, status: int) -> Iterator[None]:
    """Have our child killed when what is done within fails: nobody would know of it, or could watch it."""
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if status >= 0:
            os.close(status)
        raise
