"""A child process with a log, in a session of its own, that leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.harness.hosts import LOOPBACK, Host
from tests.harness.leftovers import RUN_VARIABLE

_TAIL_LINES = 40
_TAIL_BYTES = 64 * 1024


class ServerError(Exception):
    """A server did not come up or died; the message ends with the tail of its log."""


class Process:
    """One program: start, stop, kill -9, pause and resume, as often as you like; its output goes to `log_path`.

    `env` is the whole environment when given; the test's own otherwise. `user` is the account to run as, when we are
    root; `host` is where it runs. What the program forks stays in its process group unless it leaves it on purpose, and
    dies with it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        host: Host = LOOPBACK,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.host = host
        self.log_path = log_path
        self._env = {**env, **_run_tag()} if env is not None else None
        self._cwd = cwd
        self._user = user
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it. Returns at once: see `wait_until` for "it answers". Starting what runs already is an error."""
        if self.running:
            raise ServerError(f"{self.name} runs already, as pid {self.pid}")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            log.write(f"--- {shlex.join(self.argv)}\n".encode())
            log.flush()
            self._popen = subprocess.Popen(
                self._full_argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The pid of the program itself, as the test sees it."""
        if self._popen is None:
            raise ServerError(f"{self.name} was never started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit status, minus the signal's number if a signal ended it; None while it runs."""
        return self._popen.poll() if self._popen is not None else None

    def wait(self, timeout_s: float = 30.0) -> int:
        """Return the exit status once it has ended by itself; raise `ServerError` if it has not after `timeout_s`."""
        if self._popen is None:
            raise ServerError(f"{self.name} was never started")
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.name} has not ended after {timeout_s:g} s{self.log_tail()}") from None

    def stop(self, timeout_s: float = 15.0, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it in order: `sig` to the program, then SIGKILL to its whole group. Stopping twice is no error."""
        if self._popen is None:
            return
        if self.running:
            self.resume()
            self._signal(sig, group=False)
            try:
                self._popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL, group=True)
                self._popen.wait()
        self._signal(signal.SIGKILL, group=True)

    def kill(self, *, group: bool = True) -> None:
        """kill -9: the whole process group, or with `group=False` the program alone."""
        if self._popen is None:
            return
        self._signal(signal.SIGKILL, group=group)
        self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP the whole group: it holds its sockets and its sessions but does nothing."""
        self._signal(signal.SIGSTOP, group=True)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT, group=True)

    def send(self, sig: signal.Signals) -> None:
        """Send one signal to the program itself."""
        self._signal(sig, group=False)

    def log_text(self) -> str:
        """Return everything it has printed since the first start."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self) -> str:
        """Return the last lines of the log, as a paragraph for an error message."""
        return tail(self.log_path)

    def wait_until(self, check: Callable[[], object], *, timeout_s: float, what: str) -> None:
        """Call `check` until it returns something true. What it raises counts as "not yet".

        Raises `ServerError` with the log's tail if the program ends meanwhile, or after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        problem = ""
        while time.monotonic() < deadline:
            if not self.running:
                raise ServerError(f"{self.name} ended with status {self.returncode}{self.log_tail()}")
            try:
                if check():
                    return
            except Exception as exc:  # noqa: BLE001  # any error of any client library means "not yet"
                problem = f" ({type(exc).__name__}: {exc})"
            time.sleep(0.05)
        raise ServerError(f"{self.name}: not {what} after {timeout_s:g} s{problem}{self.log_tail()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _full_argv(self) -> list[str]:
        prefix = ["setpriv"]
        # The death signal belongs to the thread that forks: from a short-lived thread it would end the child early.
        if threading.current_thread() is threading.main_thread():
            prefix += ["--pdeathsig", "KILL"]
        if self._user is not None and os.geteuid() == 0:
            prefix += ["--reuid", self._user, "--regid", str(pwd.getpwnam(self._user).pw_gid), "--init-groups"]
        return [*self.host.enter, *(prefix if len(prefix) > 1 else []), *self.argv]

    def _signal(self, sig: signal.Signals, *, group: bool) -> None:
        if self._popen is None:
            return
        try:
            if group:
                os.killpg(self._popen.pid, sig)
            elif self._popen.poll() is None:
                os.kill(self._popen.pid, sig)
        except ProcessLookupError:
            pass  # it ended meanwhile: what we wanted, or what the next look will tell


def _run_tag() -> dict[str, str]:
    value = os.environ.get(RUN_VARIABLE)
    return {RUN_VARIABLE: value} if value else {}


def tail(log_path: Path) -> str:
    """Return the last lines of a log, as a paragraph for an error message; empty if there is no log."""
    if not log_path.exists():
        return ""
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([f"\n--- the end of {log_path}:", *lines])


def alive(pid: int) -> bool:
    """Return whether a process with this pid exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
