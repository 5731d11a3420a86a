"""The OpenAPI document is true: whatever schemathesis sends, the API answers as its document says, never with 5xx."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.ports import Event, Fire, Missed, Role
from tests.harness.api import JOB, NOON_MS, World
from tests.harness.api_fuzz import PHASES, Findings, explore
from tests.harness.api_servers import ApiServers
from tests.harness.mariadb import MariaDB
from tests.harness.zookeeper import ZooKeeper

#: A minute of processor time, which is more on a clock that others share.
pytestmark = pytest.mark.timeout(1200)
#: What anybody may ask. A route that joins them joins this list first.
PUBLIC = {"GET /healthz", "GET /readyz"}
#: What is asked through HAProxy, too.
FEW = ("/jobs", "/jobs/{job_id}", "/preview", "/calendars/{name}", "/secrets/{name}", "/namespaces", "/events")
#: Asked last: it may take its own token away.
REVOKE = "/tokens/{token_id}"


def _furnish(world: World) -> None:
    """Something of everything, so that answers have something to show."""
    world.post_job(name="first", labels={"team": "ops"})
    world.post_job(name="second", shards=2, schedule="@every 30s")
    assert world.call("POST", "/jobs/1/run").status_code == 202
    assert world.call("PUT", "/calendars/days", json={"exclude": ["2027-01-01"]}).status_code == 201
    assert world.call("PUT", "/secrets/pg", json={"value": "x"}).status_code == 200
    store, task = world.store, TaskId(1, 0)
    term = store.terms.take("m")
    missed = Missed(Fire(task, NOON_MS - 60_000), "unknown", "x", NOON_MS)
    store.audit.save(store.audit.mark(), missed=[missed], withdrawn=[], events=[], term=term)
    store.events.add([Event(NOON_MS, "fire.missed", str(task), "x")])
    store.leases.beat(WorkerInfo("node-1", "node-1"), local_ms=NOON_MS)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World(threads=256, follow_limit_s=0.1)
    _furnish(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def paths(world: World) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = world.call("GET", "/openapi.json").get_json()["paths"]
    return found


@pytest.fixture(scope="module")
def found(world: World, paths: dict[str, dict[str, Any]]) -> Findings:
    headers = {"Authorization": f"Bearer {world.tokens[Role.ADMIN]}"}
    document = world.call("GET", "/openapi.json").get_json()
    del document["paths"][REVOKE]
    most = explore(document, headers=headers, max_examples=40, app=world.app)
    document["paths"] = {REVOKE: paths[REVOKE]}
    last = explore(document, headers=headers, max_examples=40, app=world.app)
    return Findings(
        most.cases + last.cases, [*most.sent, *last.sent], {**most.faults, **last.faults}, [*most.errors, *last.errors]
    )


def test_no_answer_contradicts_the_document(found: Findings) -> None:
    assert found.errors == []
    assert not found.faults, "\n".join(f"{key}: {text}" for key, text in found.faults.items())
    assert not [sent for sent in found.sent if sent.status >= 500]


def test_it_was_asked_often_enough_in_every_way(found: Findings) -> None:
    assert found.cases.total() >= 5000, found.cases
    assert set(found.cases) >= set(PHASES)
    assert min(found.cases[phase] for phase in PHASES) >= 50, found.cases
    # It is no test of refusals alone.
    statuses = Counter(sent.status for sent in found.sent)
    assert sum(count for status, count in statuses.items() if status < 300) >= 500, statuses


def test_every_operation_was_asked(found: Findings, paths: dict[str, dict[str, Any]]) -> None:
    assert {f"{method.upper()} {path}" for path, one in paths.items() for method in one} == {
        sent.operation for sent in found.sent
    }


def test_what_is_answered_with_a_token_is_refused_without(world: World, found: Findings) -> None:
    # One request of each kind of answer is enough: the door comes before all else.
    kinds = {(sent.operation, sent.status): sent for sent in found.sent if sent.operation not in PUBLIC}
    assert len(kinds) >= 150
    for sent in kinds.values():
        if sent.method not in sent.operation or sent.status == 405:
            continue
        url = urlsplit(sent.url)
        headers = {name: value for name, value in sent.headers.items() if name.lower() in ("content-type", "if-match")}
        for token in ({}, {"Authorization": "Bearer ck_" + "A" * 43}):
            answer = world.call(
                sent.method, url.path, role=None, query_string=url.query, headers={**headers, **token}, data=sent.body
            )
            # A path of blanks or dots is none of ours, whoever asks.
            assert answer.status_code in ((401,) if sent.status != 404 else (401, 404)), (sent, answer.status_code)


def test_only_what_is_public_says_that_it_needs_no_token(paths: dict[str, dict[str, Any]]) -> None:
    open_to_all = {
        f"{method.upper()} {path}"
        for path, one in paths.items()
        for method, operation in one.items()
        if operation.get("security") == []
    }
    assert open_to_all == PUBLIC


def test_through_haproxy_and_a_real_database_it_is_true_as_well(
    mariadb_server: MariaDB, zookeeper_server: ZooKeeper
) -> None:
    name = f"openapi_{uuid.uuid4().hex[:10]}"
    url = mariadb_server.create_database(name)
    # HAProxy says more than the API: its own 400 to what is no HTTP has no body that the document knows.
    quiet = {"CRONKEEPER_FOLLOW_LIMIT_S": "1"}
    try:
        with ApiServers(url, zookeeper_server.create_chroot(), quiet) as servers:
            assert servers.call("POST", "/jobs", body={**JOB, "name": "first"}).status == 201
            document = servers.call("GET", "/openapi.json").json()
            document["paths"] = {path: document["paths"][path] for path in FEW}
            headers = {"Authorization": f"Bearer {servers.tokens[Role.ADMIN]}"}
            found = explore(document, headers=headers, max_examples=5, url=f"http://127.0.0.1:{servers.haproxy.port}")
    finally:
        mariadb_server.drop_database(name)
    assert found.errors == []
    assert not found.faults, "\n".join(f"{key}: {text}" for key, text in found.faults.items())
    assert found.cases.total() >= 300
