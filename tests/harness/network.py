"""A network of hosts on one machine: a bridge, and for each host a network namespace with a cable and an address.

Each network is closed to the outside and to every other network, so that several may be in use at a time. Cables are
cut, made lossy and made slow while connections are open; what is given back by `cut` and `slow` takes that very fault
back, and `heal` takes back all.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import Host, NetSpace
from tests.harness.processes import Process, ServerError

_PREFIX = "10.77.0."
_SLOW_PATH = Path(__file__).with_name("slow_path.py")
_READY_S = 15.0


class Fault(Protocol):
    """Something that is broken until `heal` is called; calling it again does nothing."""

    def heal(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets from one address to another get lost: all of them, or each with a probability."""

    source: str
    destination: str
    probability: float = 1.0


def filter_table(address: str, drops: Collection[Drop]) -> str:
    """Return what iptables-restore shall read on the host with `address`: it loses what comes in, nothing else."""
    lines = ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    for drop in sorted(set(drops), key=lambda drop: (drop.source, drop.probability)):
        if drop.destination == address:
            chance = "" if drop.probability >= 1 else f" -m statistic --mode random --probability {drop.probability}"
            lines.append(f"-A INPUT -s {drop.source}{chance} -j DROP")
    return "\n".join([*lines, "COMMIT", ""])


class Network:
    """`start` makes the bridge, `host` adds a host, `stop` takes everything away. Needs root.

    The test reaches the hosts from inside: see `entered`. Its own address there is `address`.
    """

    address = f"{_PREFIX}1"

    def __init__(self) -> None:
        self.folder = make_folder("network")
        self.hosts: dict[str, Host] = {}
        self._bridge: NetSpace | None = None
        self._spaces: dict[str, NetSpace] = {}
        self._faults: list[_Cut | _Slow] = []
        self._lock = threading.RLock()

    def start(self) -> Self:
        """Make the bridge."""
        self._bridge = NetSpace()
        _ip(
            self._bridge,
            "link set lo up",
            "link add bridge type bridge",
            f"addr add {self.address}/24 dev bridge",
            "link set bridge up",
        )
        return self

    def stop(self) -> None:
        """Let go of all namespaces. The hosts' processes must have ended: the kernel keeps a namespace in use."""
        with self._lock:
            for fault in self._faults:
                if isinstance(fault, _Slow):
                    fault.stop()
            self._faults.clear()
            for space in [*self._spaces.values(), *([self._bridge] if self._bridge is not None else [])]:
                space.close()
            self._spaces.clear()
            self._bridge = None
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def host(self, name: str) -> Host:
        """Return the host with this name; made and wired if it is new."""
        with self._lock:
            if name in self.hosts:
                return self.hosts[name]
            bridge, number = self._wires(), len(self.hosts)
            space = NetSpace()
            self._spaces[name] = space
            address = f"{_PREFIX}{10 + number}"
            _ip(
                bridge,
                f"link add port{number} type veth peer name eth0 netns {space.path}",
                f"link set port{number} master bridge up",
            )
            _ip(space, "link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up")
            self.hosts[name] = Host(name, address, space.enter)
            return self.hosts[name]

    @property
    def started(self) -> bool:
        """Whether the bridge is there."""
        return self._bridge is not None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread on the bridge: what it connects to is this network, and only this network."""
        with self._wires().entered():
            yield

    def inodes(self) -> set[int]:
        """Return what names the namespaces under /proc/*/ns/net."""
        with self._lock:
            return {space.inode for space in (*self._spaces.values(), self._wires())}

    # -- faults

    def cut(
        self,
        clients: Iterable[str],
        servers: Iterable[str],
        *,
        requests: bool = True,
        replies: bool = True,
        probability: float = 1.0,
    ) -> Fault:
        """Lose what the hosts `clients` send to the hosts `servers` (requests), or what these answer, or both.

        With a `probability` below 1 each packet gets lost with that chance. Hosts in both groups keep talking to
        themselves. A lost packet gets no answer at all: connections hang.
        """
        pairs = [(a, b) for a in clients for b in servers if a != b]
        drops = [Drop(self._address(a), self._address(b), probability) for a, b in pairs if requests]
        drops += [Drop(self._address(b), self._address(a), probability) for a, b in pairs if replies]
        cut = _Cut(self, frozenset(drops))
        with self._lock:
            self._faults.append(cut)
            self._load(cut.drops)
        return cut

    def slow(
        self, hosts: Iterable[str], peers: Iterable[str], *, delay_s: float, jitter_s: float = 0.0, seed: int = 0
    ) -> Fault:
        """Hold back each packet from `hosts` to `peers` for `delay_s` plus up to `jitter_s`; the order is kept.

        Answers come back at once, so a round trip takes the delay once. A host has one such fault at a time.
        """
        names = list(hosts)
        slow = _Slow(self)
        with self._lock:
            self._faults.append(slow)
            for name in names:
                others = [self._address(peer) for peer in peers if peer != name]
                slow.add(name, [str(delay_s), str(jitter_s), str(seed), *others])
        return slow

    def heal(self) -> None:
        """Take back every cut, loss and delay of this network."""
        with self._lock:
            for fault in list(self._faults):
                fault.heal()

    def _address(self, name: str) -> str:
        return self.host(name).address

    def _wires(self) -> NetSpace:
        if self._bridge is None:
            raise ServerError("the network has not been started")
        return self._bridge

    def _load(self, changed: Iterable[Drop]) -> None:
        """Give every host that has lost or got a drop its filter table anew, in one step for each."""
        drops = [drop for fault in self._faults if isinstance(fault, _Cut) for drop in fault.drops]
        hosts = {host.address: host for host in self.hosts.values()}
        for address in sorted({drop.destination for drop in changed}):
            _run([*hosts[address].enter, "iptables-restore", "--wait"], filter_table(address, drops))

    def _forget(self, fault: _Cut | _Slow) -> None:
        with self._lock:
            if fault in self._faults:
                self._faults.remove(fault)
                if isinstance(fault, _Cut):
                    self._load(fault.drops)
                else:
                    fault.stop()


class _Cut:
    def __init__(self, network: Network, drops: frozenset[Drop]) -> None:
        self.drops = drops
        self._network = network

    def heal(self) -> None:
        self._network._forget(self)


class _Slow:
    """One process a host, through which its packets to some peers go."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._processes: list[Process] = []

    def add(self, name: str, arguments: Sequence[str]) -> None:
        folder = self._network.folder
        ready = folder / f"slow-{name}.ready"
        ready.unlink(missing_ok=True)
        host = self._network.host(name)
        argv = [*host.enter, sys.executable, "-IS", str(_SLOW_PATH), str(ready), host.address, *arguments]
        process = Process(f"slow-{name}", argv, log_path=folder / f"slow-{name}.log").start()
        self._processes.append(process)
        process.wait_until(ready.exists, timeout_s=_READY_S, what="holding packets back")

    def heal(self) -> None:
        self._network._forget(self)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()


def _ip(space: NetSpace, *commands: str) -> None:
    _run([*space.enter, "ip", "-batch", "-"], "\n".join([*commands, ""]))


def _run(argv: Sequence[str], text: str) -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"{argv}: {done.stderr}\n{text}")
