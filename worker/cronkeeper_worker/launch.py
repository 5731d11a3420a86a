"""Makes processes: nothing but this and spawn.py forks and executes. Whoever makes runs does one thing at a time.

Two ways lead to the same job. A plain command line, which is nearly every job, is started without Python in between
(spawn.py): by posix_spawn, which does not copy the parent, or by the C code of subprocess. Whatever needs more (an
artifact's descriptor, limits, a folder) is forked and prepared step by step.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import resource
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from cronkeeper_worker import descriptors, our_process, run_files, spawn
from cronkeeper_worker.accounts import Account, Accounts
from cronkeeper_worker.control_groups import ControlGroups
from cronkeeper_worker.launched import Job, Launched, NotTried, has_expired, watched_or_dead
from cronkeeper_worker.orders import Order
from cronkeeper_worker.run_folders import Folders
from cronkeeper_worker.spawn import DEFAULT_SIGNALS, Barred, words
from cronkeeper_worker.together import Together
from cronkeeper_worker.verified import Verifier, sha256_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cronkeeper_worker.launched import Tell


class Launcher:
    """Carries out orders under one state folder."""

    def __init__(
        self,
        state_dir: str,
        *,
        group: int = -1,
        processes: int = 0,
        log: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.folders = Folders(state_dir, group=group)
        self._accounts = Accounts()
        self._verifier = Verifier()
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._core = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._nofile[1], self._nofile[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, self._core[1]))
        self._no_new_privs: Callable[[], None] | None = None
        self._barred = Barred(our_process.no_new_privs)
        self._processes = processes or our_process.half_of_all_processes()
        if os.geteuid() == 0:
            our_process.limit_processes(self._processes)
        else:
            # All our runs are of this account, and get it from us.
            our_process.load_no_new_privs()()
        spawn.hear_ignored_signals()
        self._shielded = our_process.oom_score_adj() < 0
        our_process.keep_to_ourselves()
        self.groups = ControlGroups(state_dir, run_files.boot_id(), log)
        self._together = Together(self, self._null, self._processes, log)

    def close(self) -> None:
        """Give back what belongs to the process. Runs go on."""
        self._barred.close()
        self.groups.close()
        os.close(self._null)
        os.close(self._here)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        resource.setrlimit(resource.RLIMIT_CORE, self._core)

    def launch_all(self, orders: Iterable[Order], tell: Tell) -> None:
        """Start the orders' processes, in their order; `tell` is called with each as soon as it is known.

        Those of one account that come one after the other are made together where that is cheaper (see together.py).
        """
        for account, group in itertools.groupby(orders, self._quick_account):
            some = list(group)
            if account is not None and self._together.is_for(account, len(some)):
                self._together.make(some, account, tell)
            elif account is not None and len(some) > 1:
                self._in_barred(some, tell)
            else:
                self._one_by_one(some, tell)

    def take_strays(self) -> set[int]:
        """Return the children that we have got meanwhile beside those we have made; they are to be reaped."""
        strays, self._together.strays = self._together.strays, set()
        return strays

    def _quick_account(self, order: Order) -> Account | None:
        """Return the account, if it is another one than ours and the order takes the quick way."""
        try:
            account = self._accounts.get(order.run_as)
        except (ValueError, OSError):  # whoever launches it finds out, too
            return None
        return account if account.switch and self._is_plain(order, account) else None

    def _in_barred(self, orders: Sequence[Order], tell: Tell) -> None:
        """Launch them in the barred thread: to change threads for each costs as much as the process itself."""
        left = collections.deque(orders)

        def work() -> None:
            while left:
                self._one_by_one([left.popleft()], tell)

        try:
            self._barred.do(work)
        except OSError:  # there is no such thread: each finds out by itself
            if len(left) < len(orders):
                raise
            work()

    def _one_by_one(self, orders: Iterable[Order], tell: Tell) -> None:
        for order in orders:
            tell(order, self.launch(order))

    def launch(self, order: Order, *, by_shell: bool = False) -> Launched | Exception:
        """Start the order's process; `by_shell` says that it could not be executed without one.

        Returns NotTried when it has expired meanwhile; FileExistsError when the run has a folder already (it was
        started before), OrderError or OSError when it cannot be started: nothing of it was executed then.
        """
        try:
            return self._launch(order, by_shell=by_shell)
        except (NotTried, ValueError, OSError) as exc:  # of the order, or a text that no program can be given
            return exc

    def _launch(self, order: Order, *, by_shell: bool) -> Launched:
        # First: once there is a process, it is too late to find out that it cannot be watched.
        descriptors.need()
        account = self._accounts.get(order.run_as)
        if not by_shell and has_expired(order):
            # To look an account up may take its time, and so may those before it.
            raise NotTried
        job = self.prepare(order, account, by_shell=by_shell)
        try:
            launched = self._spawn(job, by_shell) if self._is_plain(order, account) else self._fork(job)
            self.groups.limit(order.run_id, self._processes)
            return launched
        except BaseException:
            self.undo(job)
            raise
        finally:
            job.let_go()

    def prepare(self, order: Order, account: Account, *, by_shell: bool = False) -> Job:
        """Settle all that can be settled before there is a process."""
        start = run_files.RunStart(
            0, 0, run_files.boot_id(), order.nonce, digest(order), _now_ms(), order.timeout_s, order.kill_after_s
        )
        with contextlib.ExitStack() as stack:
            program = -1
            if order.executable:
                program = self._verifier.open(order.executable, order.sha256)
                stack.callback(os.close, program)
            if by_shell:
                folder = os.path.join(self.folders.runs, order.run_id)
                run_files.withdraw(folder)
            else:
                folder = self.folders.make(order.run_id, account.uid, account.gid)
            pipe = os.pipe2(os.O_CLOEXEC)
            for end in pipe:
                stack.callback(os.close, end)
            os.set_blocking(pipe[0], False)
            secrets = run_files.deliver(folder, order.secrets, account.uid, account.gid)
            environment = {**account.environment(), **order.env, **secrets}
            job = Job(order, account, environment, start, folder, program, *pipe)
            stack.pop_all()
        return job

    def undo(self, job: Job) -> None:
        """Take back what was prepared, but its folder, which says that it was tried."""
        os.close(job.output)
        self.groups.remove(job.order.run_id)

    def _is_plain(self, order: Order, account: Account) -> bool:
        return (
            bool(order.command)
            and order.cwd is None
            and order.cpu_s is None
            and order.memory_mb is None
            and not self._shielded
            and (spawn.CAN_FORK_AND_EXECUTE or not account.switch)
        )

    # ------------------------------------------------------------------------------------------------ the quick way

    def _spawn(self, job: Job, by_shell: bool) -> Launched:
        direct = None if by_shell or not spawn.CAN_FORK_AND_EXECUTE else words(job.order.command)
        begin = partial(self._begin, job, direct)
        with run_files.StartNote(job.folder, job.start) as note:
            pid, status = self._barred.do(begin) if job.account.switch else begin()
            with watched_or_dead(pid, status):
                now_ms = _now_ms()
                note.complete(job.start._replace(pid=pid, start_ticks=run_files.start_ticks(pid), started_ms=now_ms))
                return Launched(pid, os.pidfd_open(pid), job.output, status, direct is not None, now_ms)

    def _begin(self, job: Job, direct: list[str] | None) -> tuple[int, int]:
        argv, environment = job.program(direct)
        by_us = direct is None and not job.account.switch

        def make(status: int, status_end: int) -> int:
            with self.groups.around(job.order.run_id), self._as_a_job(job.work):
                if by_us:
                    return spawn.execute(argv, environment, self._null, job.output_fd)
                return spawn.fork_and_execute(
                    argv, environment, self._null, job.output_fd, status, status_end, job.account
                )

        return (make(-1, -1), -1) if by_us else _told(make)

    @contextlib.contextmanager
    def _as_a_job(self, work: str) -> Iterator[None]:
        """What is started within has a job's working folder, umask and limits."""
        os.chdir(work)
        umask = os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._nofile[1], self._nofile[1]))
            os.umask(umask)
            os.fchdir(self._here)

    # ------------------------------------------------------------------------------------------------- the other way

    def _fork(self, job: Job) -> Launched:
        self.load(job.account)

        def make(_status: int, status_end: int) -> int:
            with self.groups.around(job.order.run_id):
                pid = os.fork()
                if pid == 0:
                    self._become(job, status_end)
                return pid

        pid, status = _told(make)
        with watched_or_dead(pid, status):
            return Launched(pid, os.pidfd_open(pid), job.output, status)

    def load(self, account: Account) -> None:
        """Have at hand what a child needs to become the account. OSError: it cannot be."""
        if account.switch and account.uid != 0 and self._no_new_privs is None:
            self._no_new_privs = our_process.load_no_new_privs()

    def _become(self, job: Job, status_fd: int) -> NoReturn:
        """In the child: turn into the job. Never returns, never raises: two parents would be worse than any error."""
        stage = "cannot prepare the process"
        try:
            os.setsid()
            os.dup2(self._null, 0)
            os.dup2(job.output_fd, 1)
            os.dup2(job.output_fd, 2)
            os.umask(0o077)
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            self._limit(job.order)
            stage = "cannot note the start"
            with run_files.StartNote(job.folder, job.start) as note:
                # Last, so that there is no job without a note; and nothing of the job runs before it.
                note.complete(
                    job.start._replace(pid=os.getpid(), start_ticks=run_files.start_ticks("self"), started_ms=_now_ms())
                )
            stage = f"cannot become {job.account.name}"
            os.chdir(os.path.join(job.folder, run_files.WORK))
            self._switch(job.account)
            if job.order.cwd is not None:
                stage = f"cannot enter {job.order.cwd}"
                os.chdir(job.order.cwd)
            stage = "cannot execute"
            _execute(job)
        except BaseException as exc:  # noqa: BLE001  # whatever it is, it must not reach the parent's loop
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else repr(exc)
            os.write(status_fd, f"{stage}: {reason}".encode(errors="replace")[:4000])
        finally:
            os._exit(127)

    def become(self, account: Account) -> None:
        """In a child that makes jobs of another account: turn into that account, with a job's umask and limits."""
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        self._switch(account)

    def _limit(self, order: Order) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        if order.cpu_s is not None:
            # SIGXCPU first, SIGKILL some seconds later for who ignores it.
            resource.setrlimit(resource.RLIMIT_CPU, (order.cpu_s, order.cpu_s + 5))
        if order.memory_mb is not None:
            size = order.memory_mb * 1024 * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        if self._shielded:
            # The service may be shielded from the out-of-memory killer; its jobs are not.
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("0")

    def _switch(self, account: Account) -> None:
        if account.switch:
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            if self._no_new_privs is not None:
                self._no_new_privs()


