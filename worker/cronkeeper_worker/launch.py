"""Makes processes: nothing but this and spawn.py forks and executes. Whoever makes runs does one thing at a time.

Two ways lead to the same job. A plain command line, which is nearly every job, is started without Python in between
(spawn.py): by posix_spawn, which does not copy the parent, or by the C code of subprocess. Whatever needs more (an
artifact's descriptor, limits, a folder) is forked and prepared step by step.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cronkeeper_worker import our_process, run_files, spawn
from cronkeeper_worker.accounts import Account, Accounts
from cronkeeper_worker.control_groups import ControlGroups
from cronkeeper_worker.orders import Order
from cronkeeper_worker.run_folders import Folders
from cronkeeper_worker.spawn import DEFAULT_SIGNALS, Barred, words
from cronkeeper_worker.verified import Verifier, sha256_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


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


class _Job(NamedTuple):
    """Everything about a run that is settled before there is a process."""

    order: Order
    account: Account
    environment: dict[str, str]
    start: run_files.RunStart
    folder: str
    program_fd: int
    output_fd: int


class Launcher:
    """Carries out orders under one state folder."""

    def __init__(
        self, state_dir: str, *, group: int = -1, processes: int = 0, log: Callable[[str], None] = lambda _text: None
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

    def close(self) -> None:
        """Give back what belongs to the process. Runs go on."""
        self._barred.close()
        self.groups.close()
        os.close(self._null)
        os.close(self._here)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        resource.setrlimit(resource.RLIMIT_CORE, self._core)

    def launch(self, order: Order, *, by_shell: bool = False) -> Launched:
        """Start the order's process; `by_shell` says that it could not be executed without one.

        Raises FileExistsError when the run has a folder already (it was started before), OrderError or OSError when it
        cannot be started: nothing of it was executed then.
        """
        account = self._accounts.get(order.run_as)
        start = run_files.RunStart(
            0, 0, run_files.boot_id(), order.nonce, digest(order), _now_ms(), order.timeout_s, order.kill_after_s
        )
        opened = []
        try:
            program = -1
            if order.executable:
                program = self._verifier.open(order.executable, order.sha256)
                opened.append(program)
            if by_shell:
                folder = os.path.join(self.folders.runs, order.run_id)
                run_files.withdraw(folder)
            else:
                folder = self.folders.make(order.run_id, account.uid, account.gid)
            output, output_end = os.pipe2(os.O_CLOEXEC)
            opened.append(output_end)
            try:
                os.set_blocking(output, False)
                secrets = run_files.deliver(folder, order.secrets, account.uid, account.gid)
                environment = {**account.environment(), **order.env, **secrets}
                job = _Job(order, account, environment, start, folder, program, output_end)
                plain = self._is_plain(order, account)
                launched = self._spawn(job, output, by_shell) if plain else self._fork(job, output)
                self.groups.limit(order.run_id, self._processes)
                return launched
            except BaseException:
                os.close(output)
                self.groups.remove(order.run_id)
                raise
        finally:
            for fd in opened:
                os.close(fd)

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

    def _spawn(self, job: _Job, output: int, by_shell: bool) -> Launched:
        work = os.path.join(job.folder, run_files.WORK)
        direct = None if by_shell or not spawn.CAN_FORK_AND_EXECUTE else words(job.order.command)
        begin = partial(self._begin, job, direct, work)
        with run_files.StartNote(job.folder, job.start) as note:
            pid, status = self._barred.do(begin) if job.account.switch else begin()
            with _watched_or_dead(pid, status):
                note.complete(job.start._replace(pid=pid, start_ticks=run_files.start_ticks(pid), started_ms=_now_ms()))
                return Launched(pid, os.pidfd_open(pid), output, status, direct=direct is not None)

    def _begin(self, job: _Job, direct: list[str] | None, work: str) -> tuple[int, int]:
        argv, environment = ["/bin/sh", "-c", job.order.command], job.environment
        if direct is not None:
            # As a shell would tell it.
            argv, environment = direct, {**environment, "PWD": work}
        by_us = direct is None and not job.account.switch

        def make(status: int, status_end: int) -> int:
            with self.groups.around(job.order.run_id), self._as_a_job(work):
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

    def _fork(self, job: _Job, output: int) -> Launched:
        if job.account.switch and job.account.uid != 0 and self._no_new_privs is None:
            self._no_new_privs = our_process.load_no_new_privs()

        def make(_status: int, status_end: int) -> int:
            with self.groups.around(job.order.run_id):
                pid = os.fork()
                if pid == 0:
                    self._become(job, status_end)
                return pid

        pid, status = _told(make)
        with _watched_or_dead(pid, status):
            return Launched(pid, os.pidfd_open(pid), output, status)

    def _become(self, job: _Job, status_fd: int) -> NoReturn:
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


def _execute(job: _Job) -> NoReturn:
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


@contextlib.contextmanager
def _watched_or_dead(pid: int, status: int) -> Iterator[None]:
    """Have our child killed when what is done within fails: nobody would know of it, or could watch it."""
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if status >= 0:
            os.close(status)
        raise


def digest(order: Order) -> str:
    """Return the SHA-256 of what the order asks for, in hex: it tells two orders of one run id apart."""
    *wanted, _sealed = order._replace(expires_boot_s=None)
    return sha256_hex(repr(tuple(wanted)).encode(errors="backslashreplace"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def remove_tree(folder: str) -> int:
    """Start rm on a folder whose content is hostile (links, depth, size); returns its pid. rm follows no link."""
    return os.posix_spawn("/bin/rm", ["rm", "-rf", "--one-file-system", "--", folder], {"LC_ALL": "C"})


#: The parent of a root part. Whoever has died for another reason than that there is nothing to do is started again; by
#: a shell, as that is the smallest process there is.
_KEEPER = '( while "$@"; s=$?; [ $s -ne 0 ]; do [ $s -gt 128 ] || sleep 1; done ) &'


def start_runner(python: str, main: str, state_dir: str, idle_s: float, *, kept: bool = False) -> None:
    """Start a runner for the state folder, which outlives us; if one runs already, it ends at once.

    It detaches itself; or it is `kept`: then it has a parent that starts it again whenever it is killed.
    """
    argv = [python, "-ISs", main, state_dir, str(idle_s)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRONKEEPER_")}
    if kept:
        argv = ["/bin/sh", "-c", _KEEPER, "keeper", *argv, "stay"]
        pid = os.posix_spawn(argv[0], argv, env, setsid=True)
    else:
        pid = os.posix_spawn(python, argv, env)
    # Somebody in this process may reap everybody's children.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def detach() -> None:
    """Leave the process, session and terminal that started us; returns in the new process only."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)


def run_tool(
    argv: Sequence[str], *, data: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 20.0
) -> tuple[int, bytes, bytes]:
    """Run a program of the system to its end; returns exit code, stdout and stderr. For the daemon, not for jobs.

    `data` is its standard input, `env` is added to our own environment. Raises OSError when it cannot be started, and
    TimeoutError.
    """
    import subprocess  # 2.6 MiB that the runner never needs

    try:
        done = subprocess.run(
            list(argv),
            input=data,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"{argv[0]} has not ended after {timeout_s:g} s") from exc
    return done.returncode, done.stdout, done.stderr
