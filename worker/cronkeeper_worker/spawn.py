"""Executes plain command lines: without a shell where that makes no difference, and as another account.

Another account is entered between fork and exec, by the C code that the standard library's subprocess has for it: no
Python runs in the child, so that next to none of our pages are copied. Nor is there a program in between: setpriv(1)
takes 1.2 ms of processor time for each run, as it reads a locale and asks for the account again.
"""

from __future__ import annotations

import _posixsubprocess
import _thread
import errno
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cronkeeper_worker.accounts import Account

T = TypeVar("T")

#: A path and words that no shell looks into: nothing to expand, to quote, to redirect, or to be taken for a comment.
_PLAIN = re.compile(r"[ \t]*(/[\w@%+=:,./-]*(?:[ \t]+[\w@%+=:,./-]+)*)[ \t]*", re.ASCII)
#: Python 3.11 to 3.13 take the same arguments, in the same order; subprocess itself would cost 2.6 MiB.
CAN_FORK_AND_EXECUTE = sys.version_info < (3, 14)

#: An ignored signal stays so across exec: what Python ignores, what a shell ignored before us, what the runner handles.
DEFAULT_SIGNALS = tuple(number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP))


def words(command: str) -> list[str] | None:
    """Return a command line as what the shell would execute, or None where only a shell knows. PURE.

    A name without a slash may be one of the shell's own commands, or lie anywhere on PATH.
    """
    found = _PLAIN.fullmatch(command)
    return found.group(1).split() if found else None


def execute(argv: Sequence[str], environment: Mapping[str, str], null_fd: int, output_fd: int) -> int:
    """Return the pid of a process of our own account, with a session of its own, that has been executed.

    Its working folder, umask and limits are ours; its output goes to `output_fd`. Raises OSError: there is none. We
    wait for the kernel to read the program: for those on a disk of the system only.
    """
    return os.posix_spawn(
        argv[0],
        list(argv),
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, old, new) for old, new in ((null_fd, 0), (output_fd, 1), (output_fd, 2))],
        setsid=True,
        setsigmask=(),
        setsigdef=DEFAULT_SIGNALS,
    )


def fork_and_execute(
    argv: Sequence[str],
    environment: Mapping[str, str],
    null_fd: int,
    output_fd: int,
    status_fd: int,
    status_end_fd: int,
    account: Account,
) -> int:
    """Return the pid of such a process, of any account, which tells by the end of a pipe how it goes on.

    That comes to its end of file when the program is executed; before that it gives a reason (`explain`) why it is not.
    Nobody waits for it here: the program may be on a disk that hangs, and the next one can be made meanwhile. Another
    account is to be entered in a thread that is barred from gaining privileges. Raises OSError: there is no process.
    """
    gid, groups, uid = (account.gid, list(account.groups), account.uid) if account.switch else (None, None, None)
    return _posixsubprocess.fork_exec(
        [os.fsencode(word) for word in argv],
        [os.fsencode(argv[0])],
        False,  # close_fds: all of ours are closed by exec
        (),
        None,  # type: ignore[arg-type]  # cwd
        [os.fsencode(f"{name}={value}") for name, value in environment.items()],
        null_fd, -1, -1, output_fd, -1, output_fd, status_fd, status_end_fd,
        True,  # restore_signals: those that Python ignores
        True,  # start_new_session
        -1,  # process_group
        gid,
        groups,
        uid,
        -1,  # umask
        None,  # type: ignore[arg-type]  # preexec_fn
        False,  # allow_vfork: we would wait
    )  # fmt: skip


def explain(reason: bytes) -> tuple[str, bool]:
    """Return for people why a program was not executed, and whether the kernel refused the program itself.

    The C code says `OSError:<errno in hex>:`, with "noexec" at its end if it did not come so far.
    """
    text = reason.decode(errors="replace")
    found = re.fullmatch("OSError:([0-9A-Fa-f]+):(noexec)?", text)
    if found is None:
        return text, False
    what = "cannot prepare the process" if found[2] else "cannot execute"
    return f"{what}: {os.strerror(int(found[1], 16))}", not found[2]


def hear_ignored_signals() -> None:
    """Have what a shell made us ignore be heard, and then ignored: an ignored signal stays so across exec, a heard one
    does not. What was blocked before us is heard, too. In the main thread."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, lambda *_: None)


class Barred:
    """A thread that is barred from ever gaining privileges, and so is what it makes (no_new_privs is of a thread).

    It works while its caller waits: never do two of our threads run. `bar` is called in it, once.
    """

    def __init__(self, bar: Callable[[], None]) -> None:
        self._bar = bar
        self._work: Callable[[], object] | None = None
        self._result: object = None
        self._fault: BaseException | None = None
        self._asked, self._answered = _thread.allocate_lock(), _thread.allocate_lock()
        self._asked.acquire()
        self._answered.acquire()
        self._is_there = False
        self._ident = 0

    def do(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises; what it does by us is done at once.

        OSError: there is no such thread to be had, and nothing was done.
        """
        if _thread.get_ident() == self._ident:
            return work()
        if not self._is_there:
            try:
                _thread.start_new_thread(self._run, ())
            except RuntimeError as exc:
                raise OSError(errno.EAGAIN, f"cannot prepare the process: {exc}") from exc
            self._is_there = True
        self._work = work
        self._asked.release()
        self._answered.acquire()
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault
        result, self._result = self._result, None
        return result  # type: ignore[return-value]  # of `work`

    def close(self) -> None:
        """End the thread. Safe to repeat."""
        if self._is_there:
            self._is_there = False
            self._asked.release()
            self._answered.acquire()

    def _run(self) -> None:
        barred = False
        self._ident = _thread.get_ident()
        while True:
            self._asked.acquire()
            # Nothing is kept of it: it may hold secrets.
            work, self._work = self._work, None
            if work is None:
                self._ident = 0  # the next thread may have this number, and is not barred
                self._answered.release()
                return
            try:
                if not barred:
                    self._bar()
                    barred = True
                self._result = work()
            except BaseException as exc:  # noqa: BLE001 - it is raised again, in the thread that asked
                self._fault = exc
            del work
            self._answered.release()
