"""The OpenAPI document: well-formed, complete, and true."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Role
from cronkeeper_api.problems import KINDS
from cronkeeper_api.routing import Access
from cronkeeper_api.views import all_routes
from tests.harness.api import JOB, NOON_MS, World

#: The rules of OpenAPI 3.1 that a document of ours could break.
META = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components", "security"],
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "put", "post", "delete", "patch"]},
                "additionalProperties": {"$ref": "#/$defs/operation"},
            },
        },
        "components": {
            "type": "object",
            "required": ["schemas", "securitySchemes"],
            "properties": {
                "schemas": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9._-]+$"}},
                "securitySchemes": {"type": "object", "additionalProperties": {"required": ["type"]}},
            },
        },
    },
    "$defs": {
        "operation": {
            "type": "object",
            "required": ["operationId", "summary", "responses"],
            "properties": {
                "parameters": {"type": "array", "items": {"$ref": "#/$defs/parameter"}},
                "requestBody": {"type": "object", "required": ["content"]},
                "responses": {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": "^[1-5][0-9][0-9]$"},
                    "additionalProperties": {"type": "object", "required": ["description"]},
                },
            },
        },
        "parameter": {
            "type": "object",
            "required": ["name", "in", "schema"],
            "properties": {"in": {"enum": ["query", "path", "header"]}},
            "if": {"properties": {"in": {"const": "path"}}},
            "then": {"required": ["required"], "properties": {"required": {"const": True}}},
        },
    },
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


@pytest.fixture(scope="module")
def document(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.call("GET", "/openapi.json", role=Role.VIEWER).get_json()
    return found


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, item) for path, methods in document["paths"].items() for method, item in methods.items()]


def _check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    # The components come along, so that the schema's references lead somewhere.
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_it_is_an_openapi_document(document: dict[str, Any]) -> None:
    Draft202012Validator(META).validate(document)
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))


def test_every_schema_is_a_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "$ref":
                    yield item
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


def test_every_route_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    described = {f"{method.upper()} {path}" for path, method, _ in _operations(document)}
    assert described == {route.endpoint for route in all_routes(metrics=Access.VIEWER)}


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, _, operation in _operations(document):
        declared = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_every_guarded_operation_says_how_it_refuses(document: dict[str, Any]) -> None:
    for path, _, operation in _operations(document):
        if operation["x-role"] == "public":
            assert operation["security"] == []
            continue
        for status in ("401", "403", "503"):
            assert "application/problem+json" in operation["responses"][status]["content"], (path, status)


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    for _, _, operation in _operations(document):
        contents = [answer.get("content", {}) for answer in operation["responses"].values()]
        contents.append(operation.get("requestBody", {}).get("content", {}))
        for content in contents:
            for media in content.values():
                if "example" in media:
                    _check(document, media["schema"], media["example"])


def test_answers_are_as_described(world: World, document: dict[str, Any]) -> None:
    created = world.call("POST", "/jobs", json={**JOB, "name": "listing"})
    run = Run(
        RunKey(TaskId(1, 0), NOON_MS, 1), Trigger.TIMER, RunState.SUCCEEDED, worker="w", nonce="n", ended_ms=NOON_MS
    )
    world.store.runs.record([run])
    applied = {"jobs": [{**JOB, "name": "listing", "schedule": "6 * * * *"}]}
    answers = [
        ("/jobs", "post", created),
        ("/jobs", "get", world.call("GET", "/jobs")),
        ("/jobs/{job_id}", "get", world.call("GET", "/jobs/1")),
        ("/jobs/{job_id}", "get", world.call("GET", "/jobs/9")),
        ("/jobs/{job_id}/next", "get", world.call("GET", "/jobs/1/next")),
        ("/jobs/{job_id}/runs", "get", world.call("GET", "/jobs/1/runs")),
        ("/jobs/{job_id}/run", "post", world.call("POST", "/jobs/1/run")),
        ("/runs/{run_id}", "get", world.call("GET", f"/runs/{run.id}")),
        ("/apply", "post", world.call("POST", "/apply?dry_run=true", json=applied)),
        ("/jobs", "post", world.call("POST", "/jobs", json={**JOB, "schedule": "x"})),
        ("/tokens", "get", world.call("GET", "/tokens", role=Role.ADMIN)),
        ("/tokens", "post", world.call("POST", "/tokens", role=Role.ADMIN, json={"name": "a", "role": "viewer"})),
        ("/workers", "get", world.call("GET", "/workers")),
        ("/readyz", "get", world.call("GET", "/readyz", role=None)),
    ]
    for path, method, answer in answers:
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        _check(document, described["content"][answer.mimetype]["schema"], answer.get_json())
        for header in described.get("headers", {}):
            assert header == "Link" or header in answer.headers, (path, header)


def test_a_job_is_described_field_by_field(world: World, document: dict[str, Any]) -> None:
    body = world.call("POST", "/jobs", json=JOB).get_json()
    described = document["components"]["schemas"]["Job"]["properties"]
    assert set(described) == set(body)
    assert all(
        "description" in item for name, item in document["components"]["schemas"]["JobInput"]["properties"].items()
    )


def test_the_page_needs_nothing_from_elsewhere(world: World, document: dict[str, Any]) -> None:
    answer = world.call("GET", "/docs", role=Role.VIEWER)
    assert "style-src 'sha256-" in answer.headers["Content-Security-Policy"]
    page = answer.get_data(as_text=True)
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    assert not [tag for tag, _ in tags if tag in ("script", "link", "img", "iframe", "object", "form")]
    assert not [attrs for _, attrs in tags if "style" in attrs or any(name.startswith("on") for name in attrs)]
    links = [str(attrs["href"]) for tag, attrs in tags if tag == "a"]
    anchors = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert links
    assert all(link.startswith("#") and link[1:] in anchors for link in links)
    for kind in KINDS:
        assert f"/problems/{kind}" in page
    for path in document["paths"]:
        assert path in page
