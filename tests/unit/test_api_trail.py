"""GET /audit: who did what, from where; and that nothing is done without it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.ports import Role
from cronkeeper.testing.memory_coordinator import MemoryCoordinator
from cronkeeper.wire.trail import link_all
from cronkeeper_api.routing import Access
from cronkeeper_api.views import all_routes
from tests.harness.api import World, fields_of

#: Routes that write, with what the trail says of them. Those without a word save nothing.
TOLD = {
    "POST /jobs": "job.created",
    "PUT /jobs/{job_id}": "job.changed",
    "PATCH /jobs/{job_id}": "job.changed",
    "DELETE /jobs/{job_id}": "job.finished",
    "POST /jobs/{job_id}/pause": "job.paused",
    "POST /jobs/{job_id}/resume": "job.resumed",
    "POST /jobs/{job_id}/run": "run.requested",
    "POST /jobs/{job_id}/backfill": "backfill.requested",
    "POST /jobs/{job_id}/reassign": "job.reassigned",
    "POST /runs/{run_id}/cancel": "run.cancel_requested",
    "POST /apply": "job.created",
    "POST /workers/{worker_id}/cordon": "worker.cordoned",
    "POST /workers/{worker_id}/uncordon": "worker.uncordoned",
    "POST /workers/{worker_id}/drain": "worker.drained",
    "POST /tokens": "token.created",
    "DELETE /tokens/{token_id}": "token.revoked",
    "PUT /namespaces/{namespace}": "namespace.changed",
    "PUT /calendars/{name}": "calendar.saved",
    "DELETE /calendars/{name}": "calendar.removed",
    "POST /preview": "",
    "POST /plan": "",
}
#: Told of by each thing that they save, if any.
UNTOLD = {
    "POST /calendars/refresh",
    "PUT /secrets/{name}",
    "DELETE /secrets/{name}",
    "POST /secrets/rotate",
    # Of identities that an issuer has: tests/unit/test_api_oidc.py
    "POST /denials",
    # Once for many jobs, if there is anything to sign: tests/unit/test_resigning.py
    "POST /resign",
    "DELETE /denials/{denial_id}",
}
JOB = {"executable": "ls", "schedule": "5 * * * *", "type": "command", "name": "one"}
BODIES: dict[str, Any] = {
    "POST /jobs": {**JOB, "name": "two"},
    "PUT /jobs/{job_id}": {**JOB, "schedule": "10 * * * *"},
    "PATCH /jobs/{job_id}": {"schedule": "10 * * * *"},
    "POST /jobs/{job_id}/backfill": {"from": "2026-03-01T09:00:00Z", "to": "2026-03-01T10:30:00Z"},
    "POST /jobs/{job_id}/reassign": {"worker": "w2"},
    "POST /apply": {"jobs": [{**JOB, "name": "three"}]},
    "POST /tokens": {"name": "ci", "role": "viewer"},
    "PUT /namespaces/{namespace}": {"run_as": ["nobody"]},
    "PUT /calendars/{name}": {"exclude": ["2026-12-24"]},
    "POST /preview": JOB,
    "POST /plan": {"lose": ["w2"]},
}


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    for name in ("w1", "w2"):
        worker = MemoryCoordinator(found.ensemble, name, clock=found.clock)
        worker.start(1.0)
        info = WorkerInfo(name, f"host-{name}", {}, 1000, "1", f"epoch-{name}")
        worker.announce(info)
        found.store.leases.beat(info, local_ms=found.clock.now_ms())
    yield found
    found.close()


def link_waiting(world: World) -> None:
    """Do what a leader does in each turn."""
    term = world.store.terms.take("m1")
    world.store.trail.link(link_all(world.store.trail.waiting(limit=1000), world.store.trail.head()), term=term)


def trail(world: World, **query: Any) -> list[dict[str, Any]]:
    answer = world.call("GET", "/audit", role=Role.ADMIN, query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: list[dict[str, Any]] = answer.get_json()
    return found


def path_of(world: World, endpoint: str) -> str:
    job = world.post_job(**{key: value for key, value in JOB.items() if key != "executable"})
    if endpoint == "POST /jobs/{job_id}/resume":
        world.call("POST", f"/jobs/{job['id']}/pause")
    if endpoint == "DELETE /calendars/{name}":
        world.call("PUT", "/calendars/days", json=BODIES["PUT /calendars/{name}"])
    path = (
        endpoint.partition(" ")[2].replace("{job_id}", job["id"]).replace("{worker_id}", "w1").replace("{name}", "days")
    )
    path = path.replace("{namespace}", "team-a")
    if "{run_id}" in path:
        path = path.replace("{run_id}", world.call("POST", f"/jobs/{job['id']}/run").get_json()["id"])
    return path.replace("{token_id}", "1")


def test_every_route_that_writes_is_in_the_table() -> None:
    writes = {route.endpoint for route in all_routes(metrics=Access.VIEWER) if route.method != "GET"}
    assert writes - UNTOLD == TOLD.keys()


@pytest.mark.parametrize(("endpoint", "action"), TOLD.items(), ids=TOLD)
def test_whatever_is_done_is_told(world: World, endpoint: str, action: str) -> None:
    world.clock.advance_ms(7_200_000)
    path = path_of(world, endpoint)
    before = len(trail(world))
    method = endpoint.partition(" ")[0]
    answer = world.call(method, path, role=Role.ADMIN, json=BODIES.get(endpoint, {} if method == "POST" else None))
    assert answer.status_code < 300, answer.get_data(as_text=True)
    new = trail(world)[before:]
    assert [item["action"] for item in new] == ([action] if action else [])
    for item in new:
        assert item["actor"] == {"token": item["actor"]["token"], "name": "the-admin", "role": "admin"}
        assert item["source"] == "127.0.0.1"
        assert item["request_id"] == answer.headers["X-Request-Id"]


def test_what_is_refused_is_not_told(world: World) -> None:
    world.post_job(name="one")
    assert world.call("POST", "/jobs", json={**JOB, "schedule": "x"}).status_code == 422
    assert world.call("POST", "/jobs", json=JOB).status_code == 409
    assert world.call("DELETE", "/jobs/99").status_code == 404
    assert world.call("POST", "/workers/w1/cordon", role=Role.OPERATOR).status_code == 403
    assert [item["action"] for item in trail(world)] == ["job.created"]


def test_an_edit_tells_what_was_and_what_is(world: World) -> None:
    job = world.post_job(name="one", env={"KEEP": "1", "PASSWORD": "hunter2", "GONE": "x"})
    patch = {"schedule": "10 * * * *", "env": {"PASSWORD": "hunter3", "NEW": "y", "GONE": None}}
    assert world.call("PATCH", f"/jobs/{job['id']}", json=patch).status_code == 200
    link_waiting(world)
    created, changed = trail(world, object=f"job/{job['id']}")
    assert (created["old"], created["new"]["schedule"], created["new"]["state"]) == (None, "5 * * * *", "active")
    assert created["new"]["env"] == {"KEEP": "***", "PASSWORD": "***", "GONE": "***"}
    assert changed["old"] == {
        "generation": 1,
        "state": "active",
        "schedule": "5 * * * *",
        "env": {"PASSWORD": "***", "GONE": "***"},
    }
    assert changed["new"] == {
        "generation": 2,
        "state": "active",
        "schedule": "10 * * * *",
        "env": {"PASSWORD": "***", "NEW": "***"},
    }


def test_a_file_is_told_by_its_hash_and_a_secret_not_at_all(world: World) -> None:
    script = base64.b64encode(b"#!/bin/sh\necho marker-of-the-file\n").decode()
    world.post_job(type="script", executable=script, filename="x.sh", env={"A": "marker-of-the-env"})
    secret = world.call("POST", "/tokens", role=Role.ADMIN, json={"name": "ci", "role": "viewer"}).get_json()["token"]
    told = world.call("GET", "/audit", role=Role.ADMIN).get_data(as_text=True)
    assert trail(world)[0]["new"]["artifact"]["sha256"]
    for hidden in (script, "marker-of-the-file", "marker-of-the-env", secret):
        assert hidden not in told


def test_removing_a_job_keeps_what_it_was(world: World) -> None:
    job = world.post_job(name="one")
    assert world.call("DELETE", f"/jobs/{job['id']}", query_string={"purge": "true"}).status_code == 204
    last = trail(world)[-1]
    assert (last["action"], last["new"], last["old"]["executable"]) == ("job.purged", None, "ls -la")


def test_an_apply_tells_of_each_job(world: World) -> None:
    both = [{**JOB, "name": "a", "labels": {"x": "y"}}, {**JOB, "name": "b", "labels": {"x": "y"}}]
    assert world.call("POST", "/apply", json={"jobs": both}).status_code == 200
    changed = {**both[0], "schedule": "1 * * * *"}
    body = {"jobs": [changed], "prune": "x=y"}
    assert world.call("POST", "/apply", json=body, query_string={"dry_run": "true"}).status_code == 200
    assert world.call("POST", "/apply", json=body).status_code == 200
    assert [item["action"] for item in trail(world)] == ["job.created", "job.created", "job.changed", "job.finished"]


def test_a_dry_run_is_not_told(world: World) -> None:
    for verb, body in (("workers/w1/drain", {"dry_run": True}),):
        assert world.call("POST", f"/{verb}", role=Role.ADMIN, json=body).status_code == 200
    assert trail(world) == []


def test_a_key_used_again_is_told_once(world: World) -> None:
    for _ in range(2):
        assert world.call("POST", "/jobs", json=JOB, headers={"Idempotency-Key": "k"}).status_code == 201
    assert len(trail(world)) == 1


def test_pages_lead_from_one_to_the_next_and_end_with_what_is_not_linked_yet(world: World) -> None:
    for number in range(5):
        world.post_job(name=f"job-{number}")
    link_waiting(world)
    world.post_job(name="new")
    first = world.call("GET", "/audit", role=Role.ADMIN, query_string={"limit": "3"})
    assert [item["seq"] for item in first.get_json()] == [1, 2, 3]
    path = first.headers["Link"].partition(">")[0].lstrip("<")
    rest = world.call("GET", path, role=Role.ADMIN)
    assert [item["seq"] for item in rest.get_json()] == [4, 5, None]
    assert "Link" not in rest.headers


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"actor": "the-operator"}, ["job.created", "job.paused"]),
        ({"actor": "nobody"}, []),
        ({"action": "worker.cordoned"}, ["worker.cordoned"]),
        ({"object": "worker"}, ["worker.cordoned"]),
        ({"object": "worker/w1"}, ["worker.cordoned"]),
        ({"object": "worker/w2"}, []),
        ({"from": "2026-03-01T12:00:10Z"}, ["worker.cordoned"]),
        ({"to": "2026-03-01T12:00:09Z"}, ["job.created", "job.paused"]),
        ({"after": "2"}, ["worker.cordoned"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("linked", [True, False])
def test_what_was_done_is_found(world: World, query: dict[str, str], found: list[str], linked: bool) -> None:
    job = world.post_job()
    world.call("POST", f"/jobs/{job['id']}/pause")
    world.clock.advance_ms(10_000)
    world.call("POST", "/workers/w1/cordon", role=Role.ADMIN)
    if linked:
        link_waiting(world)
    elif "after" in query:
        found = ["job.created", "job.paused", "worker.cordoned"]
    assert [item["action"] for item in trail(world, **query)] == found


def test_bad_questions_are_refused_with_every_fault(world: World) -> None:
    answer = world.call(
        "GET", "/audit", role=Role.ADMIN, query_string={"limit": "0", "after": "x", "from": "now", "who": "me"}
    )
    assert answer.status_code == 422
    assert fields_of(answer) == {"limit", "after", "from", "who"}


def verified(world: World, **query: Any) -> dict[str, Any]:
    answer = world.call("GET", "/audit/verify", role=Role.ADMIN, query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def test_the_trail_is_checked_in_pieces(world: World) -> None:
    assert verified(world) == {
        "checked": 0, "through": 0, "hash": None, "done": True, "broken": None, "anchor": None,
    }  # fmt: skip
    for number in range(5):
        world.post_job(name=f"job-{number}")
    link_waiting(world)
    first = verified(world, limit=3)
    assert (first["checked"], first["through"], first["done"], first["broken"]) == (3, 3, False, None)
    rest = verified(world, after=3)
    assert (rest["checked"], rest["through"], rest["done"], rest["broken"]) == (2, 5, True, None)
    del world.store._memory.trail[2]
    assert verified(world, limit=2)["broken"] is None
    assert verified(world, after=2)["broken"]["seq"] == 3
    assert verified(world, after=3)["broken"]["seq"] == 3


@pytest.mark.parametrize(
    ("peer", "told", "source"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "10.0.0.1, 192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "x" * 500, "127.0.0.1"),
        ("127.0.0.1", "192.0.2.7:80", "127.0.0.1"),
        ("::1", "192.0.2.7", "192.0.2.7"),
        ("198.51.100.9", "192.0.2.7", "198.51.100.9"),
        ("198.51.100.9", None, "198.51.100.9"),
    ],
    ids=str,
)
def test_only_a_proxy_of_ours_says_where_a_request_comes_from(
    world: World, peer: str, told: str | None, source: str
) -> None:
    headers = {} if told is None else {"X-Forwarded-For": told}
    world.call("POST", "/jobs", json=JOB, headers=headers, environ_base={"REMOTE_ADDR": peer})
    assert trail(world)[0]["source"] == source
