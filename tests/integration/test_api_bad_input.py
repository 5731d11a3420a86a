"""The table of bad requests again: through a real HAProxy, on a real gunicorn and a real MariaDB. Nothing is saved."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pymysql
import pytest
from sqlalchemy.engine import make_url

from tests.harness.api_servers import ApiServers
from tests.harness.bad_requests import BAD_REQUESTS, JOB, Bad
from tests.harness.mariadb import MariaDB
from tests.harness.zookeeper import ZooKeeper

#: Rows of these would be left by a request that saved something.
TABLES = ("jobs", "job_labels", "runs", "move_requests", "assignments")


@dataclass(frozen=True)
class State:
    """All that a request could have saved."""

    jobs: list[tuple[str, int, str]]
    rows: dict[str, int]
    objects: list[str]


@pytest.fixture(scope="module")
def servers(mariadb_server: MariaDB, zookeeper_server: ZooKeeper) -> Iterator[ApiServers]:
    name = f"bad_input_{uuid.uuid4().hex[:10]}"
    url = mariadb_server.create_database(name)
    try:
        with ApiServers(url, zookeeper_server.create_chroot()) as found:
            created = found.call("POST", "/jobs", body={**JOB, "name": "bystander"})
            assert created.status == 201, created.body
            yield found
    finally:
        mariadb_server.drop_database(name)


@pytest.fixture(scope="module")
def before(servers: ApiServers) -> State:
    return _state(servers)


def _state(servers: ApiServers) -> State:
    jobs = servers.call("GET", "/jobs?limit=10000").json()
    objects = sorted(str(path) for path in (servers.folder / "blobs").rglob("*") if path.is_file())
    return State([(job["id"], job["generation"], job["updated_at"]) for job in jobs], _rows(servers), objects)


def _rows(servers: ApiServers) -> dict[str, int]:
    url = make_url(servers.database_url)
    connection = pymysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=url.password or "", database=url.database
    )
    with connection, connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            row = cursor.fetchone()
            assert row is not None
            found[table] = int(row[0])
        return found


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.id)
def test_it_is_refused_and_nothing_is_saved(bad: Bad, servers: ApiServers, before: State) -> None:
    path = bad.path.replace("{job}", before.jobs[0][0])
    answer = servers.call(bad.method, path, raw=bad.body, headers=bad.headers)
    assert answer.status == bad.status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].startswith("/problems/")
    assert problem["instance"] == answer.headers["x-request-id"]
    if bad.names is not None:
        assert bad.names in {error["field"] for error in problem["errors"]}
    assert _state(servers) == before
