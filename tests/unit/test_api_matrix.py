"""The authorization matrix, made of the route table: every route, as everybody, on what is theirs and what is not.

What is expected follows from how a route is declared. A route with an id in its path that reaches into namespaces needs
an object of team-a in `_objects`, or this fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from werkzeug.test import TestResponse

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.domain.scope import EVERYWHERE, NOWHERE, Scope, scope_of
from cronkeeper.ports import Event, Fire, Missed, Role
from cronkeeper_api.routing import Access, Reach, Route
from cronkeeper_api.views import all_routes
from tests.harness.api import JOB, NOON_MS, World

ROUTES = all_routes(metrics=Access.VIEWER)
GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]
INTO_NAMESPACES = [route for route in GUARDED if route.reach is Reach.NAMESPACES]
WITH_OBJECT = [route for route in INTO_NAMESPACES if "{" in route.path]
RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}
#: Whose token: of the namespace that holds the objects, of another one, of all, of none.
SCOPES = {"own": scope_of(["team-a"]), "foreign": scope_of(["team-b"]), "all": EVERYWHERE, "none": NOWHERE}
CANARY = "alpha-canary"
HOSTILE: list[Any] = [{}, None, "", [], "*", " ", ",", {"all": True}, {"": ""}, True, 0]


class Town:
    """A world with a job, a run, a missed fire and an event in team-a, and a job in team-b."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(**settings)
        self.job = self._make("team-a", CANARY)
        self.other = self._make("team-b", "beta")
        store = self.world.store
        run = self.world.call("POST", f"/jobs/{self.job}/run", role=Role.OPERATOR).get_json()
        task = TaskId(int(self.job), 0)
        term = store.terms.take("m")
        missed = Missed(Fire(task, NOON_MS - 60_000), "unknown", CANARY, NOON_MS)
        store.audit.save(store.audit.mark(), missed=[missed], withdrawn=[], events=[], term=term)
        store.events.add([Event(NOON_MS, "fire.missed", str(task), CANARY)])
        store.events.add([Event(NOON_MS, "worker.lost", str(task), CANARY), Event(NOON_MS, "x", "fleet", CANARY)])
        store.assignments.save([Assignment(task, "node-3", 1, 1, MoveReason.NEW, NOON_MS)], term=term)
        for name in ("node-3", "node-7"):
            store.leases.beat(WorkerInfo(name, name), local_ms=NOON_MS)
        self.objects = {"job_id": self.job, "run_id": run["id"], "worker_id": "node-3", "token_id": "1"}
        made = self.world.call(
            "PUT", "/calendars/days?namespace=team-a", json={"description": CANARY, "exclude": ["2027-01-01"]}
        )
        assert made.status_code == 201
        secret = self.world.call("PUT", "/secrets/days?namespace=team-a", json={"value": CANARY})
        assert secret.status_code == 200
        # So that they stay for everybody who tries to remove them.
        used = {"calendar": {"named": ["days"]}, "env": {"P": {"secret": "days"}}}
        assert self.world.call("PATCH", f"/jobs/{self.job}", json=used).status_code == 200
        self.objects["name"] = "days"
        self.objects["namespace"] = "team-a"
        self.tokens = {
            (role, name): self.world.services.tokens.create(name=f"{role}-{name}", role=role, scope=scope)[1]
            for role, (name, scope) in product(Role, SCOPES.items())
        }

    def _make(self, namespace: str, name: str) -> str:
        made = self.world.post_job(namespace=namespace, name=name, labels={"app": name}, description=name)
        return str(made["id"])

    def call(self, route: Route, role: Role, whose: str, **changes: Any) -> TestResponse:
        """Call a route with its example, on what is team-a's."""
        headers = {"Authorization": f"Bearer {self.tokens[role, whose]}"}
        if "{" in route.path and any(param.name == "namespace" for param in route.params):
            changes.setdefault("query_string", {"namespace": "team-a"})
        return self.world.call(
            route.method, _path(route, self.objects), role=None, headers=headers, **_body(route) | changes
        )

    def state(self, job_id: str) -> object:
        """Return all that a caller could have changed of a job."""
        store, number = self.world.store, int(job_id)
        moves = {task: wish for task, wish in store.move_requests.all().items() if task.job_id == number}
        return store.jobs.get(number), store.runs.history(number, limit=100), moves


