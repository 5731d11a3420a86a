"""/tokens: who may do what."""

from __future__ import annotations

from flask import Response

from cronkeeper.domain.ids import is_job_id
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.scope import scope_of
from cronkeeper.errors import FieldError, NotFoundError, ValidationFailedError
from cronkeeper_api.access_models import TokenInput
from cronkeeper_api.body import read_body
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response, token_json
from cronkeeper_api.routing import Access, Answer, Call, Router
from cronkeeper_api.views import examples

router = Router("tokens")


@router.route(
    "GET",
    "/tokens",
    access=Access.ADMIN,
    summary="List tokens",
    description="Without their secrets, which nobody can read again.",
    answers={200: Answer("All tokens.", "Token", [examples.TOKEN], many=True)},
)
def list_tokens(call: Call) -> Response:
    return json_response([token_json(token) for token in call.services.tokens.all()])


@router.route(
    "POST",
    "/tokens",
    access=Access.ADMIN,
    summary="Create a token",
    description="The answer's `token` is the secret: it is shown this once.",
    body=TokenInput,
    example={"name": "ci", "role": "operator", "namespaces": ["team-a"]},
    answers={201: Answer("The token with its secret.", "NewToken", examples.NEW_TOKEN)},
)
def create_token(call: Call) -> Response:
    wanted = read_model(TokenInput, read_body().value)
    expires_ms = None if wanted.expires_at is None else parse_rfc3339(wanted.expires_at)
    try:
        scope = scope_of(wanted.namespaces)
    except ValueError as exc:
        raise ValidationFailedError([FieldError("namespaces", str(exc), "write the namespaces, or * alone")]) from exc
    token, secret = call.services.tokens.create(
        name=wanted.name, role=wanted.role, expires_ms=expires_ms, scope=scope, caller=call.caller
    )
    return json_response({**token_json(token), "token": secret}, 201)


@router.route(
    "DELETE",
    "/tokens/{token_id}",
    access=Access.ADMIN,
    summary="Revoke a token",
    description="Within 5 seconds no server takes it any more.",
    answers={204: Answer("It is revoked.")},
    problems=("not-found",),
)
def revoke_token(call: Call, token_id: str) -> Response:
    # Tokens have the same kind of ids as jobs.
    if not is_job_id(token_id):
        raise NotFoundError("there is no token with this id")
    call.services.tokens.revoke(int(token_id), call.caller)
    return Response(status=204)
