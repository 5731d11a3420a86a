"""What is allowed in a namespace, over HTTP: accounts, root, quotas."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from cronkeeper.domain.quota import Quotas, Usage, excess, retry_after_s
from cronkeeper.domain.scope import scope_of
from cronkeeper.errors import NotFoundError
from cronkeeper.ports import Role
from tests.harness.api import JOB, World, fields_of

TEAM = {**JOB, "namespace": "team-a"}
FILE = {
    **TEAM,
    "type": "script",
    "executable": base64.b64encode(b"#!/bin/sh\nexit 0\n").decode(),
    "filename": "run.sh",
}


@pytest.fixture
def world() -> Iterator[World]:
    found = World(run_as_allowed=("nobody",))
    yield found
    found.close()


def put(world: World, name: str = "team-a", *, run_as: Any = None, **quotas: Any) -> TestResponse:
    body = {"run_as": run_as, "quotas": quotas}
    return world.call("PUT", f"/namespaces/{name}", role=Role.ADMIN, json=body)


def post(world: World, role: Role = Role.OPERATOR, **fields: Any) -> TestResponse:
    return world.call("POST", "/jobs", role=role, json={**TEAM, **fields})


def test_a_namespace_that_nobody_decided_about_is_shown_as_such(world: World) -> None:
    answer = world.call("GET", "/namespaces/team-a", role=Role.VIEWER).get_json()
    assert answer == {
        "name": "team-a",
        "run_as": None,
        "quotas": dict.fromkeys(
            ("max_jobs", "max_fires_per_minute", "min_interval_s", "max_artifact_bytes", "max_creates_per_minute")
        ),
        "usage": {"jobs": 0, "fires_per_minute": 0.0, "artifact_bytes": 0},
        "updated_at": None,
    }
    assert world.call("GET", "/namespaces").get_json() == []


def test_what_is_decided_is_shown_with_what_is_used(world: World) -> None:
    assert put(world, run_as=["reports", "reports"], max_jobs=5).status_code == 200
    assert world.call("POST", "/jobs", json={**FILE, "schedule": "* * * * *", "shards": 2}).status_code == 201
    found = world.call("GET", "/namespaces", role=Role.VIEWER).get_json()
    assert [(one["name"], one["run_as"], one["quotas"]["max_jobs"]) for one in found] == [("team-a", ["reports"], 5)]
    assert found[0]["usage"] == {"jobs": 1, "fires_per_minute": 2.0, "artifact_bytes": 17}
    assert put(world).get_json()["quotas"]["max_jobs"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"quotas": {"max_jobs": -1}}, "quotas.max_jobs"),
        ({"quotas": {"max_jobs": "5"}}, "quotas.max_jobs"),
        ({"quotas": {"max_jobs": True}}, "quotas.max_jobs"),
        ({"quotas": {"max_fires_per_minute": -0.1}}, "quotas.max_fires_per_minute"),
        ({"quotas": {"min_interval_s": 0}}, "quotas.min_interval_s"),
        ({"quotas": {"jobs": 5}}, "quotas.jobs"),
        ({"quotas": None}, "quotas"),
        ({"run_as": "nobody"}, "run_as"),
        ({"run_as": ["0"]}, "run_as[0]"),
        ({"run_as": ["nobody", "#0"]}, "run_as[1]"),
        ({"run_as": ["+0"]}, "run_as[0]"),
        ({"run_as": ["4294967295"]}, "run_as[0]"),
        ({"run_as": ["Root"]}, "run_as[0]"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, body: dict[str, Any], field: str) -> None:
    answer = world.call("PUT", "/namespaces/team-a", role=Role.ADMIN, json=body)
    assert (answer.status_code, fields_of(answer)) == (422, {field})


@pytest.mark.parametrize("name", ["Team", "a_b", "-", "x" * 64, "%2e%2e", "a%00"])
def test_what_is_no_name_is_no_namespace(world: World, name: str) -> None:
    assert world.call("GET", f"/namespaces/{name}").status_code == 404
    assert put(world, name).status_code == 422


def test_accounts_are_those_of_the_namespace(world: World) -> None:
    assert post(world, run_as="nobody").status_code == 201
    put(world, run_as=["reports"])
    refused = post(world, run_as="nobody")
    assert (refused.status_code, fields_of(refused)) == (422, {"run_as"})
    assert "reports" in refused.get_json()["errors"][0]["hint"]
    assert post(world, run_as="reports").status_code == 201
    assert world.call("POST", "/jobs", json={**JOB, "run_as": "reports"}).status_code == 422
    # A fault elsewhere does not hide it.
    both = post(world, run_as="nobody", timeout_s="x")
    assert fields_of(both) == {"run_as", "timeout_s"}
    put(world, run_as=[])
    world.clock.advance_ms(5000)
    assert post(world, run_as="reports").status_code == 422
    assert post(world).status_code == 201


def test_a_change_is_held_against_the_namespace_that_it_leads_to(world: World) -> None:
    put(world, run_as=["reports"])
    job = world.post_job(run_as="nobody")["id"]
    moved = world.call("PATCH", f"/jobs/{job}", json={"namespace": "team-a"})
    assert (moved.status_code, fields_of(moved)) == (422, {"run_as"})
    assert world.call("PATCH", f"/jobs/{job}", json={"namespace": "team-a", "run_as": "reports"}).status_code == 200
    assert world.call("PATCH", f"/jobs/{job}", json={"description": "x"}).status_code == 200
    jobs = [{**JOB, "name": "a", "run_as": "nobody"}]
    applied = world.call("POST", "/apply", json={"namespace": "team-a", "jobs": jobs})
    assert fields_of(applied) == {"jobs[0].run_as"}


def test_root_takes_the_role_and_the_namespace(world: World) -> None:
    scoped = world.services.tokens.create(name="a", role=Role.ADMIN, scope=scope_of(["team-a"]))[1]

    def asked(role: Role) -> int:
        return post(world, role, run_as="root").status_code

    def asked_by_own_admin() -> int:
        headers = {"Authorization": f"Bearer {scoped}"}
        return world.call("POST", "/jobs", role=None, headers=headers, json={**TEAM, "run_as": "root"}).status_code

    # Nobody has decided: whoever could decide may.
    assert (asked(Role.OPERATOR), asked(Role.ADMIN), asked_by_own_admin()) == (403, 201, 403)
    put(world, run_as=["nobody"])
    world.clock.advance_ms(5000)
    assert (asked(Role.OPERATOR), asked(Role.ADMIN), asked_by_own_admin()) == (403, 403, 403)
    put(world, run_as=["root"])
    world.clock.advance_ms(5000)
    assert (asked(Role.OPERATOR), asked(Role.ADMIN), asked_by_own_admin()) == (403, 201, 201)


@pytest.mark.parametrize("account", ["#0", "+0", "0", "4294967295", "-1", "root ", "ROOT", "no-such"])
def test_no_spelling_of_root_gets_through(world: World, account: str) -> None:
    answer = post(world, Role.ADMIN, run_as=account)
    assert (answer.status_code, fields_of(answer)) == (422, {"run_as"})


@pytest.mark.parametrize(
    ("quotas", "body", "field"),
    [
        ({"max_jobs": 1}, {}, "namespace"),
        ({"max_fires_per_minute": 1.5}, {"schedule": "* * * * *"}, "schedule"),
        ({"max_artifact_bytes": 20}, FILE, "executable"),
    ],
)
def test_over_quota_is_told_by_field_and_quota(
    world: World, quotas: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    put(world, **quotas)
    assert post(world, **body).status_code == 201
    refused = post(world, **body)
    told = refused.get_json()
    assert (refused.status_code, told["type"], fields_of(refused)) == (422, "/problems/over-quota", {field})
    assert next(iter(quotas)) in told["detail"]
    assert next(iter(quotas)) in told["errors"][0]["message"]
    applied = world.call("POST", "/apply", json={"namespace": "team-a", "jobs": [{**TEAM, **body, "name": "x"}]})
    assert applied.get_json()["type"] == "/problems/over-quota"
    # What is given up makes room, and comes back only if there is any.
    assert world.call("DELETE", "/jobs/1").status_code == 200
    assert post(world, **body).status_code == 201
    assert world.call("POST", "/jobs/1/resume").get_json()["type"] == "/problems/over-quota"
    assert world.call("POST", "/jobs", json={**JOB, **body, "namespace": "default"}).status_code == 201


def test_a_file_without_room_is_not_stored(world: World) -> None:
    put(world, max_artifact_bytes=5)
    assert world.call("POST", "/jobs", json=FILE).status_code == 422
    digest = hashlib.sha256(base64.b64decode(FILE["executable"])).hexdigest()
    with pytest.raises(NotFoundError):
        world.blobs.stat(f"artifacts/{digest}/run.sh")


def test_a_shorter_interval_is_refused_and_an_old_one_stays(world: World) -> None:
    job = post(world, schedule="* * * * *").get_json()["id"]
    put(world, min_interval_s=300)
    world.clock.advance_ms(5000)
    refused = post(world, schedule="*/4 * * * *")
    assert (refused.status_code, fields_of(refused)) == (422, {"schedule"})
    assert "min_interval_s" in refused.get_json()["errors"][0]["message"]
    assert post(world, schedule="*/5 * * * *").status_code == 201
    assert world.call("PATCH", f"/jobs/{job}", json={"description": "x"}).status_code == 200
    assert world.call("PATCH", f"/jobs/{job}", json={"schedule": "*/2 * * * *"}).status_code == 422
    assert world.call("POST", "/preview", json={**TEAM, "schedule": "* * * * *"}).status_code == 422


def test_a_token_that_creates_too_fast_is_told_when_to_come_again(world: World) -> None:
    put(world, max_creates_per_minute=2)
    world.clock.advance_ms(20_000)
    assert [post(world).status_code for _ in range(3)] == [201, 201, 429]
    late = post(world)
    assert (late.headers["Retry-After"], fields_of(late)) == ("40", {"namespace"})
    assert "max_creates_per_minute" in late.get_json()["detail"]
    assert post(world, Role.ADMIN).status_code == 201
    world.clock.advance_ms(40_000)
    assert post(world).status_code == 201


def test_a_namespace_without_quotas_costs_no_lock(world: World) -> None:
    post(world)
    before = world.store.calls("namespaces.get")
    assert post(world).status_code == 201
    assert world.store.calls("namespaces.get") == before
    assert world.store.calls("namespaces.usage") == 0


def test_what_was_decided_elsewhere_holds_within_five_seconds(world: World) -> None:
    assert post(world).status_code == 201
    policy = world.store.namespaces.get("team-a")
    world.store.namespaces.save(type(policy)("team-a", None, Quotas(max_jobs=0), 1))
    world.clock.advance_ms(5000)
    assert post(world).status_code == 422


def test_excess_is_the_growth_beyond_a_bound() -> None:
    quotas = Quotas(max_jobs=2, max_fires_per_minute=1.0)
    assert excess(quotas, Usage(1, 0.5), Usage(2, 1.0)) is None
    assert excess(quotas, Usage(5, 0.5), Usage(4, 0.5)) is None
    assert excess(quotas, Usage(5, 3.0), Usage(5, 3.0)) is None
    found = excess(quotas, Usage(2, 0.9), Usage(2, 1.1))
    assert found is not None
    assert (found.quota, found.limit) == ("max_fires_per_minute", 1.0)
    assert excess(Quotas(), Usage(), Usage(10**9, 1e9, 10**15)) is None
    assert excess(quotas, Usage(0, 0.0), Usage(1, 10 * 0.1)) is None


@pytest.mark.parametrize(("now_ms", "wait_s"), [(0, 60), (1, 60), (1000, 59), (59_999, 1), (60_000, 60)])
def test_the_wait_reaches_into_the_next_minute(now_ms: int, wait_s: int) -> None:
    assert retry_after_s(now_ms) == wait_s
