"""The fleet: workers, moves, plans. Answered with 503 while ZooKeeper is away."""

from __future__ import annotations

from flask import Response

from cronkeeper.domain.ids import is_worker_id
from cronkeeper.errors import NotFoundError
from cronkeeper_api.body import read_body
from cronkeeper_api.models import DrainInput, PlanInput, ReassignInput
from cronkeeper_api.params import Param, Type
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response, moves_json, plan_json, worker_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import job_id_of, next_page

router = Router("fleet")

_WORKER = Answer("The worker.", "Worker", examples.WORKER)
_MOVES = Answer("The moves, in order.", "Moves", examples.MOVES)


@router.route(
    "GET",
    "/workers",
    access=Access.VIEWER,
    reach=Reach.SHARED,
    summary="List workers",
    description="By id, lost ones too.",
    params=(
        Param("limit", Type.INTEGER, "How many at most.", 1000, low=1, high=10_000),
        Param("after", Type.TEXT, "The id after which the page begins.", "", high=63),
    ),
    answers={200: Answer("Workers.", "Worker", [examples.WORKER], headers=("Link",), many=True)},
)
def list_workers(call: Call) -> Response:
    limit = call.query["limit"]
    found = sorted(
        (view for view in call.services.fleet.workers() if view.id > call.query["after"]), key=lambda view: str(view.id)
    )
    page = [worker_json(view) for view in found[:limit]]
    return json_response(page, headers=next_page(after=page[-1]["id"]) if len(found) > limit else {})


@router.route(
    "GET",
    "/workers/{worker_id}",
    access=Access.VIEWER,
    reach=Reach.SHARED,
    summary="Read a worker",
    answers={200: _WORKER},
    problems=("not-found",),
)
def get_worker(call: Call, worker_id: str) -> Response:
    return json_response(worker_json(call.services.fleet.worker(_worker_id(worker_id))))


@router.route(
    "POST",
    "/workers/{worker_id}/cordon",
    access=Access.ADMIN,
    summary="Give a worker no new tasks",
    description="It keeps what it has.",
    answers={200: _WORKER},
    problems=("not-found",),
)
def cordon(call: Call, worker_id: str) -> Response:
    name = _worker_id(worker_id)
    call.services.fleet.cordon(name, caller=call.caller)
    return json_response(worker_json(call.services.fleet.worker(name)))


@router.route(
    "POST",
    "/workers/{worker_id}/uncordon",
    access=Access.ADMIN,
    summary="Give a worker tasks again",
    description="Ends a drain, too.",
    answers={200: _WORKER},
    problems=("not-found",),
)
def uncordon(call: Call, worker_id: str) -> Response:
    name = _worker_id(worker_id)
    call.services.fleet.uncordon(name, caller=call.caller)
    return json_response(worker_json(call.services.fleet.worker(name)))


@router.route(
    "POST",
    "/workers/{worker_id}/drain",
    access=Access.ADMIN,
    summary="Move all tasks away from a worker",
    body=DrainInput,
    body_required=False,
    example={"dry_run": True},
    answers={200: _MOVES},
    problems=("not-found", "conflict"),
)
def drain(call: Call, worker_id: str) -> Response:
    wanted = read_model(DrainInput, read_body(optional=True).value)
    moves = call.services.fleet.drain(_worker_id(worker_id), wanted.dry_run, caller=call.caller)
    return json_response(moves_json(moves))


@router.route(
    "POST",
    "/jobs/{job_id}/reassign",
    access=Access.ADMIN,
    reach=Reach.NAMESPACES,
    summary="Move a job to a worker",
    description="Once: should that worker be lost later, the job moves on as any other.",
    body=ReassignInput,
    example={"worker": "node-7", "dry_run": False},
    answers={200: _MOVES},
    problems=("not-found", "conflict"),
)
def reassign(call: Call, job_id: str) -> Response:
    wanted = read_model(ReassignInput, read_body().value)
    worker = _worker_id(wanted.worker)
    moves = call.services.fleet.reassign(job_id_of(job_id), worker, wanted.dry_run, caller=call.caller)
    return json_response(moves_json(moves))


@router.route(
    "POST",
    "/plan",
    access=Access.ADMIN,
    summary="See what a loss, a drain or a new worker would move",
    description="Nothing is done.",
    body=PlanInput,
    example={"lose": ["node-3"], "drain": [], "add": [{"labels": {"zone": "eu"}, "capacity": 10000}]},
    answers={200: Answer("The moves, and what would have no place.", "Plan", examples.PLAN)},
    problems=("not-found",),
)
def plan(call: Call) -> Response:
    wanted = read_model(PlanInput, read_body().value)
    return json_response(plan_json(call.services.fleet.plan(wanted.model_dump())))


def _worker_id(text: str) -> str:
    if not is_worker_id(text):
        raise NotFoundError("there is no worker with this id")
    return text