@pytest.fixture
def town() -> Iterator[Town]:
    found = Town()
    yield found
    found.world.close()


@pytest.fixture(scope="module")
def quiet() -> Iterator[Town]:
    """A town in which nothing changes."""
    found = Town()
    yield found
    found.world.close()


def _path(route: Route, objects: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[1] in objects:
            return objects[match[1]]
        assert route.reach is Reach.FLEET, f"{route.endpoint}: say in Town.objects which {match[1]} of team-a there is"
        return "x"

    return re.sub(r"\{(\w+)\}", fill, route.path)


def _body(route: Route) -> dict[str, Any]:
    if route.body is None:
        return {}
    body = dict(route.example or {})
    if route.method != "PATCH" and "namespace" in route.body.model_fields:
        body["namespace"] = "team-a"
    return {"json": body}


def expected(route: Route, role: Role, whose: str) -> set[int]:
    """Return the statuses that a caller may get for what is team-a's."""
    if RANK[role] < RANK[Role(route.access)] or (route.reach is Reach.FLEET and whose != "all"):
        return {403}
    fine = {200, 201, 202, 204, 409, 422, 503}
    if route.reach is not Reach.NAMESPACES or whose in ("own", "all"):
        # A worker or a token of the examples need not exist; a job or a run of one's own does.
        return fine | ({404} if route.reach is Reach.FLEET else set())
    if "{" in route.path:
        return {404}
    return {200} if route.method == "GET" else {200, 422}


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.endpoint)
def test_everybody_gets_what_the_declaration_says(route: Route, town: Town) -> None:
    for role, whose in product(Role, SCOPES):
        before = [town.state(job) for job in (town.job, town.other)]
        answer = town.call(route, role, whose)
        told = (role, whose, text := answer.get_data(as_text=True))
        assert answer.status_code in expected(route, role, whose), told
        # Nobody touches team-b's job: it is not the one that is asked for.
        assert town.state(town.other) == before[1], told
        if whose in ("none", "foreign"):
            assert town.state(town.job) == before[0], told
            assert CANARY not in text or route.reach is not Reach.NAMESPACES, told
        elif route.reach is Reach.NAMESPACES and route.method == "GET" and RANK[role] >= RANK[Role(route.access)]:
            assert answer.status_code == 200, told


@pytest.mark.parametrize("route", WITH_OBJECT, ids=lambda route: route.endpoint)
def test_a_foreign_object_looks_as_if_it_did_not_exist(route: Route, town: Town) -> None:
    there = town.call(route, Role.ADMIN, "foreign")
    gone = {"namespace": "team-c", "job_id": "99", "run_id": town.objects["run_id"].replace(f"{town.job}-", "99-", 1)}
    real, town.objects = town.objects, {**town.objects, **gone}
    absent = town.call(route, Role.ADMIN, "foreign")
    assert there.status_code == absent.status_code == 404
    assert _blanked(there, real) == _blanked(absent, gone)
    assert set(there.headers.keys()) == set(absent.headers.keys())


def _blanked(answer: TestResponse, objects: dict[str, str]) -> str:
    text = json.dumps({**answer.get_json(), "instance": ""})
    text = re.sub(r"\bteam-[ac]\b", "namespace", text)
    for name in ("run_id", "job_id"):
        text = re.sub(rf"\b{objects[name]}\b", name, text)
    return text


@pytest.mark.parametrize(
    "route", [route for route in WITH_OBJECT if "namespace" not in route.path], ids=lambda r: r.endpoint
)
def test_a_foreign_row_that_cannot_be_read_does_not_say_that_it_exists(route: Route, town: Town) -> None:
    town.world.store.spoil_job(int(town.job))
    assert town.call(route, Role.ADMIN, "foreign").status_code == 404


