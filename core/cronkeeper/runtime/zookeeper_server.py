"""A real ZooKeeper server as a child process, from Debian's packages.

`cronkeeper standalone` runs one; the tests run ensembles. Everything listens on 127.0.0.1 unless told. Listening is no
health: a server may accept connections and still fail every session, so the caller proves it by writing an ephemeral
znode.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cronkeeper.errors import CronkeeperError

JARS_DIR = Path("/usr/share/java")
# Found by leaving out one at a time. Without metrics-core the server dies at once; without snappy-java it goes on
# listening and even answers `ruok`, but every session fails.
JARS = ("zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple", "metrics-core", "snappy-java")
ZOOKEEPER_PACKAGE = "libzookeeper-java"
JAVA_PACKAGE = "openjdk-17-jre-headless"

_JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xmx128m",
    "-Djava.net.preferIPv4Stack=true",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    # The transaction log is allocated ahead in blocks of 64 MB unless told: too much for a folder in a home directory.
    "-Dzookeeper.preAllocSize=4096",
)
_LOCK_WAIT_S = 5.0
_LOG_LIMIT_BYTES = 8 * 1024 * 1024
_TAIL_LINES = 30


class ZooKeeperServerError(CronkeeperError):
    """The server cannot be started, or did not come up. The message says what to do, or ends with the log's tail."""


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """One server of an ensemble: its number (1 to 255), its three ports, and the address that it binds."""

    my_id: int
    client_port: int
    peer_port: int
    election_port: int
    address: str = "127.0.0.1"


