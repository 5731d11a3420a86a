"""What became of fires: why, missed; and the events that tell of them."""

from __future__ import annotations

from flask import Response

from cronkeeper_api.params import Param, Type
from cronkeeper_api.render import event_json, json_response, missed_json, why_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import job_id_of

router = Router("fires")


@router.route(
    "GET",
    "/jobs/{job_id}/why",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Ask why a fire ran, or did not",
    description="For the fire time at the instant. If nothing was due then: for the fire before it, with `due` false; "
    "or, if the job was not firing at all then, why not. `pending` is: not known yet. Of a job with several shards the "
    "worst is told.",
    params=(Param("at", Type.INSTANT, "The instant (RFC 3339); now unless given."),),
    answers={200: Answer("What was due, and what became of it.", "Why", examples.WHY)},
    problems=("not-found",),
)
def why(call: Call, job_id: str) -> Response:
    return json_response(why_json(call.services.answers.why(job_id_of(job_id), at_ms=call.query["at"])))


@router.route(
    "GET",
    "/jobs/{job_id}/missed",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="See a job's missed fires",
    description="Newest first. A fire that gets a row after all is in it no more.",
    params=(Param("limit", Type.INTEGER, "How many at most.", 100, low=1, high=10_000),),
    answers={200: Answer("Missed fires.", "Missed", [examples.MISSED], many=True)},
    problems=("not-found",),
)
def missed(call: Call, job_id: str) -> Response:
    found = call.services.answers.missed(job_id_of(job_id), limit=call.query["limit"])
    return json_response([missed_json(item) for item in found])


@router.route(
    "GET",
    "/events",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read events",
    description="What a person may want to know later, newest first: missed fires, lost workers, double starts.",
    params=(
        Param("limit", Type.INTEGER, "How many at most.", 100, low=1, high=10_000),
        Param("kind", Type.TEXT, "Only this kind, such as fire.missed.", high=64),
        Param("subject", Type.TEXT, "Only about this: a task (17/0), a job, a worker, or fleet.", high=190),
    ),
    answers={200: Answer("Events.", "Event", [examples.EVENT], many=True)},
)
def events(call: Call) -> Response:
    query = call.query
    found = call.services.answers.events(limit=query["limit"], kind=query["kind"], subject=query["subject"])
    return json_response([event_json(event) for event in found])
