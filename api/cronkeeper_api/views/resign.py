"""/resign: after the signing key has changed."""

from __future__ import annotations

from flask import Response

from cronkeeper_api.access_models import ResignInput
from cronkeeper_api.body import read_body
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response
from cronkeeper_api.routing import Access, Answer, Call, Router
from cronkeeper_api.views import examples

router = Router("tokens")


@router.route(
    "POST",
    "/resign",
    access=Access.ADMIN,
    summary="Sign tasks anew",
    description="With the signing key of this server, a piece at a time: send `next` as `after` until it is null. Only "
    "tasks are signed whose present signature is right, by this key or by one of the server's verify_keys; what they "
    "say stays the same. Safe to repeat.",
    body=ResignInput,
    example={"after": "0"},
    answers={200: Answer("What was done.", "Resigned", examples.RESIGNED)},
)
def resign_tasks(call: Call) -> Response:
    wanted = read_model(ResignInput, read_body().value)
    done = call.services.resigning.some(after=int(wanted.after), limit=wanted.limit, caller=call.caller)
    return json_response(
        {
            "key": done.key,
            "signed": done.signed,
            "current": done.current,
            "refused": [{"job": str(one.job_id), "why": one.why} for one in done.refused],
            "next": None if done.next_after is None else str(done.next_after),
        }
    )
