"""What the coordinator's contract tests run on: processes on one ZooKeeper, in memory or real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from kazoo.client import KazooClient

from cronkeeper.coord import connect
from cronkeeper.coord.coordinator import ZnodeCoordinator
from cronkeeper.coord.session import KazooSession, split_hosts
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble

AUTH = "cronkeeper:s3cret"


class Fleet(Protocol):
    """Processes that share one ZooKeeper, and what a test may do to them from outside."""

    def process(self, name: str) -> Coordinator:
        """Return a started coordinator of its own."""
        ...

    def expire(self, process: Coordinator) -> None:
        """End the process's session on the servers' side; returns when it has another one."""
        ...

    def wipe(self, path: str = "/") -> None:
        """Remove the whole tree, or what is at `path`."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Create a znode in an existing folder, or overwrite it."""
        ...


@dataclass
class MemoryFleet:
    ensemble: MemoryEnsemble = field(default_factory=MemoryEnsemble)

    def process(self, name: str) -> Coordinator:
        coordinator = MemoryCoordinator(self.ensemble, name)
        coordinator.start(1.0)
        return coordinator

    def expire(self, process: Coordinator) -> None:
        assert isinstance(process, MemoryCoordinator)
        process.expire()

    def wipe(self, path: str = "/") -> None:
        if path == "/":
            self.ensemble.wipe()
        else:
            self.ensemble.remove(path)

    def write(self, path: str, data: bytes) -> None:
        self.ensemble.write(path, data)


@dataclass
class RealFleet:
    hosts: str
    auth: str = AUTH
    processes: list[Coordinator] = field(default_factory=list)

    def process(self, name: str) -> Coordinator:
        coordinator = connect(self.hosts, auth=self.auth, session_timeout_s=6.0, name=name)
        self.processes.append(coordinator)
        coordinator.start(15.0)
        return coordinator

    def expire(self, process: Coordinator) -> None:
        # A second connection that takes the session over and closes it: to the servers this is the session's own end.
        assert isinstance(process, ZnodeCoordinator)
        session = process._session
        assert isinstance(session, KazooSession)
        before = process.session_id
        thief = KazooClient(hosts=split_hosts(self.hosts)[0], client_id=session._client.client_id)
        thief.start(timeout=10.0)
        thief.stop()
        thief.close()
        eventually(lambda: process.connected and process.session_id not in (0, before), "a new session")

    def wipe(self, path: str = "/") -> None:
        with self.admin() as admin:
            admin.remove(path)

    def write(self, path: str, data: bytes) -> None:
        with self.admin() as admin:
            admin.write(path, data)

    def admin(self, *, auth: str | None = None) -> Admin:
        return Admin(self.hosts, self.auth if auth is None else auth)

    def stop(self) -> None:
        for process in self.processes:
            process.stop()


class Admin:
    """A plain kazoo client, as an administrator (or a stranger: without `auth`) would use it."""

    def __init__(self, hosts: str, auth: str) -> None:
        servers, self.root = split_hosts(hosts)
        self.client = KazooClient(hosts=servers, auth_data=[("digest", auth)] if auth else None)
        self.auth = auth

    def __enter__(self) -> Admin:
        self.client.start(timeout=10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop()
        self.client.close()

    def full(self, path: str) -> str:
        return self.root if path == "/" else self.root + path

    def remove(self, path: str) -> None:
        self.client.delete(self.full(path), recursive=True)

    def write(self, path: str, data: bytes) -> None:
        if self.client.exists(self.full(path)):
            self.client.set(self.full(path), data)
        else:
            self.client.create(self.full(path), data)

    def walk(self, path: str = "/") -> Iterator[str]:
        """Yield the full path of everything from `path` down."""
        full = self.full(path)
        yield full
        for name in self.client.get_children(full):
            yield from self.walk(f"/{name}" if path == "/" else f"{path}/{name}")


def eventually(check: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Return once `check` is true. Meanwhile, "not now" is as good as not true."""
    deadline = time.monotonic() + timeout_s
    while not _true_now(check):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def _true_now(check: Callable[[], object]) -> bool:
    try:
        return bool(check())
    except UnavailableError:
        return False


class Bell:
    """Counts how often a coordinator woke us."""

    def __init__(self, process: Coordinator) -> None:
        self.rings = 0
        process.on_change(self.ring)

    def ring(self) -> None:
        self.rings += 1

    def rings_after(self, *changes: Callable[[], object]) -> bool:
        """Say whether it rings after these changes (within a generous time)."""
        before = self.rings
        for change in changes:
            change()
        eventually(lambda: self.rings > before, "a watch wakes")
        return True
