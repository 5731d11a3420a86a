"""The parts of a fleet that can be killed, paused and started again, each under the name of its host."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Protocol

from tests.faults.fleet import Fleet
from tests.harness.cron import Node, NodeProcess
from tests.harness.galera import Galera
from tests.harness.network import Fault
from tests.harness.zookeeper import ZooKeeper

RUNNER = b"/runner_main.py"
#: The shell that starts a root part again when it is killed.
KEEPER = b"/bin/sh"


class Part(Protocol):
    """A server of the fleet. Killing what is dead and starting what runs is the caller's mistake."""

    @property
    def running(self) -> bool: ...

    def kill(self) -> None: ...

    def start(self) -> object: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Daemon:
    """A worker daemon alone: its runner, its jobs and the node's cron live on."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process

    @property
    def running(self) -> bool:
        return self._process.running

    def kill(self) -> None:
        self._process.kill(group=False)

    def start(self) -> object:
        return self._process.start()

    def pause(self) -> None:
        self._process.send(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.resume()


class Machine:
    """A worker's whole node. A dead machine says nothing, not even that its connections have ended."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self._name = name
        self._unplugged: Fault | None = None

    @property
    def _node(self) -> Node:
        return self._fleet.cluster.nodes[self._name]

    @property
    def running(self) -> bool:
        return self._node.running

    def kill(self) -> None:
        self._unplugged = self._fleet.network.cut([self._name], list(self._fleet.network.hosts))
        self._node.stop()

    def start(self) -> object:
        if self._unplugged is not None:
            self._unplugged.heal()
        self._fleet.cluster.boot(self._name)
        return self._node

    def pause(self) -> None:
        self._node.pause()

    def resume(self) -> None:
        self._node.resume()


class Member:
    """One server of the ensemble. It is started without waiting: alone it cannot serve."""

    def __init__(self, ensemble: ZooKeeper, number: int) -> None:
        self._ensemble = ensemble
        self._number = number

    @property
    def running(self) -> bool:
        return self._ensemble.members[self._number].running

    def kill(self) -> None:
        self._ensemble.kill_member(self._number)

    def start(self) -> object:
        self._ensemble.members[self._number].start()
        return None

    def pause(self) -> None:
        self._ensemble.pause_member(self._number)

    def resume(self) -> None:
        self._ensemble.resume_member(self._number)


class GaleraMember:
    """One member of the Galera cluster. It is started without waiting: without the others it cannot join."""

    def __init__(self, galera: Galera, number: int) -> None:
        self._galera = galera
        self._number = number

    @property
    def running(self) -> bool:
        return self._galera.members[self._number].process.running

    def kill(self) -> None:
        self._galera.kill_member(self._number)

    def start(self) -> object:
        self._galera.launch_member(self._number)
        return None

    def pause(self) -> None:
        self._galera.pause_member(self._number)

    def resume(self) -> None:
        self._galera.resume_member(self._number)


def galera_of(fleet: Fleet) -> Galera:
    """Return the fleet's Galera cluster; raise LookupError if it has a single MariaDB."""
    if fleet.galera is None:
        raise LookupError("the fleet has no Galera cluster: make it with Sizes(databases=3)")
    return fleet.galera


def part(fleet: Fleet, name: str) -> Part:
    """Return a part by its host's name; for a worker's host it is the daemon, see `machine` for its node."""
    if name in fleet.workers:
        return Daemon(fleet.cluster.workers[name])
    if name in fleet.managers:
        return fleet.manager(name)
    if name in fleet.apis:
        return fleet.cluster.apis[fleet.apis.index(name)]
    if name in fleet.zookeepers:
        return Member(fleet.zookeeper, fleet.zookeepers.index(name))
    if name in fleet.members:
        return GaleraMember(galera_of(fleet), fleet.members.index(name))
    if name == "mysql":
        return fleet.mariadb.process
    if name == "s3":
        return fleet.objects.process
    raise LookupError(f"the fleet has no part {name}")


def machine(fleet: Fleet, name: str) -> Machine:
    """Return a worker's node."""
    return Machine(fleet, name)


def runner_pids(node: Node) -> list[int]:
    """Return the pids, on this machine, of the runners in a node; not of what they forked, nor of their keepers."""
    found = {}
    for pid in node.pids():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if command[0] != KEEPER and any(word.endswith(RUNNER) for word in command):
            found[pid] = parent
    return [pid for pid, parent in found.items() if parent not in found]
