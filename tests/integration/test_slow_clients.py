"""Clients that send slowly, without end or too much, or do not read: others are served, and nothing stays behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import RunState
from cronkeeper.ports import Role
from cronkeeper.store import open_store
from tests.harness.api_servers import ApiServers
from tests.harness.bad_requests import JOB
from tests.harness.mariadb import MariaDB
from tests.harness.raw_http import connect, read_all, statuses
from tests.harness.zookeeper import ZooKeeper

#: Where the slow ones come from: an address of their own, as in life.
SLOW = "127.0.0.66"
BODY_LIMIT_S = 4
#: What nobody reads: more than all buffers between an API server and its client hold.
LOG_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def servers(mariadb_server: MariaDB, zookeeper_server: ZooKeeper) -> Iterator[ApiServers]:
    name = f"slow_{uuid.uuid4().hex[:10]}"
    url = mariadb_server.create_database(name)
    settings = {"CRONKEEPER_BODY_LIMIT_S": str(BODY_LIMIT_S), "CRONKEEPER_THREADS": "16"}
    try:
        with ApiServers(url, zookeeper_server.create_chroot(), settings) as found:
            assert found.call("POST", "/jobs", body=JOB).status == 201
            yield found
    finally:
        mariadb_server.drop_database(name)


@pytest.fixture(scope="module")
def log_path(servers: ApiServers) -> str:
    """The path of a log that is larger than all buffers."""
    run = servers.call("POST", "/jobs/1/run").json()
    store = open_store(servers.database_url)
    try:
        key, chunk = RunKey.parse(run["id"]), b"x" * 65_535 + b"\n"
        claimed = store.runs.get(key).evolve(state=RunState.CLAIMED, worker="w", nonce="ab" * 16, claimed_ms=1)
        assert store.runs.claim_pending(claimed)
        for offset in range(0, LOG_BYTES, len(chunk)):
            store.runs.append_output(key, offset=offset, data=chunk)
        running = claimed.evolve(state=RunState.RUNNING, started_ms=2)
        store.runs.record([running])
        store.runs.record(
            [running.evolve(state=RunState.SUCCEEDED, ended_ms=3, exit_code=0, output_bytes=LOG_BYTES, output_tail="x")]
        )
    finally:
        store.close()
    return f"/runs/{key}/log"


@dataclass(frozen=True)
class Held:
    """What the processes hold: HAProxy's, and the API servers' with their children."""

    descriptors: int
    threads: int


def _held(servers: ApiServers) -> Held:
    pids = [servers.haproxy.process.pid]
    for server in servers.servers:
        pids += [server.pid, *_children(server.pid)]
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    return Held(descriptors, sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _typical_s(servers: ApiServers, times: int = 15) -> float:
    """How long an ordinary request takes, at the median; each must be served."""
    took = []
    for _ in range(times):
        begun = time.monotonic()
        assert servers.call("GET", "/jobs?limit=1").status == 200
        took.append(time.monotonic() - begun)
    return statistics.median(took)


Send = Callable[[socket.socket], None]


@contextlib.contextmanager
def _crowd(servers: ApiServers, number: int, begin: Send, *, answered: bool = False) -> Iterator[list[socket.socket]]:
    """So many slow clients, each of which has begun, and got an answer if there is one to come."""
    crowd = []
    try:
        for _ in range(number):
            connection = connect(servers.haproxy.port, source=SLOW)
            crowd.append(connection)
            # Who was sent away at once was not slow.
            with contextlib.suppress(OSError):
                begin(connection)
                if answered:
                    connection.recv(65_536)
        yield crowd
    finally:
        for connection in crowd:
            connection.close()


def _head(servers: ApiServers, *lines: str, token: bool = True, first: str = "POST /preview HTTP/1.1") -> bytes:
    more = [f"Authorization: Bearer {servers.tokens[Role.OPERATOR]}"] if token else []
    return "\r\n".join([first, "Host: x", "Content-Type: application/json", *more, *lines, "", ""]).encode()


def _dribble(crowd: list[socket.socket], data: bytes) -> None:
    for connection in crowd:
        with contextlib.suppress(OSError):
            connection.send(data)


@dataclass(frozen=True)
class Crowd:
    """Slow clients of one kind: what each sends first, and then again and again; how soon all must be gone."""

    id: str
    begin: Callable[[ApiServers], bytes]
    more: bytes
    number: int = 150
    gone_s: float = 20
    #: What those may be told that are told anything.
    told: frozenset[int] = frozenset({408})
    answered: bool = False


_LARGE = b"x" * 20_000
CROWDS = [
    Crowd("heads that never end", lambda servers: b"GET /jobs HTTP/1.1\r\nHost: x\r\n", b"X-Slow: 1\r\n"),
    Crowd("connections on which nothing is said", lambda servers: b"", b""),
    Crowd("half of a head, and nothing more", lambda servers: b"GET /jobs HTT", b""),
    Crowd("small bodies, a byte at a time", lambda servers: _head(servers, "Content-Length: 4000"), b"x"),
    Crowd(
        "large bodies, a byte at a time",
        lambda servers: _head(servers, "Content-Length: 4000000") + _LARGE,
        b"x",
        number=60,
        told=frozenset({408, 429}),
    ),
    Crowd(
        "large bodies of nobody",
        lambda servers: _head(servers, "Content-Length: 4000000", token=False) + _LARGE,
        b"x",
        number=60,
        told=frozenset({401, 429}),
    ),
    Crowd(
        "chunks without end",
        lambda servers: _head(servers, "Transfer-Encoding: chunked") + b"4e20\r\n" + _LARGE + b"\r\n",
        b"1\r\nx\r\n",
        number=60,
        told=frozenset({408, 413, 429}),
    ),
    Crowd(
        "connections that are kept for nothing",
        lambda servers: _head(servers, first="GET /jobs?limit=1 HTTP/1.1"),
        b"",
        told=frozenset({200}),
        answered=True,
    ),
    Crowd(
        "ten thousand header lines",
        lambda servers: b"GET /jobs HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000,
        b"X: y\r\n",
        number=20,
        told=frozenset({400}),
    ),
    Crowd(
        "a header of a megabyte",
        lambda servers: b"GET /jobs HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_048_576,
        b"y",
        number=20,
        told=frozenset({400}),
    ),
]


@pytest.mark.parametrize("kind", CROWDS, ids=lambda kind: kind.id)
def test_the_slow_do_not_slow_down_others_and_leave_nothing(kind: Crowd, servers: ApiServers) -> None:
    usual_s, before = _typical_s(servers), _held(servers)
    first = kind.begin(servers)
    with _crowd(servers, kind.number, lambda one: one.sendall(first), answered=kind.answered) as crowd:
        begun = time.monotonic()
        taken_s = _typical_s(servers)
        # Wide: the crowd itself takes the processor, too. What is looked for is a wait for a thread or a time limit.
        assert taken_s < 10 * usual_s + 1, (usual_s, taken_s)
        waiting, told = list(crowd), set[int]()
        while waiting:
            assert time.monotonic() - begun < kind.gone_s + 30, f"{len(waiting)} are still waited for"
            if kind.more:
                _dribble(waiting, kind.more)
            still = []
            for connection in waiting:
                answer = read_all(connection, 0.01)
                told.update(statuses(answer))
                if not _is_over(connection):
                    still.append(connection)
            waiting = still
            assert servers.call("GET", "/jobs?limit=1").status == 200
        assert told <= kind.told
    _nothing_is_left(servers, before)


def _is_over(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _nothing_is_left(servers: ApiServers, before: Held) -> None:
    deadline = time.monotonic() + 60
    while True:
        after = _held(servers)
        # Connections that HAProxy keeps to the servers come and go; pools of threads fill up once.
        if after.descriptors <= before.descriptors + 30 and after.threads <= before.threads + 2 * 16:
            return
        assert time.monotonic() < deadline, (before, after)
        time.sleep(0.5)


def test_clients_that_do_not_read_hold_a_few_threads_only(servers: ApiServers, log_path: str) -> None:
    usual_s, before = _typical_s(servers), _held(servers)
    head = _head(servers, first=f"GET {log_path} HTTP/1.1")
    with _crowd(servers, 60, lambda connection: connection.sendall(head)) as crowd:
        time.sleep(1.0)
        taken_s = _typical_s(servers)
        assert taken_s < 10 * usual_s + 1, (usual_s, taken_s)
        # Some wait with their answer half on its way; the rest was told to come again.
        begun = [connection.recv(12) for connection in crowd]
        assert set(begun) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert begun.count(b"HTTP/1.1 200") <= 8
        # A client that reads gets all of it as soon as there is a place.
    deadline = time.monotonic() + 60
    while (answer := servers.call("GET", log_path, timeout_s=60)).status == 429:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (answer.status, len(answer.body)) == (200, LOG_BYTES)
    _nothing_is_left(servers, before)


def test_a_slow_body_is_told_so_as_a_problem(servers: ApiServers) -> None:
    for length, first in ((4000, b"x"), (4_000_000, _LARGE)):
        with connect(servers.haproxy.port, source=SLOW) as connection:
            connection.sendall(_head(servers, f"Content-Length: {length}") + first)
            answer = read_all(connection, 20)
        assert statuses(answer) == [408], answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/problem+json" in head.lower()
        assert json.loads(body)["type"] == "/problems/too-slow"


def test_an_honest_client_on_a_slow_line_is_served(servers: ApiServers) -> None:
    body = json.dumps({**JOB, "args": ["x" * 4000] * 8}).encode()
    with connect(servers.haproxy.port, source=SLOW) as connection:
        connection.sendall(_head(servers, f"Content-Length: {len(body)}"))
        for begin in range(0, len(body), 4000):
            connection.sendall(body[begin : begin + 4000])
            time.sleep(0.2)
        assert statuses(read_all(connection, 10)) == [200]


def test_connections_that_wait_for_their_next_request_hold_no_thread(servers: ApiServers) -> None:
    # Three times as many as there are threads, each of which stays with its connection for a moment.
    clients = [http.client.HTTPConnection("127.0.0.1", servers.ports[0], timeout=30) for _ in range(48)]
    for _ in range(3):
        begun_s = time.monotonic()
        for client in clients:
            client.request("GET", "/healthz")
            answer = client.getresponse()
            assert (answer.status, answer.will_close) == (200, False), answer.read()
            answer.read()
        assert time.monotonic() - begun_s < 10
    for client in clients:
        client.close()
