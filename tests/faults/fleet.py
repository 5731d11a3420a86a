"""A whole cluster on a network of its own: every server, manager and worker is a host that can be cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.harness.clock import OwnClock
from tests.harness.cluster import Cluster
from tests.harness.cron import CRON_D, Node
from tests.harness.galera import Galera
from tests.harness.galera_front import GaleraFront
from tests.harness.hosts import Host
from tests.harness.mariadb import Database, MariaDB
from tests.harness.network import Network
from tests.harness.objectstore import ObjectStore
from tests.harness.processes import Process
from tests.harness.zookeeper import ZooKeeper

_SMALL_STATE = "size=24m,nr_inodes=3000,mode=0755"
_SMALL_TMP = "size=2m,nr_inodes=60,mode=1777"
_SMALL_CRON_D = "size=256k,nr_inodes=40,mode=0755"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each part; three `databases` are a Galera cluster behind one address, one is a single MariaDB.

    With `own_clocks` each node's worker and cron run by a clock that can be set; with `small_disks` each node has
    file systems that can be filled: its worker's state (gone when the node stops), /tmp and /etc/cron.d; with
    `s3_liar` the S3 server's answers can be spoiled.
    """

    zookeepers: int = 3
    databases: int = 1
    apis: int = 1
    managers: int = 2
    workers: int = 3
    own_clocks: bool = False
    small_disks: bool = False
    s3_liar: bool = False


#: What most trials use: everything that a fault needs, and no more.
LIGHT = Sizes()
#: As a careful operator would have it.
FULL = Sizes(databases=3, apis=2, managers=3, workers=5)


class Fleet:
    """`start` brings up the whole cluster; `stop` leaves no process, no namespace and no file. Needs root.

    Hosts are named `zookeeper-1`…, `mysql` (or `mysql-1`… with a Galera cluster behind `mysql`), `s3`, `haproxy`,
    `api-1`…, `m1`…, `w1`…. Only a thread that is in the fleet's network reaches them: see `entered`. Several fleets
    may be up at a time and cannot see each other.
    """

    def __init__(self, sizes: Sizes = LIGHT) -> None:
        self.sizes = sizes
        self.network = Network()
        #: The Galera cluster, if there is one; `mariadb` is what stands in front of it then.
        self.galera: Galera | None = None
        #: The nodes' own clocks, if they have any.
        self.clocks: dict[str, OwnClock] = {}
        self._stack = contextlib.ExitStack()

    def start(self) -> Self:
        """Bring everything up; returns when the API is ready and all workers are up."""
        self.network.start()
        with self.network.entered():
            self._start_parts()
        return self

    def _start_parts(self) -> None:
        place = self.network.host
        numbers = range(1, self.sizes.zookeepers + 1)
        self.zookeeper = ZooKeeper(len(numbers), places=[place(f"zookeeper-{number}") for number in numbers])
        self._stack.callback(self.zookeeper.stop)
        self.objects = ObjectStore(host=place("s3"))
        self._stack.callback(self.objects.stop)
        self.zookeeper.launch()
        self.objects.launch()
        self.mariadb = self._start_database()
        self.objects.wait_started()
        if self.sizes.s3_liar:
            self.objects.start_liar()
        self.zookeeper.wait_started()
        self.cluster = Cluster(
            self.zookeeper,
            self.mariadb,
            self.objects,
            workers=self.sizes.workers,
            managers=self.sizes.managers,
            apis=self.sizes.apis,
            place=place,
            node=self._node,
        )
        self._stack.enter_context(self.cluster)

    def _start_database(self) -> Database:
        place = self.network.host
        if self.sizes.databases == 1:
            single = MariaDB(host=place("mysql"))
            self._stack.callback(single.stop)
            return single.start()
        places = [place(name) for name in self.members]
        self.galera = Galera(places)
        self._stack.callback(self.galera.stop)
        self.galera.start()
        front = GaleraFront(self.galera, host=place("mysql"), places=places)
        self._stack.callback(front.stop)
        return front.start()

    def _node(self, name: str, folder: Path, state_dir: Path) -> Node:
        if self.sizes.own_clocks and name not in self.clocks:
            self.clocks[name] = OwnClock(folder.with_name(f"clock-{name}"))
        disks = {"/tmp": _SMALL_TMP, CRON_D: _SMALL_CRON_D, str(state_dir): _SMALL_STATE}
        return Node(
            name,
            folder=folder,
            host=self.network.host(name),
            env=self.clocks[name].environment if name in self.clocks else None,
            disks=disks if self.sizes.small_disks else None,
            keep=folder.parent,
        )

    def stop(self) -> None:
        """End everything; safe after a start that failed half-way, and twice."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.network.stop)
            if self.network.started:
                stack.enter_context(self.network.entered())
                self.network.heal()
            self._stack.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the fleet's network: what it asks and starts is there."""
        with self.network.entered():
            yield

    # -- names

    @property
    def workers(self) -> list[str]:
        """The hosts of the workers."""
        return sorted(self.cluster.nodes)

    @property
    def managers(self) -> list[str]:
        """The hosts of the managers."""
        return [f"m{number}" for number in range(1, self.sizes.managers + 1)]

    @property
    def apis(self) -> list[str]:
        """The hosts of the API servers."""
        return [f"api-{number}" for number in range(1, self.sizes.apis + 1)]

    @property
    def zookeepers(self) -> list[str]:
        """The hosts of the ensemble."""
        return [f"zookeeper-{number}" for number in range(1, self.sizes.zookeepers + 1)]

    @property
    def databases(self) -> list[str]:
        """The hosts that stand for MySQL: whoever is cut from these is cut from MySQL."""
        return ["mysql"]

    @property
    def members(self) -> list[str]:
        """The hosts of the Galera cluster's members; none with a single MariaDB."""
        return [f"mysql-{number}" for number in range(1, self.sizes.databases + 1)] if self.sizes.databases > 1 else []

    @property
    def stores(self) -> list[str]:
        """The hosts of all stores."""
        return [*self.zookeepers, *self.databases, "s3"]

    def manager(self, name: str) -> Process:
        """Return a manager's process by its host."""
        return self.cluster.managers[self.managers.index(name)]

    def leader(self) -> str:
        """Return the host of the manager that leads; raise LookupError if none does."""
        return self.managers[self.cluster.managers.index(self.cluster.leader())]

    def host(self, name: str) -> Host:
        """Return the host with this name."""
        return self.network.host(name)
