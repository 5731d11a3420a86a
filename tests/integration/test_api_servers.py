"""The API as a client meets it: gunicorn behind HAProxy, with MariaDB and ZooKeeper going away and coming back."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import RunState
from cronkeeper.ports import Role
from cronkeeper.store import open_store
from tests.harness.api_servers import ApiServers, Reply
from tests.harness.bad_requests import JOB
from tests.harness.haproxy import HAProxy
from tests.harness.mariadb import MariaDB
from tests.harness.ports import free_port
from tests.harness.zookeeper import ZooKeeper


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="module")
def zookeeper() -> Iterator[ZooKeeper]:
    with ZooKeeper() as server:
        yield server


@pytest.fixture(scope="module")
def servers(mariadb: MariaDB, zookeeper: ZooKeeper) -> Iterator[ApiServers]:
    url = mariadb.create_database(f"api_{uuid.uuid4().hex[:10]}")
    with ApiServers(url, zookeeper.create_chroot()) as found:
        _eventually(lambda: found.call("GET", "/readyz", role=None).json()["zookeeper"] == "ok")
        yield found


def _eventually(check: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            pass  # not yet
        time.sleep(0.1)
    raise AssertionError(f"not so after {timeout_s:g} s")


def _is_ready(servers: ApiServers, port: int) -> bool:
    return servers.call("GET", "/readyz", role=None, port=port).status == 200


def _count(servers: ApiServers) -> int:
    return len(servers.call("GET", "/jobs?limit=10000").json())


def test_the_job_of_the_contract_through_everything(servers: ApiServers) -> None:
    answer = servers.call("POST", "/jobs", body=JOB)
    assert answer.status == 201
    body = answer.json()
    assert {key: body[key] for key in ("status", *JOB)} == {"status": "scheduled", **JOB}
    for port in servers.ports:
        assert servers.call("GET", answer.headers["location"], port=port).json()["id"] == body["id"]


def test_mysql_down_means_503_and_nothing_half_saved(servers: ApiServers, mariadb: MariaDB) -> None:
    before = _count(servers)
    mariadb.kill()
    try:
        for port in servers.ports:
            answer = servers.call("POST", "/jobs", body=JOB, port=port, timeout_s=60)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert answer.json()["type"] == "/problems/unavailable"
        _eventually(lambda: servers.call("GET", "/readyz", role=None, port=servers.ports[0]).status == 503)
        assert servers.call("GET", "/healthz", role=None, port=servers.ports[0]).status == 200
    finally:
        mariadb.start()
    for port in servers.ports:
        _eventually(functools.partial(_is_ready, servers, port))
    # HAProxy finds it out by two checks of its own.
    _eventually(lambda: servers.call("GET", "/jobs?limit=1").status == 200)
    assert _count(servers) == before
    assert servers.call("POST", "/jobs", body=JOB).status == 201


def test_zookeeper_down_means_201_in_good_time(servers: ApiServers, zookeeper: ZooKeeper) -> None:
    zookeeper.pause_member(0)
    try:
        begun = time.monotonic()
        assert servers.call("POST", "/jobs", body=JOB).status == 201
        # 2 s is the bound; the rest is a busy machine.
        assert time.monotonic() - begun < 20
        zookeeper.resume_member(0)
        zookeeper.kill_member(0)
        _eventually(lambda: servers.call("GET", "/readyz", role=None).json()["zookeeper"] == "away")
        assert servers.call("POST", "/jobs", body=JOB).status == 201
        assert servers.call("GET", "/workers", timeout_s=60).status == 503
    finally:
        zookeeper.start_member(0)
    _eventually(lambda: servers.call("GET", "/readyz", role=None).json()["zookeeper"] == "ok")
    _eventually(lambda: servers.call("GET", "/workers").status == 200)


def test_one_key_is_one_job_however_often_and_wherever_it_is_sent(servers: ApiServers) -> None:
    before = _count(servers)
    answers: list[Reply] = []

    def send(number: int) -> None:
        headers = {"Idempotency-Key": "the-same"}
        answers.append(servers.call("POST", "/jobs", body=JOB, headers=headers, port=servers.ports[number % 2]))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status == 201}) == 1
    assert _count(servers) == before + 1


def test_no_read_fails_when_a_server_is_killed(servers: ApiServers) -> None:
    failures: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            status = servers.call("GET", "/jobs?limit=1").status
            if status != 200:
                failures.append(status)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.5)
    servers.servers[0].kill()
    time.sleep(3)
    stop.set()
    thread.join()
    servers.servers[0].start()
    _eventually(lambda: servers.call("GET", "/readyz", role=None, port=servers.ports[0]).status == 200)
    assert failures == []


def test_a_server_that_is_told_to_stop_drains_first(servers: ApiServers) -> None:
    port, server = servers.ports[1], servers.servers[1]
    server.send(signal.SIGTERM)
    _eventually(lambda: servers.call("GET", "/readyz", role=None, port=port).status == 503, 10)
    # HAProxy may not have noticed yet: whoever still comes is served.
    assert servers.call("POST", "/jobs", body=JOB, port=port).status == 201
    assert server.wait(60) == 0
    assert servers.call("POST", "/jobs", body=JOB).status == 201
    server.start()
    _eventually(lambda: servers.call("GET", "/readyz", role=None, port=port).status == 200)


def test_a_live_tail_comes_through_as_it_is_written(servers: ApiServers) -> None:
    job = servers.call("POST", "/jobs", body=JOB).json()
    run = servers.call("POST", f"/jobs/{job['id']}/run").json()
    key = RunKey.parse(run["id"])
    store = open_store(servers.database_url)
    connection = http.client.HTTPConnection("127.0.0.1", servers.haproxy.port, timeout=60)
    try:
        claimed = store.runs.get(key).evolve(state=RunState.CLAIMED, worker="w", nonce="ab" * 16, claimed_ms=1)
        assert store.runs.claim_pending(claimed)
        store.runs.append_output(key, offset=0, data=b"first\n")
        connection.request(
            "GET", f"/runs/{key}/log?follow=1", headers={"Authorization": f"Bearer {servers.tokens[Role.VIEWER]}"}
        )
        response = connection.getresponse()
        assert response.headers["X-Run-State"] == "claimed"
        assert response.read1(100) == b"first\n"
        store.runs.append_output(key, offset=6, data=b"second\n")
        assert response.read1(100) == b"second\n"
        running = claimed.evolve(state=RunState.RUNNING, started_ms=2)
        store.runs.record([running])
        store.runs.record([running.evolve(state=RunState.SUCCEEDED, ended_ms=3, exit_code=0, output_bytes=13)])
        assert response.read() == b""
    finally:
        connection.close()
        store.close()


def test_a_client_that_leaves_gives_its_place_back(servers: ApiServers) -> None:
    job = servers.call("POST", "/jobs", body=JOB).json()
    run = servers.call("POST", f"/jobs/{job['id']}/run").json()
    port = servers.ports[0]
    token = servers.tokens[Role.VIEWER]
    head = f"GET /runs/{run['id']}/log?follow=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    sockets = []
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(head.encode())
        assert b" 200 " in connection.recv(4096)
        sockets.append(connection)
    _eventually(lambda: _gauge(servers, port, "cronkeeper_api_followers") == 3)
    for connection in sockets:
        connection.close()
    _eventually(lambda: _gauge(servers, port, "cronkeeper_api_followers") == 0)


def _gauge(servers: ApiServers, port: int, name: str) -> float:
    text = servers.call("GET", "/metrics", role=Role.VIEWER, port=port).body.decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def test_haproxy_names_each_request_and_drops_what_clients_say_of_others(servers: ApiServers) -> None:
    forged = {"X-Request-Id": "mine", "X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4"}
    answer = servers.call("GET", "/jobs/999999", headers=forged)
    assert answer.headers["x-request-id"] == answer.json()["instance"] != "mine"
    assert len(answer.headers["x-request-id"]) == 36


def test_a_slow_sender_is_sent_away(servers: ApiServers) -> None:
    with socket.create_connection(("127.0.0.1", servers.haproxy.port), timeout=30) as connection:
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        answer = _read_all(connection, 20)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "request_text",
    [
        pytest.param(b"HELLO\r\n\r\n", id="no HTTP at all"),
        pytest.param(b"GET /jobs HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", id="a blank in a header's name"),
        pytest.param(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a line of 5,000 characters"),
    ],
)
def test_what_is_not_http_is_a_problem_too(request_text: bytes, servers: ApiServers) -> None:
    # HAProxy refuses what it cannot read in words of its own.
    for port in (servers.haproxy.port, servers.ports[0]):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request_text)
            answer = _read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400 "), (port, answer)
    assert _problem(answer)["type"] == "/problems/malformed"


def test_a_broken_chunk_is_a_problem(servers: ApiServers) -> None:
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {servers.tokens[Role.OPERATOR]}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    for port in (servers.haproxy.port, servers.ports[0]):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head.encode())
            answer = _read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400 "), (port, answer)
    assert _problem(answer)["type"] == "/problems/malformed"


def test_haproxy_without_a_server_answers_with_a_problem() -> None:
    nobody = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with HAProxy(*nobody) as haproxy:
        connection = http.client.HTTPConnection("127.0.0.1", haproxy.port, timeout=30)
        connection.request("POST", "/jobs", body=b"{}")
        response = connection.getresponse()
        problem = json.loads(response.read())
        connection.close()
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert (problem["type"], problem["status"], problem["errors"]) == ("/problems/unavailable", 503, [])
    assert len(problem["instance"]) == 36


def _problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6\r\n", id="two lengths"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", id="a length and chunks"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n", id="an encoding that nobody knows"),
        pytest.param(b"Transfer-Encoding : chunked\r\n", id="a blank before the colon"),
        pytest.param(b"Content-Length: +5\r\n", id="a length with a sign"),
    ],
)
def test_a_request_inside_a_request_is_not_served(head: bytes, servers: ApiServers) -> None:
    before = _count(servers)
    token = servers.tokens[Role.OPERATOR]
    inner = json.dumps(JOB).encode()
    hidden = (
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(inner)}\r\n\r\n"
    ).encode() + inner
    with socket.create_connection(("127.0.0.1", servers.haproxy.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\n" + hidden)
        answers = _read_all(connection)
    assert b"201 CREATED" not in answers
    assert _count(servers) == before


def _read_all(connection: socket.socket, timeout_s: float = 3) -> bytes:
    connection.settimeout(timeout_s)
    found = b""
    try:
        while chunk := connection.recv(65536):
            found += chunk
    except TimeoutError:
        pass
    return found


def test_a_body_without_end_is_413(servers: ApiServers) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(14):
            yield b" " * 1_048_576

    connection = http.client.HTTPConnection("127.0.0.1", servers.haproxy.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {servers.tokens[Role.OPERATOR]}", "Content-Type": "application/json"}
        # It may close the connection before we have sent everything.
        with contextlib.suppress(OSError):
            connection.request("POST", "/jobs", body=chunks(), headers=headers, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["type"] == "/problems/too-large"
    finally:
        connection.close()


def test_nobody_listens_anywhere_but_on_loopback(servers: ApiServers) -> None:
    listening: set[str] = set()
    for server in servers.servers:
        for pid in _family(server.pid):
            listening |= _listening(pid)
    assert listening
    assert listening <= {"0100007F"}  # 127.0.0.1 as /proc writes it


def _family(pid: int) -> list[int]:
    children = [int(found) for task in os.listdir(f"/proc/{pid}/task") for found in _children(pid, task)]
    return [pid, *(member for child in children for member in _family(child))]


def _children(pid: int, task: str) -> list[str]:
    with open(f"/proc/{pid}/task/{task}/children") as file:
        return file.read().split()


def _listening(pid: int) -> set[str]:
    inodes: set[str] = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue
    found: set[Any] = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        found |= {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
    return found
