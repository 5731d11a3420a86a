"""A ZooKeeper of one server or an ensemble of three, over the product's own `ZooKeeperServer`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError, NoChildrenForEphemeralsError, NoNodeError
from kazoo.security import ACL

from cronkeeper.runtime.zookeeper_server import EnsembleMember, ZooKeeperServer
from tests.harness.certificates import Authority
from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.ports import free_port
from tests.harness.processes import ServerError, tail

#: What ZooKeeper needs to speak TLS. Found by leaving out one at a time.
_NETTY = tuple(f"netty-{part}" for part in ("buffer", "codec", "common", "handler", "resolver", "transport"))


def _tls_config(tls: Authority, names: Sequence[str], port: int, asks_certificate: bool) -> list[str]:
    issued = tls.issue(f"zookeeper-{port}", names)
    return [
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        f"secureClientPort={port}",
        f"ssl.keyStore.location={issued.both}",
        "ssl.keyStore.type=PEM",
        f"ssl.trustStore.location={tls.ca}",
        "ssl.trustStore.type=PEM",
        f"ssl.clientAuth={'need' if asks_certificate else 'none'}",
    ]


class ZooKeeper:
    """`size` servers on loopback, or each on a host of its own; `hosts` is the connect string of all of them.

    Members are numbered 0 to size - 1; kill one, start it again, pause it and resume it. With `tls` each member has a
    second port for TLS, with a certificate of that CA for `tls_names`; `asks_certificate` takes only clients that have
    one of that CA, too.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        tick_time_ms: int = 500,
        java: str = "java",
        places: Sequence[Host] = (),
        tls: Authority | None = None,
        tls_names: Sequence[str] = ("127.0.0.1", "localhost"),
        asks_certificate: bool = False,
    ) -> None:
        self.folder = make_folder("zookeeper")
        places = places or [LOOPBACK] * size
        members = [EnsembleMember(n + 1, free_port(), free_port(), free_port(), places[n].address) for n in range(size)]
        self.tls_ports = [free_port() for _ in range(size)] if tls is not None else []
        self.members = [
            ZooKeeperServer(
                self.folder / str(member.my_id),
                member.client_port,
                java=java,
                ensemble=members if size > 1 else (),
                my_id=member.my_id,
                tick_time_ms=tick_time_ms,
                address=member.address,
                enter=place.enter,
                more_jars=_NETTY if tls is not None else (),
                more_config=_tls_config(tls, tls_names, self.tls_ports[member.my_id - 1], asks_certificate)
                if tls is not None
                else (),
            )
            for member, place in zip(members, places, strict=True)
        ]

    @property
    def hosts(self) -> str:
        """The connect string: every member's host:port, comma separated."""
        return ",".join(member.hosts for member in self.members)

    @property
    def tls_hosts(self) -> str:
        """The same for the ports that speak TLS."""
        return ",".join(f"127.0.0.1:{port}" for port in self.tls_ports)

    def walk(self, root: str, auth: str) -> dict[str, list[ACL]]:
        """Return the ACL of every znode from `root` down, as whoever has this digest sees it."""
        client = KazooClient(hosts=self.hosts, timeout=10.0, auth_data=[("digest", auth)])
        client.start(timeout=10.0)
        found: dict[str, list[ACL]] = {}
        waiting = [root]
        try:
            while waiting:
                path = waiting.pop()
                with contextlib.suppress(NoNodeError):  # gone meanwhile
                    found[path] = client.get_acls(path)[0]
                    waiting += [f"{path}/{name}" for name in client.get_children(path)]
        finally:
            client.stop()
            client.close()
        return found

    def open_to_anybody(self, paths: Sequence[str]) -> list[str]:
        """Return those of the znodes that a client without any digest may read, list or write."""
        client = KazooClient(hosts=self.hosts, timeout=10.0)
        client.start(timeout=10.0)
        entered = []
        try:
            for path in paths:
                calls: list[Callable[[], object]] = [
                    partial(client.get, path),
                    partial(client.get_children, path),
                    partial(client.set, path, b"mine"),
                    partial(client.create, f"{path}/mine"),
                ]
                for call in calls:
                    with contextlib.suppress(NoAuthError, NoNodeError, NoChildrenForEphemeralsError):
                        call()
                        entered.append(path)
        finally:
            client.stop()
            client.close()
        return entered

    @property
    def pids(self) -> list[int]:
        """The pids of the members that are alive."""
        return [member.pid for member in self.members if member.pid is not None]

    def start(self) -> Self:
        """Start all members and return once an ephemeral znode can be written."""
        self.launch()
        self.wait_started()
        return self

    def launch(self) -> None:
        """Start all members; returns before they listen."""
        for member in self.members:
            member.start()

    def wait_started(self) -> None:
        """Return once an ephemeral znode can be written."""
        for number, member in enumerate(self.members):
            member.wait_listening()
            self._wait_serving(number)
        self.wait_healthy()

    def stop(self) -> None:
        """Stop all members and remove their data."""
        for member in self.members:
            member.stop()
        remove_folder(self.folder)

    def start_member(self, number: int) -> None:
        """Start a stopped or killed member again; returns when it serves, which takes a quorum."""
        member = self.members[number]
        member.start()
        member.wait_listening()
        self._wait_serving(number)

    def forget(self) -> None:
        """Remove what every member has stored; none may be running. They start as an empty ensemble."""
        for member in self.members:
            for name in ("version-2", "myid"):
                path = member.data_dir / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def stop_member(self, number: int) -> None:
        """Stop one member in order; its data stays."""
        self.members[number].stop()

    def kill_member(self, number: int) -> None:
        """kill -9 one member; its data stays."""
        self.members[number].kill()

    def pause_member(self, number: int) -> None:
        """SIGSTOP one member: it holds its connections and answers nothing."""
        os.kill(self._pid(number), signal.SIGSTOP)

    def resume_member(self, number: int) -> None:
        """SIGCONT one member."""
        os.kill(self._pid(number), signal.SIGCONT)

    def leader(self) -> int:
        """Return the number of the ensemble's present leader; raise `ServerError` if there is none."""
        for number in range(len(self.members)):
            if self.members[number].mode() in {"leader", "standalone"}:
                return number
        raise ServerError("the ensemble has no leader")

    def wait_healthy(self, timeout_s: float = 30.0) -> None:
        """Return once an ephemeral znode was written and removed. `ruok` would lie."""
        deadline = time.monotonic() + timeout_s
        problem = ""
        while time.monotonic() < deadline:
            client = KazooClient(hosts=self.hosts, timeout=5.0)
            try:
                client.start(timeout=3.0)
                path = client.create_async(f"/health-{uuid.uuid4().hex}", ephemeral=True).get(timeout=3.0)
                client.delete_async(path).get(timeout=3.0)
            except Exception as exc:  # noqa: BLE001  # kazoo raises many classes while a quorum is being found
                problem = f" ({type(exc).__name__}: {exc})"
                time.sleep(0.1)
            else:
                return
            finally:
                client.stop()
                client.close()
        logs = "".join(tail(member.log_path) for member in self.members)
        raise ServerError(f"ZooKeeper is not healthy after {timeout_s:g} s{problem}{logs}")

    def create_chroot(self) -> str:
        """Create a fresh, empty path and return the connect string that is confined to it: `hosts/path`."""
        path = f"/test-{uuid.uuid4().hex[:12]}"
        client = KazooClient(hosts=self.hosts, timeout=5.0)
        client.start(timeout=10.0)
        try:
            client.create(path)
        finally:
            client.stop()
            client.close()
        return self.hosts + path

    def data_dir(self, number: int) -> Path:
        """Return where a member keeps its data and its log."""
        return self.members[number].data_dir

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_serving(self, number: int, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.members[number].mode():
            if time.monotonic() > deadline:
                raise ServerError(f"member {number} does not serve{tail(self.members[number].log_path)}")
            time.sleep(0.05)

    def _pid(self, number: int) -> int:
        pid = self.members[number].pid
        if pid is None:
            raise ServerError(f"member {number} of the ensemble is not running")
        return pid
