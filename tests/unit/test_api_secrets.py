"""Secrets over HTTP: set, named in jobs, never answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.scope import Scope
from cronkeeper.domain.secret_env import MAX_NAMED, MAX_VALUE_BYTES
from cronkeeper.domain.server_fields import SERVER_FIELDS
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import JobStore, Role
from cronkeeper.wire.sealed import NO_KEYS, SecretsKeys
from cronkeeper_manager.service import Caller
from tests.harness.api import NOON_MS, World, fields_of

CANARY = "c4nary value"
ENV = {"A": "plain", "PGPASSWORD": {"secret": "pg"}, "KEY": {"secret": "pg", "as": "file"}}


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def put(world: World, value: str = CANARY, name: str = "pg", **more: Any) -> dict[str, Any]:
    answer = world.call("PUT", f"/secrets/{name}", json={"value": value}, **more)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def value_of(world: World, job_id: int = 1) -> str:
    """What a run of the job would get, by its signed task."""
    job = world.store.jobs.get(job_id)
    spec = world.verifier.open(job.envelope, job_id=job.id).spec
    sealed = spec.secrets.sealed["pg"]
    return world.secrets_keys.open(sealed.box, namespace=spec.namespace, name="pg", version=sealed.version)


def test_a_secret_is_listed_without_its_value(world: World) -> None:
    told = {
        "name": "pg", "namespace": "default", "version": 1, "updated_at": "2026-03-01T12:00:00Z",
        "updated_by": "the-operator",
    }  # fmt: skip
    assert put(world) == {**told, "changed_jobs": []}
    answer = world.call("GET", "/secrets", role=Role.VIEWER)
    assert answer.get_json() == [told]
    assert world.call("GET", "/secrets?namespace=other").get_json() == []
    assert CANARY not in answer.get_data(as_text=True)


def test_a_job_names_secrets_and_holds_them_sealed(world: World) -> None:
    put(world)
    job = world.post_job(env=ENV)
    assert (job["env"], job["secret_versions"]) == (ENV, {"pg": 1})
    assert "sealed" not in job
    assert world.call("GET", "/jobs/1").get_json()["env"] == ENV
    assert value_of(world) == CANARY
    stored = world.store.jobs.get(1)
    assert CANARY.encode() not in stored.envelope
    assert CANARY not in repr(stored)


def test_as_env_is_what_a_secret_is_unless_told(world: World) -> None:
    put(world)
    assert world.post_job(env={"X": {"secret": "pg", "as": "env"}})["env"] == {"X": {"secret": "pg"}}


def test_what_get_shows_may_be_put_back_and_changes_nothing(world: World) -> None:
    put(world)
    job = world.post_job(env=ENV, name="backup")
    sent = {key: value for key, value in job.items() if key not in SERVER_FIELDS}
    assert world.call("PUT", "/jobs/1", json=sent).get_json()["generation"] == 1
    applied = world.call("POST", "/apply", json={"jobs": [sent]}).get_json()
    assert [one["name"] for one in applied["unchanged"]] == ["backup"]
    assert fields_of(world.call("POST", "/jobs", json={**sent, "name": "b", "sealed": {}, "secret_versions": {}})) == {
        "sealed",
        "secret_versions",
    }


@pytest.mark.parametrize(
    ("env", "field", "words"),
    [
        ({"P": {"secret": "pgg"}}, "env.P.secret", "did you mean pg?"),
        ({"P": {"secret": "nothing-like-it"}}, "env.P.secret", "set it first"),
        ({"P": {"secret": "no name!"}}, "env.P.secret", "the name of a secret"),
        ({"P": {"secret": ""}}, "env.P.secret", "the name of a secret"),
        ({"P": {"secret": 7}}, "env.P", "names no secret"),
        ({"P": {}}, "env.P", "names no secret"),
        ({"P": {"secret": "pg", "as": "argv"}}, "env.P", "neither env nor file"),
        ({"P": {"secret": "pg", "file": True}}, "env.P", "file is not a field here"),
        ({"P": ["pg"]}, "env.P", "neither a text nor a secret"),
        ({"P": None}, "env.P", "neither a text nor a secret"),
        ({"P": "x" * 4097}, "env.P", "longer than 4096"),
        ({"1P": {"secret": "pg"}}, "env.1P", "not a variable's name"),
        ({"CRONKEEPER_X": {"secret": "pg"}}, "env.CRONKEEPER_X", "set by us"),
        ({f"V{n}": {"secret": f"s{n}"} for n in range(MAX_NAMED + 1)}, "env", "names 17 secrets"),
    ],
)
def test_what_is_no_use_of_a_secret_is_refused_at_its_variable(
    world: World, env: dict[str, Any], field: str, words: str
) -> None:
    put(world)
    job = {"executable": "ls", "schedule": "@hourly", "type": "command", "env": env}
    for method, path, body in (("POST", "/jobs", job), ("POST", "/preview", job)):
        answer = world.call(method, path, json=body)
        assert answer.status_code == 422
        fault = next(error for error in answer.get_json()["errors"] if error["field"] == field)
        assert words in fault["message"] + fault["hint"]
    answer = world.call("POST", "/apply", json={"jobs": [{**job, "name": "a"}]})
    assert f"jobs[0].{field}" in fields_of(answer)


def test_a_secret_belongs_to_its_namespace(world: World) -> None:
    put(world)
    job = {"executable": "ls", "schedule": "@hourly", "type": "command", "env": ENV, "namespace": "team-a"}
    answer = world.call("POST", "/jobs", json=job)
    assert fields_of(answer) == {"env.PGPASSWORD.secret", "env.KEY.secret"}
    put(world, "theirs", query_string={"namespace": "team-a"})
    assert world.call("POST", "/jobs", json=job).status_code == 201
    assert value_of(world) == "theirs"


def test_a_token_of_some_namespaces_sees_and_sets_no_others(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    put(world, "theirs", query_string={"namespace": "team-a"})
    world.tokens[Role.OPERATOR] = world.services.tokens.create(
        name="a", role=Role.OPERATOR, scope=Scope(frozenset({"team-a"}))
    )[1]
    assert [one["namespace"] for one in world.call("GET", "/secrets").get_json()] == ["team-a"]
    assert world.call("GET", "/secrets?namespace=default").get_json() == []
    assert world.call("PUT", "/secrets/pg", json={"value": "taken"}).status_code == 404
    assert world.call("DELETE", "/secrets/pg?force=true").status_code == 404
    assert put(world, "mine", query_string={"namespace": "team-a"})["version"] == 2
    assert value_of(world) == CANARY


def test_a_new_value_reaches_the_jobs_that_use_it_from_now_on(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    world.post_job(env={"A": "plain"})
    paused = world.post_job(env={"X": {"secret": "pg"}}, name="paused")
    world.call("POST", f"/jobs/{paused['id']}/pause")
    world.clock.set_ms(NOON_MS + 5000)
    saved = put(world, "another value")
    assert (saved["version"], saved["changed_jobs"]) == (2, ["1", "3"])
    first, other, third = (world.store.jobs.get(number) for number in (1, 2, 3))
    assert (first.generation, first.effective_from_ms, first.updated_ms) == (2, NOON_MS + 5000, NOON_MS + 5000)
    assert (other.generation, third.generation, third.state) == (1, 3, "paused")
    assert (value_of(world), value_of(world, 3)) == ("another value", "another value")


def test_the_same_value_again_changes_nothing(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    again = put(world)
    assert (again["version"], again["changed_jobs"]) == (1, [])
    assert world.store.jobs.get(1).generation == 1


def test_a_put_that_broke_off_is_finished_by_the_next(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    world.store.fail_next("jobs.save_many")
    assert world.call("PUT", "/secrets/pg", json={"value": "another value"}).status_code == 503
    assert value_of(world) == CANARY
    saved = put(world, "another value")
    assert (saved["version"], saved["changed_jobs"]) == (2, ["1"])
    assert value_of(world) == "another value"


class Meanwhile:
    """A store of jobs in which somebody does something just before the first save."""

    def __init__(self, jobs: JobStore, act: Any) -> None:
        self._jobs = jobs
        self._act = act

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._jobs, name)
        if name not in ("create", "replace", "save_many") or self._act is None:
            return found
        act, self._act = self._act, None
        act()
        return found


@pytest.mark.parametrize("way", ["create", "patch", "apply"])
def test_a_job_that_is_saved_while_its_secret_is_set_gets_the_new_value(world: World, way: str) -> None:
    put(world)
    if way != "create":
        world.post_job(name="job")
    # Set by another server, which sees the job only once it is saved.
    other = World(store=world.store)
    world.store.jobs = Meanwhile(world.store.jobs, lambda: put(other, "another value"))
    if way == "create":
        assert world.post_job(env=ENV)["secret_versions"] == {"pg": 2}
    elif way == "patch":
        assert world.call("PATCH", "/jobs/1", json={"env": ENV}).get_json()["secret_versions"] == {"pg": 2}
    else:
        job = {"name": "job", "executable": "ls", "schedule": "@hourly", "type": "command", "env": ENV}
        assert world.call("POST", "/apply", json={"jobs": [job]}).status_code == 200
    assert value_of(world) == "another value"
    other.close()


def test_a_job_that_somebody_changes_meanwhile_gets_the_new_value_too(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    world.post_job(env=ENV)
    other = World(store=world.store)
    world.store.jobs = Meanwhile(
        world.store.jobs, lambda: other.call("PATCH", "/jobs/2", json={"description": "theirs"})
    )
    # Their save took the new value along.
    assert put(world, "another value")["changed_jobs"] == ["1"]
    assert (value_of(world), value_of(world, 2)) == ("another value", "another value")
    assert world.store.jobs.get(2).spec.description == "theirs"
    other.close()


def test_a_secret_in_use_is_deleted_only_by_force_and_its_jobs_go_without(world: World) -> None:
    put(world)
    world.post_job(env=ENV, name="backup")
    world.post_job(env=ENV)
    answer = world.call("DELETE", "/secrets/pg")
    assert answer.status_code == 409
    assert "jobs 1 (backup), 2" in answer.get_json()["detail"]
    assert world.call("DELETE", "/secrets/pg?force=true").status_code == 204
    assert world.call("GET", "/secrets").get_json() == []
    job = world.call("GET", "/jobs/1").get_json()
    assert (job["env"], job["secret_versions"], job["generation"]) == (ENV, {}, 2)
    assert world.store.jobs.get(1).spec.secrets.sealed == {}
    assert world.call("DELETE", "/secrets/pg?force=true").status_code == 404
    assert put(world, "back again")["changed_jobs"] == ["1", "2"]
    assert value_of(world) == "back again"


def test_a_secret_that_nobody_uses_is_deleted(world: World) -> None:
    put(world)
    assert world.call("DELETE", "/secrets/pg").status_code == 204
    assert world.call("DELETE", "/secrets/pg").status_code == 404
    assert world.call("DELETE", "/secrets/no%20name").status_code == 404


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("pg", {"value": ""}, "value"),
        ("pg", {"value": "a\0b"}, "value"),
        ("pg", {"value": "\ud800"}, "value"),
        ("pg", {"value": "x" * (MAX_VALUE_BYTES + 1)}, "value"),
        ("pg", {"value": "ü" * MAX_VALUE_BYTES}, "value"),
        ("pg", {"value": 17}, "value"),
        ("pg", {"value": [CANARY]}, "value"),
        ("pg", {}, "value"),
        ("pg", {"value": CANARY, "valeu": CANARY}, "valeu"),
        ("no%20name", {"value": CANARY}, "name"),
        ("-", {"value": CANARY}, "name"),
        ("x" * 129, {"value": CANARY}, "name"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_not_repeated(
    world: World, name: str, body: dict[str, Any], field: str
) -> None:
    answer = world.call("PUT", f"/secrets/{name}", data=json.dumps(body), content_type="application/json")
    assert (answer.status_code, fields_of(answer)) == (422, {field})
    assert CANARY not in answer.get_data(as_text=True)
    assert world.store.secrets.all() == []


def test_a_viewer_sets_and_deletes_nothing(world: World) -> None:
    put(world)
    assert world.call("PUT", "/secrets/pg", role=Role.VIEWER, json={"value": "x"}).status_code == 403
    assert world.call("DELETE", "/secrets/pg", role=Role.VIEWER).status_code == 403


def test_a_server_without_a_key_says_which_setting_is_missing() -> None:
    world = World(secrets_keys=NO_KEYS)
    answer = world.call("PUT", "/secrets/pg", json={"value": CANARY})
    assert answer.status_code == 422
    assert "secrets_key_files" in answer.get_json()["errors"][0]["hint"]
    assert CANARY not in answer.get_data(as_text=True)
    world.close()


def test_after_a_rotation_nothing_needs_the_old_key() -> None:
    old, new = bytes(range(50, 82)), bytes(range(82, 114))
    first = World(secrets_keys=SecretsKeys([old]))
    put(first)
    put(first, "theirs", name="other", query_string={"namespace": "team-a"})
    first.post_job(env=ENV)
    second = World(secrets_keys=SecretsKeys([new, old]), store=first.store)
    assert second.call("POST", "/secrets/rotate", role=Role.OPERATOR).status_code == 403
    second.store.fail_next("jobs.save_many")
    assert second.call("POST", "/secrets/rotate", role=Role.ADMIN).status_code == 503
    rotated = second.call("POST", "/secrets/rotate", role=Role.ADMIN).get_json()
    assert [(one["name"], one["version"], one["changed_jobs"]) for one in rotated] == [
        ("pg", 2, ["1"]),
        ("other", 2, []),
    ]
    second.secrets_keys = SecretsKeys([new])
    assert value_of(second) == CANARY
    assert second.call("POST", "/secrets/rotate", role=Role.ADMIN).get_json() == []
    assert (put(second)["version"], put(second)["changed_jobs"]) == (2, [])
    first.close()
    second.close()


def test_setting_the_same_value_seals_it_with_the_newest_key() -> None:
    first = World(secrets_keys=SecretsKeys([bytes(range(50, 82))]))
    put(first)
    second = World(secrets_keys=SecretsKeys([bytes(range(82, 114)), bytes(range(50, 82))]), store=first.store)
    assert put(second)["version"] == 2
    first.close()
    second.close()


def test_a_change_is_shown_by_versions(world: World) -> None:
    put(world)
    world.post_job(env=ENV, name="job")
    other = {"executable": "ls", "schedule": "@hourly", "type": "command", "name": "job", "env": {"A": "x"}}
    answer = world.call("POST", "/apply?dry_run=true", json={"jobs": [other]})
    fields = answer.get_json()["changed"][0]["fields"]
    assert fields["secret_versions"] == {"from": {"pg": 1}, "to": {}}
    assert "v1." not in answer.get_data(as_text=True)


def test_nothing_is_told_when_the_store_is_away(world: World) -> None:
    world.store.set_available(False)
    with pytest.raises(UnavailableError) as caught:
        world.services.secrets.put("default", "pg", CANARY, Caller("1", "me", Role.OPERATOR))
    assert CANARY not in str(caught.value)


def test_the_log_of_a_put_holds_no_value(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    put(world)
    assert caplog.records
    assert not [record for record in caplog.records if CANARY in repr(record.__dict__)]


def test_the_trail_tells_who_set_a_secret_and_no_value(world: World) -> None:
    put(world)
    put(world)
    put(world, "another c4nary")
    assert world.call("DELETE", "/secrets/pg").status_code == 204
    told = [entry for entry in world.store.trail.waiting(limit=100) if entry.kind == "secret"]
    assert [(entry.action, entry.object_id, entry.namespace, entry.old, entry.new) for entry in told] == [
        ("secret.set", "pg", "default", "", '{"version":1}'),
        ("secret.set", "pg", "default", '{"version":1}', '{"version":2}'),
        ("secret.deleted", "pg", "default", '{"version":2}', ""),
    ]
    assert {entry.actor.name for entry in told} == {"the-operator"}


def test_the_trail_of_a_job_holds_no_sealed_copy(world: World) -> None:
    put(world)
    world.post_job(env=ENV)
    put(world, "another value")
    world.call("DELETE", "/jobs/1?purge=true")
    assert "v1." not in repr(world.store.trail.waiting(limit=100))
