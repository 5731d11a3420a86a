"""/namespaces: what is allowed in each, and what it holds."""

from __future__ import annotations

from flask import Response

from cronkeeper.domain.quota import Quotas
from cronkeeper_api.access_models import NamespaceInput
from cronkeeper_api.body import read_body
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response, namespace_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples

router = Router("namespaces")

_NAMESPACE = Answer("The namespace.", "Namespace", examples.NAMESPACE)


@router.route(
    "GET",
    "/namespaces",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="List namespaces",
    description="Those that somebody has decided about or that hold a job, by name.",
    answers={200: Answer("Namespaces.", "Namespace", [examples.NAMESPACE], many=True)},
)
def list_namespaces(call: Call) -> Response:
    return json_response([namespace_json(view) for view in call.services.namespaces.all()])


@router.route(
    "GET",
    "/namespaces/{namespace}",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read a namespace",
    description="Also one that nobody has decided about: nothing is bounded there.",
    answers={200: _NAMESPACE},
    problems=("not-found",),
)
def get_namespace(call: Call, namespace: str) -> Response:
    return json_response(namespace_json(call.services.namespaces.show(namespace)))


@router.route(
    "PUT",
    "/namespaces/{namespace}",
    access=Access.ADMIN,
    summary="Decide what is allowed in a namespace",
    description="The whole of it: what is left out is not bounded any more. Holds everywhere within 5 seconds. Jobs "
    "that are there stay as they are, but do not grow beyond a quota.",
    body=NamespaceInput,
    example={"run_as": ["nobody", "reports"], "quotas": {"max_jobs": 500, "min_interval_s": 30}},
    answers={200: _NAMESPACE},
)
def put_namespace(call: Call, namespace: str) -> Response:
    wanted = read_model(NamespaceInput, read_body().value)
    run_as = None if wanted.run_as is None else tuple(dict.fromkeys(wanted.run_as))
    view = call.services.namespaces.save(namespace, run_as, Quotas(**wanted.quotas.model_dump()), call.caller)
    return json_response(namespace_json(view))
