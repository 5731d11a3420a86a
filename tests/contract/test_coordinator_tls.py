"""TLS to a real ZooKeeper: one private CA, names verified, and no way back to plain."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.coord import connect
from cronkeeper.domain.ids import TaskId
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper.runtime.tls import Tls
from tests.contract.coordinators import AUTH
from tests.harness.certificates import Authority
from tests.harness.folders import make_folder, remove_folder
from tests.harness.zookeeper import ZooKeeper

PATIENCE_S = 3.0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = make_folder("zookeeper-tls")
    yield folder
    remove_folder(folder)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "ours")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[ZooKeeper]:
    with ZooKeeper(tls=authority) as server:
        yield server


def start(hosts: str, tls: Tls | None, timeout_s: float = 15.0) -> Coordinator:
    coordinator = connect(f"{hosts}/tls-{uuid.uuid4().hex[:8]}", auth=AUTH, name="tls", tls=tls)
    try:
        coordinator.start(timeout_s)
    except BaseException:
        coordinator.stop()
        raise
    return coordinator


def ours(authority: Authority) -> Tls:
    return Tls("zookeeper_tls", str(authority.ca))


def test_everything_works_over_tls_and_no_answer_waits_for_the_next_one(
    server: ZooKeeper, authority: Authority
) -> None:
    coordinator = start(server.tls_hosts, ours(authority))
    try:
        coordinator.ensure_layout()
        tasks = {TaskId(number, 0): b"x" * 500 for number in range(1, 1001)}
        coordinator.put_tasks(tasks)
        # Hundreds of answers share the records of TLS: what is decrypted already makes no socket readable.
        assert coordinator.read_tasks(tasks) == tasks
        assert coordinator.task_names() == set(tasks)
    finally:
        coordinator.stop()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_name_of_the_certificate_is_taken(server: ZooKeeper, authority: Authority, name: str) -> None:
    start(f"{name}:{server.tls_ports[0]}", ours(authority)).stop()


def test_a_server_that_another_ca_signed_is_refused(server: ZooKeeper, folder: Path) -> None:
    stranger = Authority(folder / "stranger")
    with pytest.raises(UnavailableError, match=r"certificate is not accepted.*zookeeper_tls_ca"):
        start(server.tls_hosts, ours(stranger), PATIENCE_S)


def test_the_cas_of_the_system_are_not_trusted(
    server: ZooKeeper, authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Authority(folder / "stranger-2")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    with pytest.raises(UnavailableError, match="certificate is not accepted"):
        start(server.tls_hosts, ours(stranger), PATIENCE_S)


def test_a_plain_client_gets_no_session_where_tls_is_spoken(server: ZooKeeper) -> None:
    with pytest.raises(UnavailableError, match=r"wants TLS \(zookeeper_tls_ca\)"):
        start(server.tls_hosts, None, PATIENCE_S)


def test_with_a_ca_nothing_plain_is_spoken(server: ZooKeeper, authority: Authority) -> None:
    with pytest.raises(UnavailableError, match="is this its TLS port"):
        start(server.hosts, ours(authority), PATIENCE_S)


def test_a_server_with_another_name_is_refused_and_one_that_wants_a_certificate_gets_it(authority: Authority) -> None:
    with ZooKeeper(tls=authority, tls_names=("localhost",), asks_certificate=True) as server:
        mine = authority.issue("api")
        with_mine = Tls("zookeeper_tls", str(authority.ca), str(mine.cert), str(mine.key))
        with pytest.raises(UnavailableError, match=r"certificate is not accepted .*127\.0\.0\.1"):
            start(server.tls_hosts, with_mine, PATIENCE_S)
        named = f"localhost:{server.tls_ports[0]}"
        with pytest.raises(UnavailableError, match=r"wants it a certificate of ours \(zookeeper_tls_cert\)"):
            start(named, ours(authority), PATIENCE_S)
        start(named, with_mine).stop()
