"""The OpenAPI 3.1 document, made of the routes and the models: what is not declared there cannot be called either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from cronkeeper import __version__
from cronkeeper_api import access_answers, audit_answers
from cronkeeper_api.answers import COMPONENTS
from cronkeeper_api.params import Param, Type
from cronkeeper_api.problems import KINDS
from cronkeeper_api.routing import Access, Answer, Reach, Route

_REFS = "#/components/schemas/{model}"
_JSON, _PROBLEM, _FORM = "application/json", "application/problem+json", "multipart/form-data"
_HEADERS = {
    "ETag": "The job's version, for If-Match.",
    "Link": 'The next page, with rel="next".',
    "Location": "The path of what was made.",
    "X-Run-State": "The run's state when the answer began.",
}


def document_of(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cronkeeper",
            "version": __version__,
            "description": "Cron for a fleet. Instants are RFC 3339 in UTC. Errors are application/problem+json.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token: Authorization: Bearer ck_…"}
            },
        },
        "x-problems": [
            {"type": f"/problems/{kind.name}", "status": kind.status, "title": kind.title, "help": kind.help}
            for kind in KINDS.values()
        ],
    }


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    requests = list(dict.fromkeys(route.body for route in routes if route.body is not None))
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in requests]
    models += [
        (model, "serialization") for model in (*COMPONENTS, *audit_answers.COMPONENTS, *access_answers.COMPONENTS)
    ]
    _, schemas = models_json_schema(models, ref_template=_REFS)
    found: dict[str, Any] = dict(schemas["$defs"])
    found["RunOrRuns"] = {"anyOf": [_ref("Run"), {"type": "array", "items": _ref("Run")}]}
    found["Document"] = {"type": "object", "required": ["openapi"]}
    found["JobPatch"] = {"type": "object", "description": "Any fields of JobInput; null takes one back to its default."}
    return found


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.view.__name__,
        "summary": route.summary,
        "description": _description(route),
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *map(_query_parameter, route.params), *_header_parameters(route)],
        "responses": _responses(route),
        "x-role": str(route.access),
    }
    if route.access is Access.PUBLIC:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = _request_body(route, route.body)
    return operation


def _description(route: Route) -> str:
    if route.access is Access.PUBLIC:
        return f"{route.description} Needs no token.".strip()
    where = " for all namespaces" if route.reach is Reach.FLEET else ""
    return f"{route.description} Takes a token with the role {route.access}{where}.".strip()


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    match param.type:
        case Type.INTEGER:
            schema = {"type": "integer", "minimum": param.low, "maximum": param.high}
        case Type.BOOLEAN:
            schema = {"type": "boolean"}
        case Type.INSTANT:
            schema = {"type": "string", "format": "date-time"}
        case Type.CHOICE:
            schema = {"type": "string", "enum": list(param.choices)}
        case Type.LABELS:
            schema = {"type": "array", "items": {"type": "string"}}
    if param.default not in (None, ()):
        schema["default"] = param.default
    return {"name": param.name, "in": "query", "description": param.description, "schema": schema}


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    if route.if_match:
        found.append(_header("If-Match", "The ETag that the change is meant for; 412 when it has changed since."))
    if route.idempotent:
        found.append(_header("Idempotency-Key", "The same key and body again give the same answer, for 24 hours."))
    return found


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _request_body(route: Route, model: type[BaseModel]) -> dict[str, Any]:
    schema = _ref("JobPatch" if route.method == "PATCH" else model.__name__)
    content: dict[str, Any] = {_JSON: {"schema": schema, "example": route.example}}
    if route.form:
        content[_FORM] = {
            "schema": {
                "type": "object",
                "properties": {
                    "job": {"type": "string", "contentMediaType": _JSON, "description": "The other fields, as JSON."},
                    "executable": {"type": "string", "contentMediaType": "application/octet-stream"},
                },
                "required": ["job", "executable"],
            }
        }
    return {"required": route.body_required, "content": content}


def _responses(route: Route) -> dict[str, Any]:
    found = {str(status): _answer(answer) for status, answer in route.answers.items()}
    # HAProxy's limits stand before every route.
    kinds = dict.fromkeys((*route.problems, "too-many"))
    if route.access is not Access.PUBLIC:
        kinds |= dict.fromkeys(("unauthorized", "forbidden", "unavailable"))
    if route.path == "/readyz":
        kinds |= dict.fromkeys(("unavailable",))
    if route.params or route.body is not None:
        kinds |= dict.fromkeys(("invalid",))
    if route.body is not None:
        kinds |= dict.fromkeys(("malformed", "unsupported-media-type", "too-large", "too-slow"))
    if route.idempotent:
        kinds |= dict.fromkeys(("in-flight", "key-reused"))
    kinds |= dict.fromkeys(("internal",))
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(KINDS[kind].status, []).append(kind)
    for status in sorted(by_status):
        found[str(status)] = _problem([KINDS[name].title for name in by_status[status]], by_status[status], status)
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        found["headers"] = {
            name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in answer.headers
        }
    if answer.schema or answer.media != _JSON:
        schema: dict[str, Any] = _ref(answer.schema) if answer.schema else {"type": "string"}
        if answer.many:
            schema = {"type": "array", "items": schema}
        found["content"] = {answer.media: {"schema": schema, "example": answer.example}}
    return found


def _problem(titles: list[str], kinds: list[str], status: int) -> dict[str, Any]:
    example = {
        "type": f"/problems/{kinds[0]}",
        "title": titles[0],
        "status": status,
        "detail": KINDS[kinds[0]].help,
        "instance": "5f0c6a4f0b0e4f0e9d5f1c2b3a495867",
        "errors": [],
    }
    return {
        "description": "; or: ".join(titles),
        "content": {_PROBLEM: {"schema": _ref("Problem"), "example": example}},
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REFS.format(model=name)}