def _execute(job: Job) -> NoReturn:
    order = job.order
    if job.program_fd >= 0:
        # A script is opened by its interpreter through this name, so the descriptor stays open across exec.
        os.set_inheritable(job.program_fd, True)
        path = f"/proc/self/fd/{job.program_fd}"
        first = os.pread(job.program_fd, 4, 0)
        if first[:2] == b"#!" or first == b"\x7fELF":
            os.execve(path, [order.executable, *order.argv], job.environment)  # noqa: S606
        os.execve("/bin/sh", ["sh", path, *order.argv], job.environment)  # noqa: S606
    if order.command:
        os.execve("/bin/sh", ["sh", "-c", order.command], job.environment)  # noqa: S606
    os.execvpe(order.argv[0], list(order.argv), job.environment)  # noqa: S606


def _told(make: Callable[[int, int], int]) -> tuple[int, int]:
    """Return the process that is made, and what tells how it goes on; `make` is given both ends of that."""
    status, status_end = os.pipe2(os.O_CLOEXEC)
    try:
        return make(status, status_end), status
    except BaseException:
        os.close(status)
        raise
    finally:
        os.close(status_end)


def digest(order: Order) -> str:
    """Return the SHA-256 of what the order asks for, in hex: it tells two orders of one run id apart."""
    *wanted, _sealed = order._replace(expires_boot_s=None)
    return sha256_hex(repr(tuple(wanted)).encode(errors="backslashreplace"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
