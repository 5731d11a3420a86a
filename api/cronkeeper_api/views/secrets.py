"""/secrets: values for jobs that nobody reads again."""

from __future__ import annotations

from typing import Any

from flask import Response

from cronkeeper.domain.job import DEFAULT_NAMESPACE
from cronkeeper_api.body import read_body
from cronkeeper_api.models import SecretInput
from cronkeeper_api.params import Param, Type
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response, secret_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_manager.service.secrets import SavedSecret

router = Router("secrets")

_NAMESPACE = Param("namespace", Type.TEXT, "The namespace whose jobs may use it.", DEFAULT_NAMESPACE, high=63)


@router.route(
    "GET",
    "/secrets",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="List secrets",
    description="Names, versions, and who set them when. No route returns a value.",
    params=(Param("namespace", Type.TEXT, "Only this namespace.", high=63),),
    answers={200: Answer("The secrets, by namespace and name.", "Secret", [examples.SECRET], many=True)},
)
def list_secrets(call: Call) -> Response:
    return json_response([secret_json(secret) for secret in call.services.secrets.all(call.query["namespace"])])


@router.route(
    "PUT",
    "/secrets/{name}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Set a secret",
    description="The value is sealed here; nodes open it when a run starts. Jobs that use the secret get the new value "
    "as a new generation, from now on. The same request may be repeated: it finishes what the first one left undone.",
    params=(_NAMESPACE,),
    body=SecretInput,
    example={"value": "correct horse battery staple"},
    answers={
        200: Answer("The secret, without its value, and the jobs that got it.", "SavedSecret", examples.SAVED_SECRET)
    },
    problems=("conflict", "not-found"),
)
def put_secret(call: Call, name: str) -> Response:
    wanted = read_model(SecretInput, read_body().value)
    saved = call.services.secrets.put(call.query["namespace"], name, wanted.value, call.caller)
    return json_response(_saved_json(saved))


@router.route(
    "POST",
    "/secrets/rotate",
    access=Access.ADMIN,
    summary="Seal all secrets with the newest key",
    description="After a new key was put first in secrets_key_files. What is sealed with it already is left alone; the "
    "request may be repeated. Afterwards the older keys are needed no more.",
    answers={200: Answer("The secrets that were sealed anew.", "SavedSecret", [examples.SAVED_SECRET], many=True)},
    problems=("conflict",),
)
def rotate_secrets(call: Call) -> Response:
    return json_response([_saved_json(saved) for saved in call.services.secrets.rotate(call.caller)])


@router.route(
    "DELETE",
    "/secrets/{name}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Delete a secret",
    description="Refused while jobs use it. With force they lose it: their fires are skipped (secret_unreadable) "
    "until it is set again.",
    params=(_NAMESPACE, Param("force", Type.BOOLEAN, "Also if jobs use it.", False)),
    answers={204: Answer("It is gone.")},
    problems=("not-found", "conflict"),
)
def delete_secret(call: Call, name: str) -> Response:
    call.services.secrets.delete(call.query["namespace"], name, call.caller, force=call.query["force"])
    return Response(status=204)


def _saved_json(saved: SavedSecret) -> dict[str, Any]:
    return {**secret_json(saved.secret), "changed_jobs": [str(job_id) for job_id in saved.jobs]}