@pytest.mark.parametrize("token", [None, "ck_" + "A" * 43, "garbage"])
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.endpoint)
def test_nobody_gets_in_by_any_method(route: Route, token: str | None, quiet: Town) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    path = _path(route, quiet.objects)
    for method in (route.method, *(["HEAD"] if route.method == "GET" else [])):
        assert quiet.world.call(method, path, role=None, headers=headers).status_code == 401, method
    for method in ("OPTIONS", "TRACE", "CONNECT", "PROPFIND", "GETT"):
        answer = quiet.world.call(method, path, role=None, headers=headers)
        assert (answer.status_code, answer.get_json()["errors"]) == (405, []), method


@pytest.mark.parametrize("whose", ["own", "all"])
@pytest.mark.parametrize("route", [route for route in GUARDED if route.body is not None], ids=lambda r: r.endpoint)
def test_a_hostile_selector_never_means_all(route: Route, whose: str, town: Town) -> None:
    assert route.body is not None
    fields = [
        name for name in ("selector", "prune", "worker", "lose", "drain", "all") if name in route.body.model_fields
    ]
    for field, value in product(fields, HOSTILE):
        before = [town.state(job) for job in (town.job, town.other)]
        answer = town.call(route, Role.ADMIN, whose, json={**_body(route)["json"], field: value})
        told = (field, value, answer.get_data(as_text=True))
        assert answer.status_code < 500, told
        assert town.state(town.other) == before[1], told
        if "{" not in route.path:
            assert town.state(town.job) == before[0], told
        if field == "prune" and value is not None:
            assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "prune"), told


@pytest.mark.parametrize("text", ["", "app", "=", "app=", "=x", "*", "app=*"])
def test_a_hostile_label_lists_nothing_foreign(text: str, town: Town) -> None:
    headers = {"Authorization": f"Bearer {town.tokens[Role.ADMIN, 'foreign']}"}
    answer = town.world.call("GET", "/jobs", role=None, headers=headers, query_string={"label": text})
    assert answer.status_code in (200, 422)
    assert CANARY not in answer.get_data(as_text=True)


def test_a_job_cannot_be_moved_into_a_foreign_namespace(town: Town) -> None:
    headers = {"Authorization": f"Bearer {town.tokens[Role.ADMIN, 'own']}"}
    path = f"/jobs/{town.job}"
    for method, body in (("PATCH", {"namespace": "team-b"}), ("PUT", {**JOB, "namespace": "team-b"})):
        answer = town.world.call(method, path, role=None, headers=headers, json=body)
        assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "namespace")
    absent = town.world.call("PATCH", path, role=None, headers=headers, json={"namespace": "no-such"})
    assert absent.get_data(as_text=True).count("no-such") == 1
    both = town.world.services.tokens.create(name="both", role=Role.OPERATOR, scope=scope_of(["team-a", "team-b"]))[1]
    headers = {"Authorization": f"Bearer {both}"}
    body = {"namespace": "team-b", "calendar": None, "env": None}
    assert town.world.call("PATCH", path, role=None, headers=headers, json=body).status_code == 200


def test_apply_reaches_only_its_own_namespace(town: Town) -> None:
    headers = {"Authorization": f"Bearer {town.tokens[Role.ADMIN, 'own']}"}
    before = town.state(town.other)
    # The selector is one that every job matches.
    for jobs in ([], [{**JOB, "name": "beta"}]):
        body = {"namespace": "team-b", "jobs": jobs, "prune": "!no-such-label"}
        answer = town.world.call("POST", "/apply", role=None, headers=headers, json=body)
        assert (answer.status_code, answer.get_json()["errors"][0]["field"]) == (422, "namespace")
    body = {"namespace": "team-a", "jobs": [], "prune": "!no-such-label"}
    answer = town.world.call("POST", "/apply", role=None, headers=headers, json=body)
    assert [one["name"] for one in answer.get_json()["pruned"]] == [CANARY]
    assert town.state(town.other) == before


