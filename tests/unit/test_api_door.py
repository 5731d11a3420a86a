"""What every request gets: health, ids, headers, idempotency, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from werkzeug.test import TestResponse

from cronkeeper.errors import UnknownOutcomeError
from cronkeeper.ports import ABANDONED_MS, JobQuery, JobStore, Role, RunStore
from tests.harness.api import JOB, World


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def _once(world: World, path: str, key: str, **rest: Any) -> TestResponse:
    return world.call("POST", path, headers={"Idempotency-Key": key}, **rest)


def test_readyz_tells_haproxy_what_it_needs(world: World) -> None:
    assert world.call("GET", "/readyz", role=None).get_json() == {"status": "ok", "mysql": "ok", "zookeeper": "ok"}
    world.coordinator.cut()
    answer = world.call("GET", "/readyz", role=None)
    assert (answer.status_code, answer.get_json()["zookeeper"]) == (200, "away")
    world.store.set_available(False)
    world.clock.advance_ms(1000)
    answer = world.call("GET", "/readyz", role=None)
    assert (answer.status_code, answer.get_json()["detail"]) == (503, "MySQL does not answer")
    world.store.set_available(True)
    world.clock.advance_ms(1000)
    assert world.call("GET", "/readyz", role=None).status_code == 200


def test_a_server_that_drains_is_not_ready_but_still_answers(world: World) -> None:
    world.draining = True
    assert world.call("GET", "/readyz", role=None).status_code == 503
    assert world.call("POST", "/jobs", json=JOB).status_code == 201


def test_mysql_is_asked_once_a_second_however_many_ask_us(world: World) -> None:
    for _ in range(10):
        world.call("GET", "/readyz", role=None)
    assert world.store.calls("ping") == 1


def test_healthz_asks_nobody(world: World) -> None:
    world.store.set_available(False)
    world.coordinator.cut()
    assert world.call("GET", "/healthz", role=None).status_code == 200


def test_the_request_s_id_is_everywhere(world: World) -> None:
    answer = world.call("GET", "/jobs/1", headers={"X-Request-Id": "abc-123"})
    assert answer.headers["X-Request-Id"] == answer.get_json()["instance"] == "abc-123"
    forged = world.call("GET", "/jobs/1", headers={"X-Request-Id": "x" * 100})
    assert len(forged.headers["X-Request-Id"]) == 32


def test_every_answer_is_safe_in_a_browser(world: World) -> None:
    for path in ("/jobs", "/docs", "/openapi.json", "/nowhere", "/runs/1-0-1-1/log", "/metrics", "/healthz", "/audit"):
        for role in (Role.ADMIN, None):
            answer = world.call("GET", path, role=role)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/job", "/jobs//1", "//jobs", "/jobs/1/nothing", "/static/x", "/jobs/%2e%2e"])
def test_an_unknown_path_is_a_problem(path: str, world: World) -> None:
    answer = world.call("GET", path)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


class Failing:
    """A store of jobs of which one method fails in a way of its own."""

    def __init__(self, jobs: JobStore, method: str, error: Exception) -> None:
        self._jobs = jobs
        self._method = method
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            raise self._error
        return getattr(self._jobs, name)


def test_an_unexpected_fault_tells_nothing_of_us(world: World) -> None:
    world.store.jobs = Failing(world.store.jobs, "page", ZeroDivisionError("secret detail"))
    answer = world.call("GET", "/jobs")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in answer.get_data(as_text=True)
    assert "Traceback" not in answer.get_data(as_text=True)


def test_the_same_request_again_gets_the_same_answer(world: World) -> None:
    first = _once(world, "/jobs", "k1", json=JOB)
    second = _once(world, "/jobs", "k1", json=JOB)
    assert (second.status_code, second.data) == (201, first.data)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (second.headers["ETag"], second.headers["Location"]) == (first.headers["ETag"], first.headers["Location"])
    assert "Idempotent-Replayed" not in first.headers
    assert len(world.store.jobs.page(JobQuery())) == 1


def test_a_key_belongs_to_one_body_one_path_and_one_token(world: World) -> None:
    _once(world, "/jobs", "k1", json=JOB)
    answer = _once(world, "/jobs", "k1", json={**JOB, "schedule": "6 * * * *"})
    assert (answer.status_code, answer.get_json()["type"]) == (422, "/problems/key-reused")
    assert _once(world, "/jobs/1/run", "k1").status_code == 202
    assert _once(world, "/jobs", "k1", json=JOB, role=Role.ADMIN).get_json()["id"] == "2"


def test_a_run_on_demand_happens_once_for_a_key(world: World) -> None:
    world.post_job()
    first, second = (_once(world, "/jobs/1/run", "run-1") for _ in range(2))
    assert first.get_json()["id"] == second.get_json()["id"]
    assert len(world.store.runs.history(1, limit=10)) == 1


def test_a_request_that_saved_nothing_frees_its_key(world: World) -> None:
    assert _once(world, "/jobs", "k1", json={**JOB, "schedule": "x"}).status_code == 422
    assert _once(world, "/jobs", "k1", json=JOB).status_code == 201
    world.store.fail_next("jobs.create")
    assert _once(world, "/jobs", "k2", json=JOB).status_code == 503
    assert _once(world, "/jobs", "k2", json=JOB).status_code == 201


def test_a_request_whose_outcome_is_unknown_keeps_its_key(world: World) -> None:
    sound = world.store.jobs
    world.store.jobs = Failing(sound, "create", UnknownOutcomeError("the answer was lost"))
    answer = _once(world, "/jobs", "k1", json=JOB)
    world.store.jobs = sound
    assert (answer.status_code, answer.get_json()["type"]) == (500, "/problems/unknown-outcome")
    again = _once(world, "/jobs", "k1", json=JOB)
    assert (again.status_code, again.get_json()["type"], again.headers["Retry-After"]) == (
        409,
        "/problems/in-flight",
        "1",
    )
    assert world.store.jobs.page(JobQuery()) == []
    world.clock.advance_ms(ABANDONED_MS)
    assert _once(world, "/jobs", "k1", json=JOB).status_code == 201
    assert len(world.store.jobs.page(JobQuery())) == 1


@pytest.mark.parametrize("wait_ms", [0, 2 * ABANDONED_MS])
def test_an_answer_that_cannot_be_kept_is_made_again_from_what_was_saved(wait_ms: int, world: World) -> None:
    world.store.fail_next("idempotency.finish")
    first = _once(world, "/jobs", "k1", json=JOB)
    world.clock.advance_ms(wait_ms)
    second = _once(world, "/jobs", "k1", json=JOB)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.get_json() == first.get_json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (second.headers["ETag"], second.headers["Location"]) == (first.headers["ETag"], first.headers["Location"])
    assert len(world.store.jobs.page(JobQuery())) == 1


@pytest.mark.parametrize("shards", [1, 3])
def test_runs_whose_answer_cannot_be_kept_are_not_asked_for_twice(shards: int, world: World) -> None:
    world.post_job(shards=shards)
    world.store.fail_next("idempotency.finish")
    first, second = (_once(world, "/jobs/1/run", "k1") for _ in range(2))
    assert (second.status_code, second.get_json()) == (202, first.get_json())
    assert second.headers["Location"] == first.headers["Location"]
    assert len(world.store.runs.history(1, limit=10)) == shards


def test_a_job_that_is_gone_is_not_made_again_for_its_key(world: World) -> None:
    world.store.fail_next("idempotency.finish")
    _once(world, "/jobs", "k1", json=JOB)
    assert world.call("DELETE", "/jobs/1?purge=true", role=Role.ADMIN).status_code == 204
    assert _once(world, "/jobs", "k1", json=JOB).status_code == 404
    assert world.store.jobs.page(JobQuery()) == []


class Overtaken:
    """A store of runs in which the owner of a request sleeps before it saves, until another server takes it over."""

    def __init__(self, world: World) -> None:
        self._runs = world.store.runs
        self._world = world
        self.answers: list[TestResponse] = []

    def __getattr__(self, name: str) -> Any:
        if name == "request" and not self.answers:
            self._world.store.runs = self._runs
            self._world.clock.advance_ms(ABANDONED_MS)
            self.answers.append(_once(self._world, "/jobs/1/run", "k1"))
        return getattr(self._runs, name)


def test_a_server_that_was_taken_for_dead_saves_nothing(world: World) -> None:
    world.post_job()
    overtaken = Overtaken(world)
    world.store.runs = cast(RunStore, overtaken)
    late = _once(world, "/jobs/1/run", "k1")
    assert [answer.status_code for answer in overtaken.answers] == [202]
    assert late.status_code == 409
    assert len(world.store.runs.history(1, limit=10)) == 1
    assert _once(world, "/jobs/1/run", "k1").data == overtaken.answers[0].data


def test_an_apply_whose_answer_is_unknown_may_be_done_again(world: World) -> None:
    body = {"jobs": [{**JOB, "name": "a"}]}
    world.store.fail_next("idempotency.finish")
    assert len(_once(world, "/apply", "k1", json=body).get_json()["created"]) == 1
    assert _once(world, "/apply", "k1", json=body).status_code == 409
    world.clock.advance_ms(ABANDONED_MS)
    assert len(_once(world, "/apply", "k1", json=body).get_json()["unchanged"]) == 1


def test_requests_are_counted_by_route_and_never_by_what_users_write(world: World) -> None:
    world.post_job(name="listing")
    world.call("GET", "/jobs/1")
    world.call("GET", "/jobs/12345")
    world.call("BREW", "/no/such/path")
    text = world.call("GET", "/metrics", role=Role.VIEWER).get_data(as_text=True)
    assert 'cronkeeper_api_requests_total{method="GET",route="/jobs/<job_id>",status="200"} 1.0' in text
    assert 'cronkeeper_api_requests_total{method="GET",route="/jobs/<job_id>",status="404"} 1.0' in text
    assert 'route="none",status="404"} 1.0' in text
    assert "cronkeeper_zookeeper_connected 1.0" in text
    assert "12345" not in text
    assert "BREW" not in text
    assert "listing" not in text
