"""One request is one request, for HAProxy and for the API behind it; and nobody says through it who he is."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator

import pytest

from cronkeeper.ports import Role
from tests.harness.api_servers import ApiServers
from tests.harness.haproxy import HAProxy
from tests.harness.mariadb import MariaDB
from tests.harness.raw_http import exchange, statuses
from tests.harness.recorder import Recorder
from tests.harness.smuggling import ATTACKS, MARK, Attack
from tests.harness.zookeeper import ZooKeeper

_ID = re.compile(r" id=([0-9a-f-]{36})$", re.MULTILINE)


@pytest.fixture(scope="module")
def servers(mariadb_server: MariaDB, zookeeper_server: ZooKeeper) -> Iterator[ApiServers]:
    name = f"smuggling_{uuid.uuid4().hex[:10]}"
    url = mariadb_server.create_database(name)
    try:
        with ApiServers(url, zookeeper_server.create_chroot()) as found:
            yield found
    finally:
        mariadb_server.drop_database(name)


def _answered(servers: ApiServers) -> list[dict[str, str]]:
    """What the API servers say that they answered, but for health checks."""
    lines = []
    for number in range(len(servers.ports)):
        text = (servers.folder / f"api-{number}.log").read_text(errors="replace")
        lines += [json.loads(line) for line in text.splitlines() if '"http.request"' in line]
    return [line for line in lines if line["path"] not in ("/readyz", "/healthz")]


def _told(servers: ApiServers) -> set[str]:
    """The ids of the requests that HAProxy says it handed on. Its log comes through a pipe, a little later."""
    time.sleep(0.05)
    return set(_ID.findall((servers.haproxy.folder / "haproxy.log").read_text(errors="replace")))


def _fence(servers: ApiServers) -> str:
    """Ask for something on each server, and return when it is in their logs: what was before it is there, too."""
    mark = f"/fence-{uuid.uuid4().hex}"
    for port in servers.ports:
        assert servers.call("GET", mark, port=port).status == 404
    deadline = time.monotonic() + 30
    while sum(line["path"] == mark for line in _answered(servers)) < len(servers.ports):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return mark


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_no_second_request_reaches_the_api(attack: Attack, servers: ApiServers) -> None:
    # As long as what it stands for: lengths in the table stay true.
    mark = f"/smuggled-{ATTACKS.index(attack):04x}"
    answers = exchange(servers.haproxy.port, attack.data.replace(MARK, mark.encode()), timeout_s=0.5)
    _fence(servers)
    reached = [line["request"] for line in _answered(servers) if mark in line["path"]]
    assert len(reached) == (1 if attack.agreed else 0), answers
    assert set(reached) <= _told(servers), answers
    assert all(status < 500 for status in statuses(answers)), answers


def test_the_api_answers_nothing_that_haproxy_did_not_send(servers: ApiServers) -> None:
    for attack in ATTACKS:
        exchange(servers.haproxy.port, attack.data, timeout_s=0.2)
    fence = _fence(servers)
    mine = [line for line in _answered(servers) if not line["path"].startswith("/fence-")]
    ids = [line["request"] for line in mine]
    assert len(ids) >= 20
    assert len(set(ids)) == len(ids)
    assert set(ids) <= _told(servers), fence


def test_pipelined_requests_are_requests_of_their_own(servers: ApiServers) -> None:
    token = servers.tokens[Role.VIEWER]
    one = f"GET /jobs?limit=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    nobody = "GET /jobs?limit=1 HTTP/1.1\r\nHost: x\r\n"
    answers = exchange(servers.haproxy.port, f"{one}\r\n{nobody}\r\n{one}Connection: close\r\n\r\n".encode())
    # The token of one request does nothing for the next.
    assert statuses(answers) == [200, 401, 200]
    assert len(set(re.findall(rb"x-request-id: ([0-9a-f-]{36})", answers.lower()))) == 3


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For", "x-forwarded-for", "X-FORWARDED-HOST", "X-Forwarded-Proto", "X-Forwarded-User",
        "X_Forwarded_For", "X_Forwarded-For", "X-Forwarded_Host", "Forwarded", "forwarded", "X-Real-IP", "x-real-ip",
        "X-Auth-User", "X-AUTH-TOKEN", "x-auth-request-email", "X_Auth_User", "X-Request-Id",
    ],
)  # fmt: skip
def test_nobody_says_through_haproxy_who_somebody_is(name: str) -> None:
    with Recorder() as server, HAProxy(server.address, server.address) as haproxy:
        deadline = time.monotonic() + 30
        while not server.heads:
            assert time.monotonic() < deadline
            head = f"GET /jobs HTTP/1.1\r\nHost: x\r\n{name}: forged\r\n{name}: forged\r\nConnection: close\r\n\r\n"
            exchange(haproxy.port, head.encode(), timeout_s=1)
        (head_seen,) = server.heads[:1]
    assert b"forged" not in head_seen, head_seen
    assert head_seen.lower().count(b"\r\nx-forwarded-for: 127.0.0.1\r\n") == 1


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded"])
def test_the_trail_names_the_address_that_haproxy_saw(name: str, servers: ApiServers) -> None:
    secret = f"s{uuid.uuid4().hex}"
    made = servers.call("PUT", f"/calendars/{secret}", body={"exclude": []}, headers={name: "9.9.9.9"})
    assert made.status == 201
    (entry,) = (
        one for one in servers.call("GET", "/audit?limit=50", role=Role.ADMIN).json() if secret in json.dumps(one)
    )
    assert entry["source"] == "127.0.0.1"
