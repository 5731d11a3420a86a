"""Who may do what: every route with every role, and every way to be nobody."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest

from cronkeeper.ports import Role
from cronkeeper_api.app import check_routes, routes_of
from cronkeeper_api.routing import Access, Route
from cronkeeper_api.views import all_routes
from tests.harness.api import JOB, World

#: Who may use what. A new route must be added here, deliberately.
MATRIX = {
    "GET /jobs": "viewer",
    "POST /jobs": "operator",
    "GET /jobs/{job_id}": "viewer",
    "PUT /jobs/{job_id}": "operator",
    "PATCH /jobs/{job_id}": "operator",
    "DELETE /jobs/{job_id}": "operator",
    "POST /jobs/{job_id}/pause": "operator",
    "POST /jobs/{job_id}/resume": "operator",
    "POST /jobs/{job_id}/run": "operator",
    "POST /jobs/{job_id}/backfill": "operator",
    "POST /jobs/{job_id}/reassign": "admin",
    "GET /jobs/{job_id}/next": "viewer",
    "GET /jobs/{job_id}/runs": "viewer",
    "GET /jobs/{job_id}/why": "viewer",
    "GET /jobs/{job_id}/missed": "viewer",
    "GET /events": "viewer",
    "GET /forecast": "viewer",
    "POST /preview": "viewer",
    "POST /apply": "operator",
    "GET /calendars": "viewer",
    "GET /calendars/{name}": "viewer",
    "PUT /calendars/{name}": "operator",
    "DELETE /calendars/{name}": "operator",
    "POST /calendars/refresh": "operator",
    "GET /runs/{run_id}": "viewer",
    "GET /runs/{run_id}/log": "viewer",
    "POST /runs/{run_id}/cancel": "operator",
    "GET /workers": "viewer",
    "GET /workers/{worker_id}": "viewer",
    "POST /workers/{worker_id}/cordon": "admin",
    "POST /workers/{worker_id}/uncordon": "admin",
    "POST /workers/{worker_id}/drain": "admin",
    "POST /plan": "admin",
    "GET /namespaces": "viewer",
    "GET /namespaces/{namespace}": "viewer",
    "PUT /namespaces/{namespace}": "admin",
    "GET /secrets": "viewer",
    "PUT /secrets/{name}": "operator",
    "POST /secrets/rotate": "admin",
    "DELETE /secrets/{name}": "operator",
    "GET /tokens": "admin",
    "POST /tokens": "admin",
    "DELETE /tokens/{token_id}": "admin",
    "GET /denials": "admin",
    "POST /denials": "admin",
    "DELETE /denials/{denial_id}": "admin",
    "POST /resign": "admin",
    "GET /audit": "admin",
    "GET /audit/verify": "admin",
    "GET /healthz": "public",
    "GET /readyz": "public",
    "GET /metrics": "viewer",
    "GET /openapi.json": "viewer",
    "GET /docs": "viewer",
}
ROUTES = all_routes(metrics=Access.VIEWER)
GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]
RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def _path(route: Route) -> str:
    return (
        route.path.replace("{job_id}", "999")
        .replace("{run_id}", "x")
        .replace("{worker_id}", "w")
        .replace("{token_id}", "999")
        .replace("{denial_id}", "999")
    )


def test_every_route_is_in_the_matrix() -> None:
    assert {route.endpoint: str(route.access) for route in ROUTES} == MATRIX


def test_every_path_of_the_application_is_a_declared_route(world: World) -> None:
    rules = {(rule.rule, method) for rule in world.app.url_map.iter_rules() for method in rule.methods or ()}
    declared = {(route.path.replace("{", "<").replace("}", ">"), route.method) for route in ROUTES}
    assert {(path, method) for path, method in rules if method != "HEAD"} == declared


def test_a_path_that_says_nothing_about_who_may_use_it_stops_the_server(world: World) -> None:
    other = World()
    other.app.add_url_rule("/backdoor", endpoint="backdoor", view_func=lambda: "open")
    with pytest.raises(RuntimeError, match="backdoor"):
        check_routes(other.app, routes_of(other.services))
    other.close()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.endpoint)
def test_a_role_opens_what_it_should_and_nothing_else(route: Route, role: Role, world: World) -> None:
    answer = world.call(route.method, _path(route), role=role)
    allowed = RANK[role] >= RANK[Role(route.access)]
    assert (answer.status_code == 403) is not allowed, answer.get_data(as_text=True)
    assert answer.status_code != 401
    if not allowed:
        assert str(route.access) in answer.get_json()["detail"]


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.endpoint)
def test_nobody_gets_in_anywhere(route: Route, world: World) -> None:
    answer = world.call(route.method, _path(route), role=None)
    assert (answer.status_code, answer.get_json()["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer null",
        "Bearer ck_",
        "Bearer ck_" + "A" * 43,
        "Bearer ck_" + "A" * 10_000,
        "Basic dXNlcjpwYXNz",
        "Token {token}",
        "{token}",
        "Bearer  {token}",
        "Bearer {token} ",
        "Bearer {token}, Bearer {token}",
        "Bearer {token}x",
        "bearer\t{token}",
    ],
)
def test_a_token_that_is_not_quite_one_is_none(header: str, world: World) -> None:
    sent = {"Authorization": header.replace("{token}", world.tokens[Role.ADMIN])}
    assert world.call("GET", "/jobs", role=None, headers=sent).status_code == 401


def test_a_token_in_the_url_is_not_looked_at(world: World) -> None:
    token = world.tokens[Role.ADMIN]
    assert world.call("GET", f"/jobs?token={token}", role=None).status_code == 401


def test_two_authorization_headers_are_none(world: World) -> None:
    token = world.tokens[Role.ADMIN]
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert world.client.get("/jobs", headers=headers).status_code == 401


def test_the_store_away_lets_nobody_in() -> None:
    world = World()
    world.store.set_available(False)
    answer = world.call("GET", "/jobs", role=Role.ADMIN)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert world.call("GET", "/healthz", role=None).status_code == 200
    world.close()


def test_a_known_token_is_believed_for_three_seconds_only() -> None:
    world = World()
    assert world.call("GET", "/healthz").status_code == 200
    assert world.call("GET", "/jobs").status_code == 200
    calls = world.store.calls("tokens.find")
    assert world.call("GET", "/jobs").status_code == 200
    assert world.store.calls("tokens.find") == calls
    world.clock.advance_ms(3001)
    world.call("GET", "/jobs")
    assert world.store.calls("tokens.find") == calls + 1
    world.close()


def test_a_token_lives_until_it_is_revoked() -> None:
    world = World()
    made = world.call("POST", "/tokens", role=Role.ADMIN, json={"name": "ci", "role": "operator"})
    assert made.status_code == 201
    secret = made.get_json()["token"]
    kept = repr(world.store.tokens.all())
    assert secret not in kept and hashlib.sha256(secret.encode()).hexdigest() in kept
    assert len(base64.urlsafe_b64decode(secret.removeprefix("ck_") + "=")) == 32
    headers = {"Authorization": f"Bearer {secret}"}
    assert world.call("POST", "/jobs", role=None, headers=headers, json=JOB).status_code == 201
    listed = world.call("GET", "/tokens", role=Role.ADMIN)
    assert secret not in listed.get_data(as_text=True)
    assert [token["name"] for token in listed.get_json()][-1] == "ci"
    assert world.call("DELETE", f"/tokens/{made.get_json()['id']}", role=Role.ADMIN).status_code == 204
    assert world.call("GET", "/jobs", role=None, headers=headers).status_code == 401
    assert world.call("GET", "/tokens", role=Role.ADMIN).get_json()[-1]["revoked_at"] == "2026-03-01T12:00:00Z"
    world.close()


def test_a_token_revoked_elsewhere_is_refused_within_five_seconds() -> None:
    world = World()
    world.call("GET", "/jobs")
    token = next(token for token in world.store.tokens.all() if token.role is Role.OPERATOR)
    world.store.tokens.revoke(token.id, at_ms=world.clock.now_ms())
    world.clock.advance_ms(5000)
    assert world.call("GET", "/jobs").status_code == 401
    world.close()


def test_a_token_expires() -> None:
    world = World()
    body = {"name": "guest", "role": "viewer", "expires_at": "2026-03-01T12:00:10Z"}
    made = world.call("POST", "/tokens", role=Role.ADMIN, json=body).get_json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert world.call("GET", "/jobs", role=None, headers=headers).status_code == 200
    world.clock.advance_ms(10_000)
    assert world.call("GET", "/jobs", role=None, headers=headers).status_code == 401
    past = {**body, "expires_at": "2020-01-01T00:00:00Z"}
    assert world.call("POST", "/tokens", role=Role.ADMIN, json=past).status_code == 422
    world.close()


def test_metrics_can_be_made_public() -> None:
    world = World(metrics_public=True)
    assert world.call("GET", "/metrics", role=None).status_code == 200
    world.close()
