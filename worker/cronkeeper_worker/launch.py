"""Makes processes: the only module that forks and executes.

Why fork and not posix_spawn: only between fork and exec can a process change its account, its limits and its folder
and then leave its own start.json. It costs 0.7 ms more for a parent of 10 MiB, which the second core hides, and it
would cost 15 ms in a parent of 200 MiB: hence the runner, and nobody else, makes the runs. The parent has one thread.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
import stat
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from cronkeeper_worker import run_files
from cronkeeper_worker.orders import Order, OrderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ACCOUNT_AGE_S = 60.0
_PR_SET_NO_NEW_PRIVS = 38
#: A file changed this recently may change again without a new timestamp: do not remember its hash.
_SETTLED_NS = 2_000_000_000
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER_PATH = "/usr/local/bin:/usr/bin:/bin"


class Account(NamedTuple):
    """Whom a run runs as. `switch` is false for the runner's own account."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    switch: bool


class Launched(NamedTuple):
    """A forked process on its way to becoming the job, and what to watch it by. The caller closes the descriptors."""

    pid: int
    pidfd: int
    #: stdout and stderr, non-blocking; end of file when nobody holds the other end.
    output_fd: int
    #: End of file when the job is executed; before that, the reason why it cannot be.
    status_fd: int


class Launcher:
    """Carries out orders under one state folder."""

    def __init__(self, state_dir: str) -> None:
        self.folders = run_files.Folders(state_dir)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._nofile[1], self._nofile[1]))
        self._accounts: dict[str | None, tuple[float, Account]] = {}
        self._hashes: dict[tuple[int, ...], str] = {}
        self._no_new_privs: Callable[[], None] | None = None
        self._shielded = _oom_score_adj() < 0

    def close(self) -> None:
        """Give back what belongs to the process. Runs go on."""
        os.close(self._null)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)

    def launch(self, order: Order) -> Launched:
        """Fork the order's process; returns without waiting for its exec.

        Raises FileExistsError when the run has a folder already (it was started before), OrderError or OSError when it
        cannot be started: nothing of it was executed then.
        """
        account = self._account(order.run_as)
        if account.uid != 0 and self._no_new_privs is None:
            self._no_new_privs = _load_no_new_privs()
        environment = _environment(order, account)
        start = self._start(order)
        program = self._open_verified(order) if order.executable else -1
        opened = [program] if program >= 0 else []
        try:
            folder = self.folders.make(order.run_id, account.uid, account.gid)
            output, output_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            opened += [output, output_end]
            os.set_blocking(output_end, True)
            status, status_end = os.pipe2(os.O_CLOEXEC)
            opened += [status, status_end]
            pid = os.fork()
            if pid == 0:
                job = _Job(order, account, environment, start, folder, program, output_end, status_end)
                self._become(job)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        for fd in opened:
            if fd not in (output, status):
                os.close(fd)
        return Launched(pid, pidfd, output, status)

    def _start(self, order: Order) -> run_files.RunStart:
        return run_files.RunStart(
            0, 0, run_files.boot_id(), order.nonce, digest(order), 0, order.timeout_s, order.kill_after_s
        )

    def _account(self, name: str | None) -> Account:
        """Look the account up, at most once a minute: it may be asked of a network."""
        known = self._accounts.get(name)
        now = time.monotonic()
        if known is None or now - known[0] > _ACCOUNT_AGE_S:
            known = self._accounts[name] = (now, find_account(name))
        return known[1]

    def _open_verified(self, order: Order) -> int:
        """Return a descriptor of the artifact whose content has the order's sha256: that descriptor is executed.

        Whatever is put in the file's place afterwards is another file.
        """
        fd = os.open(order.executable, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OrderError(f"{order.executable} is not a file")
            version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            actual = self._hashes.get(version)
            if actual is None:
                actual = _sha256_of(fd)
                if max(found.st_mtime_ns, found.st_ctime_ns) < time.time_ns() - _SETTLED_NS:
                    if len(self._hashes) > 4096:
                        self._hashes.clear()
                    self._hashes[version] = actual
            if actual != order.sha256:
                raise OrderError(f"the artifact has sha256 {actual}, not {order.sha256}: it is not run")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _become(self, job: _Job) -> NoReturn:
        """In the child: turn into the job. Never returns, never raises: two parents would be worse than any error."""
        stage = "cannot prepare the process"
        try:
            os.setsid()
            os.dup2(self._null, 0)
            os.dup2(job.output_fd, 1)
            os.dup2(job.output_fd, 2)
            os.umask(0o077)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Python ignores these two, and what is ignored stays so across exec.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            self._limit(job.order)
            started = job.start._replace(
                pid=os.getpid(), start_ticks=run_files.start_ticks("self"), started_ms=time.time_ns() // 1_000_000
            )
            stage = "cannot note the start"
            run_files.write_start(job.folder, started)
            self._close_others(job)
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
            os.write(job.status_fd, f"{stage}: {reason}".encode(errors="replace")[:4000])
        finally:
            os._exit(127)

    def _close_others(self, job: _Job) -> None:
        """Close whatever else is open: all of ours closes at exec anyway, but not what we may have inherited."""
        low = 3
        for fd in sorted({job.status_fd, job.program_fd} - {-1}):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, self._nofile[1])

    def _limit(self, order: Order) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._nofile)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
        if account.uid != 0 and self._no_new_privs is not None:
            self._no_new_privs()


