"""A node of the fleet on this machine: namespaces of its own, crontabs of its own, and Debian's real cron."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.processes import Process, ServerError, tail

CRON_D = "/etc/cron.d"
SPOOL = "/var/spool/cron/crontabs"
_INIT = Path(__file__).with_name("node_init.py")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_TIMEOUT_S = 20.0
_FAKETIME = "libfaketime.so.1"


class NodeProcess(Process):
    """A process inside a node: a session leader there, known here by its pid on this machine.

    What it starts belongs to the node, and lives on after it unless it is in its process group; `Node.stop` ends all.
    """

    _inner_pid: int | None = None

    def start(self) -> Self:
        """Start it; returns once the program runs in the node (or has already ended)."""
        self._inner_pid = None
        super().start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._popen is not None and self._popen.poll() is None and self._inner_pid is None:
            # It is our program as soon as it leads a session: until then it is still nsenter's half-made child.
            leaders = [pid for pid in children(self._popen.pid) if _leads_session(pid)]
            self._inner_pid = leaders[0] if leaders else None
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not enter its node{self.log_tail()}")
            time.sleep(0.005)
        return self

    @property
    def pid(self) -> int:
        """The program's pid as this machine sees it; inside the node it has another."""
        return self._inner_pid if self._inner_pid is not None else super().pid

    def _signal(self, sig: signal.Signals, *, group: bool) -> None:
        if self._popen is None or self._inner_pid is None:
            super()._signal(sig, group=group)
            return
        try:
            if group:
                os.killpg(self._inner_pid, sig)
            elif self._popen.poll() is None:
                os.kill(self._inner_pid, sig)
        except ProcessLookupError:
            pass  # it ended meanwhile
        if sig is not signal.SIGSTOP and self._popen.poll() is None:
            # nsenter stops when its child stops, and would not notice the child's end while it is stopped.
            os.kill(self._popen.pid, signal.SIGCONT)


def opened_up() -> list[tuple[str, str, str]]:
    """Return what a node needs so that other accounts than root reach our Python and our code in it.

    A machine may have them below a folder such as /root, which is closed to others: the node gets one that is open, and
    in which there is nothing else.
    """
    wanted = {Path(sys.executable).resolve().parents[1], Path(sys.prefix), Path(__file__).resolve().parents[2]}
    closed: dict[Path, set[Path]] = {}
    for path in wanted:
        folders = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
        if folders:
            closed.setdefault(folders[0], set()).add(path)
    return [
        (str(folder), "size=1m,mode=0755", ":".join(sorted(str(path) for path in paths)))
        for folder, paths in closed.items()
    ]