class ZooKeeperServer:
    """One ZooKeeper server on `address`:`client_port` that keeps its state in `data_dir`.

    Alone unless `ensemble` lists all the members, this one (`my_id`) among them. It can be started again after it was
    stopped or killed, and goes on from what it had. Sessions last 2 to 120 ticks of `tick_time_ms`. The child dies
    with this process if `start` is called from a thread that lives as long (the main thread). `enter` are words before
    its command line, such as `nsenter` and its arguments; `more_jars` and `more_config` (lines of zoo.cfg) are for what
    this class does not know, such as TLS.
    """

    def __init__(
        self,
        data_dir: Path,
        client_port: int,
        *,
        java: str = "java",
        ensemble: Sequence[EnsembleMember] = (),
        my_id: int = 1,
        tick_time_ms: int = 500,
        jars_dir: Path = JARS_DIR,
        address: str = "127.0.0.1",
        enter: Sequence[str] = (),
        more_jars: Sequence[str] = (),
        more_config: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.client_port = client_port
        self.my_id = my_id
        self._java = java
        self._ensemble = tuple(ensemble)
        self._tick_time_ms = tick_time_ms
        self._jars_dir = jars_dir
        self._address = address
        self._enter = tuple(enter)
        self._jars = (*JARS, *more_jars)
        self._more_config = tuple(more_config)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> str:
        """The connect string of this server alone: `<address>:<client port>`."""
        return f"{self._address}:{self.client_port}"

    @property
    def log_path(self) -> Path:
        """Where the server's own words go; `<log>.old` holds what came before."""
        return self.data_dir / "zookeeper.log"

    @property
    def pid(self) -> int | None:
        """The child's pid, or None if it is not running."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the child is alive. Says nothing about its health."""
        return self.pid is not None

    def start(self) -> None:
        """Start the child; returns before it listens. Starting a running server does nothing.

        Raises `ZooKeeperServerError` if Java or a jar is missing (the message names the package), or if another server
        still uses the data folder.
        """
        if self.running:
            return
        command = [*self._enter, *_die_with_parent(), self._find_java(), *_JVM_FLAGS, "-cp", self._class_path()]
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock_data_dir() as lock:
            self._rotate_log()
            config_path = self._write_config()
            command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config_path)]
            with self.log_path.open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    cwd=self.data_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # The child holds the lock as long as it lives, even if it outlives us: two servers on one folder
                    # would destroy it.
                    pass_fds=(lock.fileno(),),
                    # Ctrl-C at the terminal is for us: we stop the server after those that need it.
                    start_new_session=True,
                )

    def wait_listening(self, timeout_s: float = 20.0) -> None:
        """Return once the server takes sessions; as a member of an ensemble, once its client port accepts connections.

        Raises `ZooKeeperServerError`, with the tail of the log, if the child ends or `timeout_s` passes.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._child is None:
                raise ZooKeeperServerError("the ZooKeeper server was not started")
            # Between the two, for a fifth of a second, a session's request is swallowed: that client hangs for seconds.
            if self._accepts() and (self._ensemble or self.mode()):
                return
            try:
                status = self._child.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise ZooKeeperServerError(f"the ZooKeeper server ended with status {status}{self._log_tail()}")
        raise ZooKeeperServerError(f"nothing listens on {self.hosts} after {timeout_s:g} s{self._log_tail()}")

    def mode(self) -> str:
        """Return `standalone`, `leader` or `follower`; empty while the server does not serve, for whatever reason."""
        try:
            with socket.create_connection((self._address, self.client_port), timeout=1.0) as connection:
                connection.sendall(b"srvr")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return ""
        words = [line.partition(b":")[2] for line in answer.splitlines() if line.startswith(b"Mode:")]
        return words[0].decode().strip() if words else ""

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the child in order, by force after `timeout_s`. The data stays. Stopping twice is no error."""
        if self._child is None:
            return
        self._send(signal.SIGCONT)
        self._send(signal.SIGTERM)
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the child at once, as a crash would."""
        if self._child is None:
            return
        self._send(signal.SIGKILL)
        self._child.wait()

    def _find_java(self) -> str:
        found = shutil.which(self._java)
        if found is None:
            raise ZooKeeperServerError(
                f"Java was not found as {self._java!r}; install the Debian package {JAVA_PACKAGE}"
            )
        return found

    def _class_path(self) -> str:
        paths = [self._jars_dir / f"{name}.jar" for name in self._jars]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise ZooKeeperServerError(
                f"ZooKeeper is not installed ({', '.join(missing)} missing); "
                f"install the Debian package {ZOOKEEPER_PACKAGE}"
            )
        return ":".join(map(str, paths))

    def _lock_data_dir(self) -> IO[bytes]:
        lock = (self.data_dir / "server.lock").open("ab")
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # A server whose parent was killed a moment ago may still be on its way out.
                if time.monotonic() > deadline:
                    lock.close()
                    raise ZooKeeperServerError(
                        f"another ZooKeeper server uses {self.data_dir}; stop it first"
                    ) from None
                time.sleep(0.05)
            else:
                return lock

    def _rotate_log(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))

    def _write_config(self) -> Path:
        path = self.data_dir / "zoo.cfg"
        # A child that was killed while it read the file must find a whole one the next time.
        temporary = path.with_suffix(".tmp")
        temporary.write_text(
            render_config(
                self.data_dir,
                self.client_port,
                tick_time_ms=self._tick_time_ms,
                ensemble=self._ensemble,
                address=self._address,
            )
            + "".join(f"{line}\n" for line in self._more_config)
        )
        temporary.replace(path)
        if self._ensemble:
            (self.data_dir / "myid").write_text(f"{self.my_id}\n")
        return path

    def _accepts(self) -> bool:
        try:
            socket.create_connection((self._address, self.client_port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _send(self, sig: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(sig)

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        lines = self.log_path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"\n--- the end of {self.log_path}:", *lines])


def render_config(
    data_dir: Path,
    client_port: int,
    *,
    tick_time_ms: int,
    ensemble: Sequence[EnsembleMember] = (),
    address: str = "127.0.0.1",
) -> str:
    """Return the text of zoo.cfg: no admin server, hard quotas, purged snapshots, sessions of 2 to 120 ticks."""
    lines = [
        f"tickTime={tick_time_ms}",
        f"minSessionTimeout={2 * tick_time_ms}",
        f"maxSessionTimeout={120 * tick_time_ms}",
        f"dataDir={data_dir}",
        f"clientPort={client_port}",
        f"clientPortAddress={address}",
        "maxClientCnxns=0",
        "admin.enableServer=false",
        "4lw.commands.whitelist=srvr,mntr",
        # Quotas on znodes, where an operator sets any, refuse a write instead of only telling of it.
        "enforceQuota=true",
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
    ]
    if ensemble:
        lines += ["initLimit=20", "syncLimit=10"]
        lines += [f"server.{m.my_id}={m.address}:{m.peer_port}:{m.election_port}" for m in ensemble]
    return "\n".join(lines) + "\n"


def _die_with_parent() -> list[str]:
    # The death signal belongs to the thread that forks, not to the process: asked for in a thread that ends before the
    # process does, it would kill the server with that thread.
    if threading.current_thread() is not threading.main_thread():
        return []
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