class _Job(NamedTuple):
    """What the child needs, made before the fork."""

    order: Order
    account: Account
    environment: dict[str, str]
    start: run_files.RunStart
    folder: str
    program_fd: int
    output_fd: int
    status_fd: int


def _execute(job: _Job) -> NoReturn:
    order = job.order
    if job.program_fd >= 0:
        # A script is opened by its interpreter through this name, so the descriptor stays open across exec.
        os.set_inheritable(job.program_fd, True)
        path = f"/proc/self/fd/{job.program_fd}"
        if os.pread(job.program_fd, 4, 0)[:2] == b"#!" or os.pread(job.program_fd, 4, 0) == b"\x7fELF":
            os.execve(path, [order.executable, *order.argv], job.environment)  # noqa: S606
        os.execve("/bin/sh", ["sh", path, *order.argv], job.environment)  # noqa: S606
    if order.command:
        os.execve("/bin/sh", ["sh", "-c", order.command], job.environment)  # noqa: S606
    os.execvpe(order.argv[0], list(order.argv), job.environment)  # noqa: S606


def find_account(name: str | None) -> Account:
    """Return the account of that name (None: our own). Raises OrderError when there is none or we may not become it."""
    uid = os.geteuid()
    if name is None:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:  # a container may run under a number that no account has
            return Account(str(uid), uid, os.getegid(), (), "/", "/bin/sh", switch=False)
        return Account(entry.pw_name, uid, entry.pw_gid, (), entry.pw_dir, "/bin/sh", switch=False)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise OrderError(f"this machine has no account {name!r}") from None
    switch = entry.pw_uid != uid
    if switch and uid != 0:
        raise OrderError(f"only a worker that runs as root can run a job as {name!r}")
    groups = tuple(os.getgrouplist(name, entry.pw_gid)) if switch else ()
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, "/bin/sh", switch)


def _environment(order: Order, account: Account) -> dict[str, str]:
    """Return what a login would give, then what the order adds; nothing of ours leaks in."""
    return {
        "PATH": _ROOT_PATH if account.uid == 0 else _USER_PATH,
        "HOME": account.home,
        "LOGNAME": account.name,
        "USER": account.name,
        "SHELL": account.shell,
        "LANG": "C.UTF-8",
        **order.env,
    }


def digest(order: Order) -> str:
    """Return the SHA-256 of the whole order, in hex: it tells two orders of one run id apart."""
    return str(_new_sha256(repr(tuple(order)).encode(errors="surrogateescape")).hexdigest())


def _sha256_of(fd: int) -> str:
    total, offset = _new_sha256(b""), 0
    while block := os.pread(fd, 1 << 20, offset):
        total.update(block)
        offset += len(block)
    return str(total.hexdigest())


def _new_sha256(data: bytes) -> Any:
    """The interpreter's own SHA-256: hashlib would load all of OpenSSL, 4 MiB, into every runner."""
    global _sha256
    if _sha256 is None:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
        except ImportError:
            from hashlib import sha256
        _sha256 = sha256
    return _sha256(data)


_sha256: Any = None


def _load_no_new_privs() -> Callable[[], None]:
    """Return a function that bars the process from ever gaining privileges (setuid programs, file capabilities).

    ctypes is loaded before the first fork that needs it, and only then: 0.6 MiB. `setpriv --no-new-privs` would do the
    same for one more exec, 0.7 ms, at every run.
    """
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def no_new_privs() -> None:
        if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")

    return no_new_privs


def _oom_score_adj() -> int:
    try:
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def remove_tree(folder: str) -> int:
    """Start rm on a folder whose content is hostile (links, depth, size); returns its pid. rm follows no link."""
    return os.posix_spawn("/bin/rm", ["rm", "-rf", "--one-file-system", "--", folder], {"LC_ALL": "C"})


def start_runner(python: str, main: str, state_dir: str) -> None:
    """Start a runner for the state folder; it detaches itself and outlives us. One that runs already makes it no-op."""
    pid = os.posix_spawn(python, [python, "-ISs", main, state_dir], os.environ)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # somebody in this process reaps everybody's children
        return


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
