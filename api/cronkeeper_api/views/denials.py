"""/denials: identities of the issuer that are let in no more."""

from __future__ import annotations

from typing import Any

from flask import Response

from cronkeeper.domain.ids import is_job_id
from cronkeeper.domain.instants import rfc3339
from cronkeeper.errors import ConflictError, NotFoundError
from cronkeeper_api.access_models import DenialInput
from cronkeeper_api.body import read_body
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response
from cronkeeper_api.routing import Access, Answer, Call, Router
from cronkeeper_api.views import examples
from cronkeeper_manager.service.denials import Denial

router = Router("tokens")


@router.route(
    "GET",
    "/denials",
    access=Access.ADMIN,
    summary="List denied identities",
    answers={200: Answer("Who is not let in.", "Denial", [examples.DENIAL], many=True)},
)
def list_denials(call: Call) -> Response:
    return json_response([_denial_json(denial) for denial in call.services.denials.all()])


@router.route(
    "POST",
    "/denials",
    access=Access.ADMIN,
    summary="Deny an identity of the issuer",
    description="Within 5 seconds no server takes its tokens any more, those that the issuer makes later included. "
    "Safe to repeat. A conflict where no issuer is set.",
    body=DenialInput,
    example={"subject": "4711"},
    answers={201: Answer("It is denied.", "Denial", examples.DENIAL)},
    problems=("conflict",),
)
def deny_identity(call: Call) -> Response:
    wanted = read_model(DenialInput, read_body().value)
    issuer = call.services.config.oidc_issuer
    if not issuer:
        raise ConflictError("no issuer is set (oidc_issuer): there is nobody to deny")
    denial = call.services.denials.deny(issuer, wanted.subject, call.caller)
    return json_response(_denial_json(denial), 201)


@router.route(
    "DELETE",
    "/denials/{denial_id}",
    access=Access.ADMIN,
    summary="Let an identity in again",
    answers={204: Answer("It is.")},
    problems=("not-found",),
)
def lift_denial(call: Call, denial_id: str) -> Response:
    # Denials have the same kind of ids as jobs.
    if not is_job_id(denial_id):
        raise NotFoundError("there is no denial with this id")
    call.services.denials.lift(int(denial_id), call.caller)
    return Response(status=204)


def _denial_json(denial: Denial) -> dict[str, Any]:
    return {"id": str(denial.id), "identity": denial.identity, "denied_at": rfc3339(denial.denied_ms)}
