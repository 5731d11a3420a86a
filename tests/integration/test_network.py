"""The network of hosts that fault trials run on: cuts cut what they say and nothing else, and nothing is left over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness.hosts import Host, namespaces_in_use
from tests.harness.network import Drop, Network, filter_table
from tests.harness.processes import Process

PORT = 7000
#: Answers each byte with the same byte, on any number of connections.
ECHO = """
import socket, sys, threading
def serve(connection):
    while data := connection.recv(1): connection.sendall(data)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True: threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""
#: Says how long it took to get a byte back, or `lost`.
ASK = """
import socket, sys, time
started = time.monotonic()
try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    connection.sendall(b"x"); connection.recv(1)
    print(time.monotonic() - started)
except OSError:
    print("lost")
"""


def listens(address: str) -> bool:
    with socket.create_connection((address, PORT), timeout=1):
        return True


def filters(network: Network, name: str) -> list[str]:
    """Return what the kernel says that a host loses."""
    argv = [*network.host(name).enter, "iptables", "-S", "INPUT"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line.startswith("-A")]


class Hosts:
    """Three hosts that echo."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.servers = [self._serve(network.host(name)) for name in "abc"]

    def _serve(self, host: Host) -> Process:
        argv = [sys.executable, "-IS", "-c", ECHO, host.address, str(PORT)]
        return Process(host.name, argv, log_path=self.folder / host.name, host=host).start()

    def ask(self, client: str, server: str, timeout_s: float = 1.0) -> float | None:
        """Return how long it took `client` to hear from `server`; None if nothing came."""
        host, address = self.network.host(client), self.network.host(server).address
        argv = [sys.executable, "-IS", "-c", ASK, address, str(PORT), str(timeout_s)]
        process = Process("ask", argv, log_path=self.folder / f"ask-{time.monotonic_ns()}", host=host).start()
        process.wait()
        answer = process.log_text().splitlines()[-1]
        return None if answer == "lost" else float(answer)

    def reached(self) -> set[str]:
        """Return the pairs that can talk, as `ab`."""
        return {a + b for a in "abc" for b in "abc" if a < b and self.ask(a, b) is not None}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Network() as network:
        made = Hosts(network, tmp_path)
        with network.entered():
            for name, server in zip("abc", made.servers, strict=True):
                address = network.host(name).address
                server.wait_until(partial(listens, address), timeout_s=20, what="listening")
        yield made
        for server in made.servers:
            server.kill()


def test_a_cut_cuts_one_pair_and_healing_heals_it(hosts: Hosts) -> None:
    assert hosts.reached() == {"ab", "ac", "bc"}
    cut = hosts.network.cut(["a"], ["b"])
    assert hosts.reached() == {"ac", "bc"}
    other = hosts.network.cut(["a", "b"], ["a", "b", "c"])
    assert hosts.reached() == set()
    cut.heal()
    cut.heal()
    assert hosts.reached() == set()
    other.heal()
    assert hosts.reached() == {"ab", "ac", "bc"}


def test_a_one_way_cut_loses_that_way_only(hosts: Hosts) -> None:
    network = hosts.network
    with network.entered(), socket.create_connection((network.host("b").address, PORT), timeout=10) as onlooker:
        requests_lost = network.cut(["a"], ["b"], replies=False)
        assert filters(network, "a") == []
        assert filters(network, "b") == [f"-A INPUT -s {network.host('a').address}/32 -j DROP"]
        assert hosts.ask("a", "b") is None
        requests_lost.heal()
        network.cut(["a"], ["b"], requests=False)
        assert filters(network, "a") == [f"-A INPUT -s {network.host('b').address}/32 -j DROP"]
        assert filters(network, "b") == []
        assert hosts.ask("a", "b") is None
        onlooker.sendall(b"x")
        assert onlooker.recv(1) == b"x"
        network.heal()
    assert hosts.ask("a", "b") is not None


def test_a_slow_path_delays_open_connections_and_ends(hosts: Hosts) -> None:
    assert (hosts.ask("a", "b") or 9) < 0.5
    slow = hosts.network.slow(["a"], ["b"], delay_s=0.3)
    # Twice: the handshake and the byte.
    assert 0.6 <= (hosts.ask("a", "b", 10) or 0) < 5
    assert (hosts.ask("a", "c") or 9) < 0.5
    slow.heal()
    assert (hosts.ask("a", "b") or 9) < 0.5


def test_networks_cannot_see_each_other(hosts: Hosts) -> None:
    with Network() as other:
        assert other.host("a").address == hosts.network.host("a").address
        with other.entered(), pytest.raises(ConnectionRefusedError):
            socket.create_connection((other.host("a").address, PORT), timeout=1)


def test_entering_moves_the_calling_thread_alone_and_back(hosts: Hosts) -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    seen: list[str] = []
    with hosts.network.entered():
        assert os.readlink("/proc/thread-self/ns/net") != own
        assert os.readlink(f"/proc/{os.getpid()}/ns/net") in (own, os.readlink("/proc/thread-self/ns/net"))
    inside = threading.Thread(target=lambda: seen.append(os.readlink("/proc/thread-self/ns/net")))
    inside.start()
    inside.join()
    assert seen == [own]


def test_nothing_is_left_of_a_network_also_after_a_failure(tmp_path: Path) -> None:
    cables = sorted(name for _, name in socket.if_nameindex())
    inodes: set[int] = set()

    def fail() -> None:
        with Network() as network:
            made = Hosts(network, tmp_path)
            network.cut(["a"], ["b"])
            network.slow(["a"], ["c"], delay_s=0.1)
            inodes.update(network.inodes())
            assert len(inodes & namespaces_in_use()) == 3
            for server in made.servers:
                server.kill()
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        fail()
    assert len(inodes) == 4
    assert not inodes & namespaces_in_use()
    assert sorted(name for _, name in socket.if_nameindex()) == cables


def test_the_filter_table_names_what_comes_in() -> None:
    drops = [Drop("10.77.0.11", "10.77.0.10"), Drop("10.77.0.12", "10.77.0.10", 0.25), Drop("10.77.0.10", "10.77.0.11")]
    lines = filter_table("10.77.0.10", drops).splitlines()
    assert [line for line in lines if line.startswith("-A")] == [
        "-A INPUT -s 10.77.0.11 -j DROP",
        "-A INPUT -s 10.77.0.12 -m statistic --mode random --probability 0.25 -j DROP",
    ]
    assert (lines[0], lines[-1]) == ("*filter", "COMMIT")
