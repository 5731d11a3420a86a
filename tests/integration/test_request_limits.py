"""Who asks too much is told so by HAProxy, in time and politely; whoever else asks meanwhile does not notice."""

from __future__ import annotations

import http.client
import json
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cronkeeper.ports import Role
from tests.harness.api_servers import ApiServers
from tests.harness.bad_requests import JOB
from tests.harness.haproxy import CONFIG
from tests.harness.mariadb import MariaDB
from tests.harness.raw_http import connect, exchange, read_all, statuses
from tests.harness.zookeeper import ZooKeeper

#: Far below what is set unless told, so that a test reaches them.
LIMITS = {
    "CRONKEEPER_HAPROXY_CONNECTIONS": "12",
    "CRONKEEPER_HAPROXY_SOURCE_REQUESTS": "120",
    "CRONKEEPER_HAPROXY_TOKEN_REQUESTS": "60",
    "CRONKEEPER_HAPROXY_REFUSALS": "15",
    "CRONKEEPER_HAPROXY_BODY_BYTES": "14000000",
}


@pytest.fixture(scope="module")
def servers(mariadb_server: MariaDB, zookeeper_server: ZooKeeper) -> Iterator[ApiServers]:
    name = f"limits_{uuid.uuid4().hex[:10]}"
    url = mariadb_server.create_database(name)
    try:
        with ApiServers(url, zookeeper_server.create_chroot(), haproxy=LIMITS) as found:
            yield found
    finally:
        mariadb_server.drop_database(name)


class Client:
    """A client with an address of its own on loopback, so that no test uses up another's limits."""

    _next = 2

    def __init__(self, servers: ApiServers) -> None:
        Client._next += 1
        self.source = f"127.0.0.{Client._next}"
        self._port = servers.haproxy.port

    def ask(self, token: str | None, method: str = "GET", path: str = "/jobs?limit=1", body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30, source_address=(self.source, 0))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, lower, response.read())
        finally:
            connection.close()


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def is_too_many(self) -> bool:
        """Whether this is HAProxy's 429, whole and as promised."""
        if self.status != 429:
            return False
        problem = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["x-content-type-options"] == "nosniff"
        assert int(self.headers["retry-after"]) >= 1
        assert (problem["type"], problem["status"], problem["errors"]) == ("/problems/too-many", 429, [])
        assert problem["instance"] == self.headers["x-request-id"]
        return True


def test_one_token_has_so_many_requests_from_wherever_and_others_go_on(servers: ApiServers) -> None:
    token = servers.tokens[Role.VIEWER]
    first, second, other = Client(servers), Client(servers), Client(servers)
    answers = [(first, second)[number % 2].ask(token) for number in range(80)]
    assert [answer.status for answer in answers[:60]] == [200] * 60
    assert answers[-1].is_too_many()
    # Neither the addresses nor anybody else is shut out.
    assert first.ask(servers.tokens[Role.OPERATOR]).status == 200
    assert other.ask(servers.tokens[Role.OPERATOR]).status == 200


def test_a_write_beyond_the_limit_saves_nothing_and_works_when_the_time_is_over(servers: ApiServers) -> None:
    token, client = servers.tokens[Role.OPERATOR], Client(servers)
    before = len(client.ask(servers.tokens[Role.ADMIN], path="/jobs?limit=10000").body)
    answer = client.ask(token)
    for _ in range(80):
        answer = client.ask(token)
        if answer.status == 429:
            break
    assert answer.is_too_many()
    assert client.ask(token, "POST", "/jobs", JOB).is_too_many()
    assert len(client.ask(servers.tokens[Role.ADMIN], path="/jobs?limit=10000").body) == before
    time.sleep(int(answer.headers["retry-after"]) + 1)
    assert client.ask(token, "POST", "/jobs", JOB).status == 201


