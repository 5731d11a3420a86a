"""Makes many processes of one account at once: the parent is copied once for all of them, and not for each.

The C library makes a process without a copy of its parent (posix_spawn), but cannot change accounts meanwhile; and to
change those of one of our own threads would let every process of that account kill it, and by it us. So a process is
forked that becomes the account, makes one job after the other, and ends: what it has made is then ours, as it has made
us its children's next parent (PR_SET_CHILD_SUBREAPER). Whoever kills or stops it hurts a few runs of the same account,
which such a one could do anyway. Nobody can look into it, or have it dumped: it still holds a copy of our memory.

    before each job      (number, 0, 0)            so that it has said amid what it died
    after it             (number, pid, started)    it was executed
                         (number, -errno, 0)       the kernel would not have it
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cronkeeper_worker import our_process
from cronkeeper_worker.spawn import DEFAULT_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WORD = struct.Struct("=iiq")
#: For all of them, by the maker's own clock; it takes a tenth of that, and what is left comes with the next one.
_AT_MOST_S = 0.3
#: Without a word for so long it is killed: its program's disk hangs, or somebody has stopped it.
_PATIENCE_S = 1.0


class Wanted(NamedTuple):
    """A job that is to be made. Its descriptors are the caller's, and are closed by it."""

    argv: list[bytes]
    environment: Mapping[bytes, bytes]
    #: Where it works; its account can enter it.
    folder_fd: int
    output_fd: int
    #: `cgroup.threads` of its control group, opened by us; -1: there are no control groups.
    group_fd: int
    #: Whether it is too late for it; asked at the last instant.
    is_over: Callable[[], bool]


class Made(NamedTuple):
    """A process that was executed; it is our child. The time is in Unix milliseconds."""

    pid: int
    started_ms: int


class Refused(NamedTuple):
    """There is no process."""

    errno: int


class Unknown(NamedTuple):
    """There may be a process; if there is, or was, it is our child. `status_fd` ends when it is executed, or over."""

    status_fd: int


class Untried(NamedTuple):
    """There is no process, and nobody has tried."""


Outcome = Made | Refused | Unknown | Untried


def make(wanted: Sequence[Wanted], null_fd: int, become: Callable[[], None]) -> tuple[list[Outcome], bool]:
    """Return what has become of each, and whether their maker was stuck and everybody waited for it for a second.

    What is not made in a third of a second is untried.

    `become` turns the process that makes them into the account. OSError: there is none, and nothing was tried. In the
    main thread.
    """
    words, words_end = os.pipe2(os.O_CLOEXEC)
    try:
        with our_process.heir():
            us = os.getpid()
            try:
                maker = os.fork()
                if maker == 0:
                    _make_all(wanted, null_fd, become, words_end, us)
            finally:
                os.close(words_end)
            try:
                found, stuck = _listen(words, maker)
            except OSError as exc:
                raise RuntimeError(f"nobody knows what was made: {exc}") from exc
    except BaseException:
        os.close(words)
        raise
    outcomes = _outcomes(found, len(wanted), words)
    if not any(isinstance(outcome, Unknown) for outcome in outcomes):
        os.close(words)
    return outcomes, stuck


def _listen(words: int, maker: int) -> tuple[bytes, bool]:
    """Return all that it says, once it is dead, and whether it was silent for too long."""
    found, stuck = b"", True
    poll = select.poll()
    poll.register(words, select.POLLIN)
    try:
        while poll.poll(_PATIENCE_S * 1000):
            more = os.read(words, 65_536)
            found += more
            if not more:
                stuck = False
                break
    finally:
        os.kill(maker, signal.SIGKILL)
        os.waitpid(maker, 0)
    os.set_blocking(words, False)
    try:
        while more := os.read(words, 65_536):
            found += more
    except BlockingIOError:
        pass  # what it was making is on its way, and holds the other end until it is executed
    return found, stuck


def _outcomes(found: bytes, count: int, words: int) -> list[Outcome]:
    outcomes: list[Outcome] = [Untried()] * count
    for number, pid, started_ms in _WORD.iter_unpack(found):
        outcomes[number] = Made(pid, started_ms) if pid > 0 else Refused(-pid) if pid else Unknown(words)
    return outcomes


def _make_all(wanted: Sequence[Wanted], null_fd: int, become: Callable[[], None], words: int, parent: int) -> NoReturn:
    """In the child. Never returns, never raises: two parents would be worse than any error."""
    try:
        until_s = time.monotonic() + _AT_MOST_S
        # Not our parent's sockets, nor its lock: should it die, nobody must take us for it.
        our_process.close_all_but(
            {0, 1, 2, null_fd, words, *(fd for job in wanted for fd in (job.folder_fd, job.output_fd, job.group_fd))}
        )
        for number in DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        become()
        our_process.die_with(parent)
        for number, job in enumerate(wanted):
            if time.monotonic() > until_s:
                break
            if job.is_over():
                continue
            if job.group_fd >= 0:
                # Who opened it is asked for the right to do so, and not we.
                os.write(job.group_fd, b"0")
            os.fchdir(job.folder_fd)
            # Nobody there to hear it: then we make nothing more.
            os.write(words, _WORD.pack(number, 0, 0))
            os.write(words, _WORD.pack(number, *_make_one(job, null_fd)))
    finally:
        os._exit(0)


def _make_one(job: Wanted, null_fd: int) -> tuple[int, int]:
    try:
        pid = os.posix_spawn(
            job.argv[0],
            job.argv,
            job.environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null_fd, 0),
                (os.POSIX_SPAWN_DUP2, job.output_fd, 1),
                (os.POSIX_SPAWN_DUP2, job.output_fd, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError as exc:
        return -(exc.errno or errno.EINVAL), 0
    except ValueError:
        return -errno.EINVAL, 0
    return pid, time.time_ns() // 1_000_000