def test_lists_show_ones_own_only(town: Town) -> None:
    def ask(whose: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {town.tokens[Role.VIEWER, whose]}"}
        return town.world.call("GET", path, role=None, headers=headers).get_json()

    assert [job["id"] for job in ask("own", "/jobs")] == [town.job]
    assert [job["id"] for job in ask("own", "/jobs?namespace=team-b")] == []
    assert [job["id"] for job in ask("all", "/jobs")] == [town.job, town.other]
    assert ask("none", "/jobs") == []
    assert [event["kind"] for event in ask("own", "/events")] == ["fire.missed"]
    assert ask("foreign", "/events") == ask("foreign", f"/events?subject={town.job}/0") == []
    assert len(ask("all", "/events")) == 3
    assert (ask("own", "/forecast")["jobs"], ask("all", "/forecast")["jobs"]) == (1, 2)
    assert ask("foreign", "/forecast?worker=node-3")["tasks"] == 0
    assert ask("own", "/forecast?worker=node-3")["tasks"] == 1
    assert [one["name"] for one in ask("own", "/namespaces")] == ["team-a"]
    assert [one["name"] for one in ask("all", "/namespaces")] == ["team-a", "team-b"]


def test_what_is_not_decided_is_closed(town: Town) -> None:
    from cronkeeper.errors import PermissionDeniedError

    narrow: Any = town.world.services.within(SCOPES["own"]).store
    for refused in (narrow.tokens.all, narrow.leases.leases, narrow.jobs.plan_rows, narrow.runs.lose, narrow.no.such):
        with pytest.raises(PermissionDeniedError):
            refused()


def test_only_what_is_declared_so_takes_a_token_of_some_namespaces() -> None:
    shared = {route.endpoint for route in ROUTES if route.reach is Reach.SHARED}
    assert shared == {
        "GET /workers",
        "GET /workers/{worker_id}",
        "GET /healthz",
        "GET /readyz",
        "GET /openapi.json",
        "GET /docs",
    }
    fleet = {route.endpoint for route in GUARDED if "{" not in route.path and route.reach is Reach.NAMESPACES}
    # Without an id in the path nothing but `Call.services` keeps them within the caller's namespaces.
    assert fleet == {
        "GET /jobs",
        "POST /jobs",
        "POST /preview",
        "POST /apply",
        "GET /forecast",
        "GET /events",
        "GET /namespaces",
        "GET /calendars",
        "POST /calendars/refresh",
        "GET /secrets",
    }
    assert all(
        route.path.startswith(
            ("/jobs/{job_id}", "/runs/{run_id}", "/namespaces/{namespace}", "/calendars/{name}", "/secrets/{name}")
        )
        for route in WITH_OBJECT
    )


@pytest.mark.parametrize("names", [[], ["*", "team-a"], ["Team"], [""], ["a,b"], ["a"] * 51, "team-a", None])
def test_a_token_of_no_clear_namespaces_is_not_made(names: Any, town: Town) -> None:
    body = {"name": "ci", "role": "viewer", "namespaces": names}
    answer = town.world.call("POST", "/tokens", role=Role.ADMIN, json=body)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"].startswith("namespaces")


def test_a_token_is_made_for_namespaces_and_shows_them(town: Town) -> None:
    body = {"name": "ci", "role": "viewer", "namespaces": ["team-b", "team-a"]}
    made = town.world.call("POST", "/tokens", role=Role.ADMIN, json=body).get_json()
    assert made["namespaces"] == ["team-a", "team-b"]
    plain = town.world.call("POST", "/tokens", role=Role.ADMIN, json={"name": "ci", "role": "viewer"}).get_json()
    assert plain["namespaces"] == ["*"]
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert len(town.world.call("GET", "/jobs", role=None, headers=headers).get_json()) == 2


def test_a_scope_that_cannot_be_read_is_nothing() -> None:
    from cronkeeper.domain.scope import read_scope

    for text in ("", ",", "*,a", "A", "a,,b", " *", "a b"):
        assert read_scope(text) == NOWHERE, text
    assert read_scope("*") == EVERYWHERE
    assert read_scope("a,b") == Scope(frozenset({"a", "b"}))
