"""TLS from the client to HAProxy and on to the API servers."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.ports import Role
from tests.harness.api_servers import ApiServers
from tests.harness.bad_requests import JOB
from tests.harness.certificates import Authority
from tests.harness.haproxy import HAProxy
from tests.harness.mariadb import MariaDB

CRONKEEPER = str(Path(sys.executable).parent / "cronkeeper")
#: Jobs are saved without ZooKeeper.
NOWHERE = "127.0.0.1:9/cronkeeper"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("api-tls"))


@pytest.fixture(scope="module")
def servers(mariadb_server: MariaDB, authority: Authority) -> Iterator[ApiServers]:
    url = mariadb_server.create_database("api_tls")
    with ApiServers(url, NOWHERE, tls=authority) as found:
        yield found


def test_a_job_is_posted_over_tls_all_the_way(servers: ApiServers) -> None:
    assert servers.call("POST", "/jobs", body=JOB).status == 201
    assert servers.call("GET", "/jobs", role=Role.VIEWER).status == 200


@pytest.mark.parametrize("whose", ["haproxy", "api"])
def test_nothing_older_than_tls_1_2_is_spoken(servers: ApiServers, authority: Authority, whose: str) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.set_ciphers("ALL:@SECLEVEL=0")
    port = servers.haproxy.port if whose == "haproxy" else servers.ports[0]
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("whose", ["haproxy", "api"])
def test_a_plain_request_gets_no_answer_of_ours(servers: ApiServers, whose: str) -> None:
    port = servers.haproxy.port if whose == "haproxy" else servers.ports[0]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/jobs", headers={"Authorization": f"Bearer {servers.tokens[Role.ADMIN]}"})
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "words", ["verify required ca-file {stranger} verifyhost api.example", "verify required ca-file {ca} verifyhost x"]
)
def test_haproxy_takes_no_other_server_for_the_api(
    servers: ApiServers, authority: Authority, tmp_path: Path, words: str
) -> None:
    words = "ssl " + words.format(stranger=Authority(tmp_path).ca, ca=authority.ca)
    addresses = [f"127.0.0.1:{port}" for port in servers.ports]
    with HAProxy(addresses[0], addresses[1], env={"CRONKEEPER_API_TLS": words}) as front:
        # Nothing is up at HAProxy's start but what its checks have not reached yet.
        front.process.wait_until(lambda: _status(front) == 503, timeout_s=20, what="without a server")
        assert "TLS" in front.process.log_text() or "SSL" in front.process.log_text()


def _status(front: HAProxy) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def _list(servers: ApiServers, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CRONKEEPER, "list", "-o", "name"],
        env={
            "PATH": os.environ["PATH"],
            "CRONKEEPER_URL": servers.haproxy.url,
            "CRONKEEPER_TOKEN": servers.tokens[Role.OPERATOR],
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_believes_the_private_ca_it_is_told_and_no_other(
    servers: ApiServers, authority: Authority, tmp_path: Path
) -> None:
    assert _list(servers, CRONKEEPER_CA=str(authority.ca)).returncode == 0
    for env in ({}, {"CRONKEEPER_CA": str(Authority(tmp_path).ca)}):
        refused = _list(servers, **env)
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stderr
    folder = tmp_path / "cronkeeper"
    folder.mkdir()
    (folder / "config.toml").write_text(f'ca = "{authority.ca}"\n')
    assert _list(servers, XDG_CONFIG_HOME=str(tmp_path)).returncode == 0


def test_with_a_ca_the_command_line_sends_nothing_in_plain(servers: ApiServers, authority: Authority) -> None:
    plain = _list(servers, CRONKEEPER_CA=str(authority.ca), CRONKEEPER_URL=f"http://127.0.0.1:{servers.haproxy.port}")
    assert plain.returncode == 2
    assert "nothing is sent in plain" in plain.stderr