class Node:
    """One node: its own host name, processes, /run, /dev/log, /etc/crontab, /etc/cron.d and user crontabs.

    The network is that of its `host`; the accounts and all other files are the machine's. Needs root. The machine's own
    cron and its crontabs are never touched. `stop` ends every process of the node, however it was started.

    `env` is added to the environment of whatever is started here. `disks` are file systems of the node's own that are
    gone when it stops: folder to tmpfs options, such as `size=1m,nr_inodes=50`; the folder `keep` stays visible below.
    """

    def __init__(
        self,
        name: str = "node",
        *,
        folder: Path | None = None,
        host: Host = LOOPBACK,
        env: Mapping[str, str] | None = None,
        disks: Mapping[str, str] | None = None,
        keep: Path | None = None,
    ) -> None:
        self.name = name
        self._env = dict(env or {})
        self._disks = dict(disks or {})
        self.host = host
        self.folder = folder or make_folder(name)
        self._owns_folder = folder is None
        self._init = Process(
            f"{name}-init",
            [
                *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child=KILL"),
                *("--propagation", "private", "--mount-proc", "--"),
                *(sys.executable, "-IS", str(_INIT), str(self.folder), name),
                *(word for path in opened_up() for word in path),
                *(word for path, options in self._disks.items() for word in (path, options, str(keep or self.folder))),
            ],
            log_path=self.folder / "init.log",
            host=host,
        )
        self._cron: NodeProcess | None = None
        self._processes: list[NodeProcess] = []

    def start(self) -> Self:
        """Make the node; its cron is not started. Starting it again after `stop` keeps its crontabs."""
        if os.geteuid() != 0:
            raise ServerError("a node needs root: it mounts a crontab folder of its own")
        if shutil.which("cron", path=_PATH) is None:
            raise ServerError("cron is not installed; run deploy/install-packages test")
        self._prepare_folder()
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        self._init.start()
        self._init.wait_until(ready.exists, timeout_s=_START_TIMEOUT_S, what="ready")
        return self

    def stop(self) -> None:
        """End every process of the node and remove its folder, unless it was given from outside."""
        if self._init.running:
            # The kernel lets go of a namespace's first process only after all others have ended: so this waits for all.
            os.kill(self.init_pid, signal.SIGKILL)
            for process in self._processes:
                # An nsenter that stopped together with its child would never take note of the child's end.
                process.resume()
            self._init.wait()
        for process in self._processes:
            process.kill()
        if self._owns_folder:
            remove_folder(self.folder)

    def pause(self) -> None:
        """SIGSTOP every process of the node, as a machine that is suspended."""
        for pid in self.pids():
            _tell(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT every process of the node."""
        for pid in self.pids():
            _tell(pid, signal.SIGCONT)
        for process in self._processes:
            process.resume()

    @property
    def running(self) -> bool:
        """Whether the node is up."""
        return self._init.running

    @property
    def init_pid(self) -> int:
        """The pid, on this machine, of the node's first process."""
        pids = children(self._init.pid) if self._init.running else []
        if not pids:
            raise ServerError(f"{self.name} is not running{tail(self._init.log_path)}")
        return pids[0]

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> NodeProcess:
        """Start a program in the node. `env` is its whole environment when given, the test's own otherwise.

        It leads a session; its log is `<folder>/<name>.log`; it dies with the node.
        """
        process = self.process(argv, env, name=name, cwd=cwd, user=user)
        return process.start()

    def process(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> NodeProcess:
        """Return the same as `spawn`, not yet started: for what is stopped and started again."""
        inner = ["setpriv", "--pdeathsig", "KILL"]
        if user is not None:
            inner += ["--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--init-groups"]
        enter = ["nsenter", "--target", str(self.init_pid), "--mount", "--pid", "--uts", "--"]
        full_argv = [*enter, "env", f"--chdir={cwd or '/'}", "setsid", *inner, *argv]
        label = name or f"{Path(argv[0]).name}-{len(self._processes)}"
        process = NodeProcess(
            f"{self.name}/{label}",
            full_argv,
            log_path=self.folder / f"{label}.log",
            env={"PATH": _PATH, **(os.environ if env is None else env), **self._env},
            host=self.host,
        )
        self._processes.append(process)
        return process

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, *, timeout_s: float = 30.0) -> str:
        """Run a program in the node to its end and return what it printed; raise `ServerError` if it failed."""
        process = self.spawn(argv, env)
        status = process.wait(timeout_s)
        if status != 0:
            raise ServerError(f"{process.name} ended with status {status}{process.log_tail()}")
        return process.log_text().partition("\n")[2]

    def start_cron(self, *, faketime: str | None = None, timezone: str | None = None) -> NodeProcess:
        """Start Debian's cron in the node.

        `faketime` is a libfaketime spec, such as `@2026-03-29 01:50:00 x60` (then a minute takes a second, and cron's
        jobs still run in real time); `timezone` is cron's TZ, the machine's unless told.
        """
        env = {"PATH": _PATH}
        if timezone is not None:
            env["TZ"] = timezone
        if faketime is not None:
            env |= {"LD_PRELOAD": str(find_faketime()), "FAKETIME": faketime, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        if self._cron is not None and self._cron.running:
            raise ServerError(f"{self.name} has a running cron")
        self._cron = self.spawn(["cron", "-f", "-L", "15"], env, name="cron")
        return self._cron

    def stop_cron(self) -> None:
        """Stop cron in order; what it started goes on."""
        self._running_cron().stop()

    def kill_cron(self) -> None:
        """kill -9 cron alone; what it started goes on."""
        self._running_cron().kill(group=False)

    def pause_cron(self) -> None:
        """SIGSTOP cron; after `resume_cron` it starts at once what it has missed."""
        self._running_cron().pause()

    def resume_cron(self) -> None:
        """SIGCONT cron."""
        self._running_cron().resume()

    @property
    def cron_running(self) -> bool:
        """Whether the node's cron is alive."""
        return self._cron is not None and self._cron.running

    def cron_log(self) -> str:
        """Return all that was said over the node's /dev/log: cron's starts, reloads, commands and complaints."""
        path = self.folder / "syslog"
        return path.read_text(errors="replace") if path.exists() else ""

    def read_crontabs(self) -> dict[str, bytes]:
        """Return the node's crontabs by their path in the node: those of cron.d and those of its users."""
        found = {}
        for inside, outside in ((CRON_D, self.cron_d), (SPOOL, self.spool)):
            for path in sorted(outside.iterdir()):
                if path.is_file():
                    found[f"{inside}/{path.name}"] = path.read_bytes()
        return found

    @property
    def cron_d(self) -> Path:
        """The node's /etc/cron.d, as this machine sees it."""
        return self.inside(CRON_D) if CRON_D in self._disks and self.running else self.folder / "cron.d"

    def inside(self, path: str | Path) -> Path:
        """Return how this machine sees a path of the node, also on the node's own disks."""
        return Path(f"/proc/{self.init_pid}/root{path}")

    @property
    def spool(self) -> Path:
        """The node's user crontabs, as this machine sees them."""
        return self.folder / "crontabs"

    def pids(self) -> list[int]:
        """Return the pids, on this machine, of all processes in the node."""
        namespace = os.readlink(f"/proc/{self.init_pid}/ns/pid")
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if os.readlink(folder / "ns" / "pid") == namespace:
                        found.append(int(folder.name))
                except OSError:
                    continue  # it ended meanwhile
        return found

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _prepare_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cron_d.mkdir(mode=0o755, exist_ok=True)
        if not self.spool.exists():
            self.spool.mkdir()
            shutil.chown(self.spool, "root", "crontab")
            self.spool.chmod(0o1730)
        # The machine's own would run its cron.daily and the like in the node.
        crontab = self.folder / "crontab"
        crontab.touch(mode=0o644)

    def _running_cron(self) -> NodeProcess:
        if self._cron is None:
            raise ServerError(f"{self.name}'s cron was never started")
        return self._cron


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, oldest first; none if it is gone."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # it ended meanwhile
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
    return sorted(found)


def _tell(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(pid, sig)


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False  # it was a short one: it has ended already


def find_faketime() -> Path:
    """Return libfaketime's library, to preload."""
    for path in sorted(Path("/usr/lib").glob(f"*/faketime/{_FAKETIME}")):
        return path
    raise ServerError("libfaketime is not installed; run deploy/install-packages test")