def test_one_address_has_so_many_requests_whatever_it_asks(servers: ApiServers) -> None:
    client, other = Client(servers), Client(servers)
    answers = [client.ask(None, path="/healthz") for _ in range(140)]
    assert [answer.status for answer in answers[:120]] == [200] * 120
    assert answers[-1].is_too_many()
    assert other.ask(None, path="/healthz").status == 200


def test_guessing_tokens_is_slow_and_shuts_out_nobody_who_has_one(servers: ApiServers) -> None:
    guesser, other = Client(servers), Client(servers)
    token = servers.tokens[Role.ADMIN]
    assert guesser.ask(token).status == 200
    answers = [guesser.ask(f"ck_{secrets.token_urlsafe(32)}") for _ in range(30)]
    assert [answer.status for answer in answers[:16]] == [401] * 16
    assert all(answer.is_too_many() for answer in answers[17:])
    # Not even by guessing where no token is needed, or nothing is: that proves none.
    for path in ("/healthz", "/nowhere"):
        guess = f"ck_{secrets.token_urlsafe(32)}"
        guesser.ask(guess, path=path)
        assert guesser.ask(guess).is_too_many()
    assert guesser.ask(token).status == 200
    assert other.ask(servers.tokens[Role.ADMIN]).status == 200
    assert other.ask(f"ck_{secrets.token_urlsafe(32)}").status == 401


def test_what_the_api_says_of_a_token_does_not_leave_haproxy(servers: ApiServers) -> None:
    client = Client(servers)
    assert "x-cronkeeper-known" not in client.ask(servers.tokens[Role.ADMIN]).headers
    assert "x-cronkeeper-known" in servers.call("GET", "/jobs", port=servers.ports[0]).headers
    assert "x-cronkeeper-known" not in servers.call("GET", "/nowhere", port=servers.ports[0]).headers
    assert "x-cronkeeper-known" not in servers.call("GET", "/healthz", role=None, port=servers.ports[0]).headers


def test_one_address_has_so_many_connections(servers: ApiServers) -> None:
    client, other = Client(servers), Client(servers)
    idle: list[Any] = []

    def one_more() -> Answer:
        """Ask beside twelve that say nothing."""
        while idle:
            idle.pop().close()
        idle.extend(connect(servers.haproxy.port, source=client.source) for _ in range(12))
        return client.ask(None, path="/healthz")

    try:
        # One more still hears why. On a busy machine those before it may have been sent away, for saying nothing.
        assert any(one_more().is_too_many() for _ in range(4))
        # What comes last is beyond the limit anyway.
        closed = 0
        for _ in range(100):
            try:
                idle.append(connect(servers.haproxy.port, source=client.source))
            except ConnectionResetError:  # closed even before we were told that it was open
                closed += 1
        closed += sum(read_all(one, 1) == b"" and _is_closed(one) for one in idle[-20:])
        assert closed >= 15
        assert other.ask(None, path="/healthz").status == 200
    finally:
        for one in idle:
            one.close()
    deadline = time.monotonic() + 30
    while client.ask(None, path="/healthz").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.recv(1) == b"")
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_body_that_is_far_too_large_is_refused_by_haproxy(servers: ApiServers) -> None:
    client = Client(servers)
    head = "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14000001\r\n\r\n"
    answer = exchange(servers.haproxy.port, head.encode(), source=client.source)
    assert statuses(answer) == [413]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems/too-large"


def test_a_bulk_user_with_32_clients_is_far_from_what_is_set_unless_told() -> None:
    words = [line.split() for line in CONFIG.read_text().splitlines() if "presetenv" in line]
    preset = {word[1].removeprefix("CRONKEEPER_HAPROXY_"): int(word[2]) for word in words if word[2].isdigit()}
    assert preset["CONNECTIONS"] >= 5 * 32
    # Several times what two API servers can answer in 10 s.
    assert preset["TOKEN_REQUESTS"] >= 50_000
    assert preset["SOURCE_REQUESTS"] >= preset["TOKEN_REQUESTS"]
