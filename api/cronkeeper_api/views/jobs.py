"""/jobs: create, list, read, change, end."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response, request

from cronkeeper.domain.job import JobSpec, JobStatus
from cronkeeper.ports import JobQuery
from cronkeeper_api.body import read_body
from cronkeeper_api.models import JobInput
from cronkeeper_api.params import Param, Type
from cronkeeper_api.reading import merge, read_draft, read_patch
from cronkeeper_api.render import etag_of, forecast_json, job_json, json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import (
    AFTER,
    COUNT,
    accounts_of,
    expected_generations,
    job_id_of,
    job_response,
    next_page,
)
from cronkeeper_manager.service import Draft

router = Router("jobs")

_JOB = Answer("The job.", "Job", examples.JOB, headers=("ETag",))
_LIMIT = Param("limit", Type.INTEGER, "How many at most.", 1000, low=1, high=10_000)


@router.route(
    "GET",
    "/jobs",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="List jobs",
    description="Oldest first. The Link header with rel=next leads to the next page; without it, this is the last.",
    params=(
        _LIMIT,
        Param("after", Type.INTEGER, "The id after which the page begins.", 0),
        Param("status", Type.CHOICE, "Only jobs of this status.", choices=tuple(status.value for status in JobStatus)),
        Param("q", Type.TEXT, "Part of the name, the executable or the description.", "", high=200),
        Param("namespace", Type.TEXT, "Only this namespace.", high=63),
        Param("label", Type.LABELS, "Only jobs with this label, written key=value; may be repeated.", ()),
        Param("calendar", Type.TEXT, "Only jobs that name this calendar.", high=128),
    ),
    answers={200: Answer("A page of jobs.", "Job", [examples.JOB], headers=("Link",), many=True)},
)
def list_jobs(call: Call) -> Response:
    limit, status = call.query["limit"], call.query["status"]
    query = JobQuery(
        limit=limit + 1,
        after=call.query["after"],
        status=None if status is None else JobStatus(status),
        q=call.query["q"],
        namespace=call.query["namespace"],
        labels=call.query["label"],
        calendar=call.query["calendar"],
    )
    found = call.services.jobs.page(query)
    page = found[:limit]
    workers = call.services.jobs.workers_of(page)
    now_ms, fires = call.services.clock.now_ms(), dict[object, int | None]()
    body = [job_json(job, now_ms=now_ms, workers=workers.get(job.id, ()), fires=fires) for job in page]
    return json_response(body, headers=next_page(after=str(page[-1].id)) if len(found) > limit else {})


def _created_before(call: Call, saved: Sequence[str]) -> Response:
    return job_response(call, call.services.jobs.get(int(saved[0])), 201)


@router.route(
    "POST",
    "/jobs",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Create a job",
    description="Answered as soon as the job is saved; nodes hear of it at once, or when ZooKeeper is back. For a "
    "script or binary the executable is the file in BASE64 (with filename), a URL of the object store, or the part "
    "`executable` of a form whose part `job` holds the other fields as JSON.",
    body=JobInput,
    form=True,
    example=examples.NEW_JOB,
    answers={201: Answer("The job as saved.", "Job", examples.JOB, headers=("ETag", "Location"))},
    problems=("name-taken", "over-quota", "too-many", "too-large"),
    idempotent=True,
    again=_created_before,
)
def create_job(call: Call) -> Response:
    body = read_body()
    draft = read_draft(body, run_as_allowed=accounts_of(call, body.value))
    return job_response(call, call.services.jobs.create(draft, call.caller, request=call.key), 201)


@router.route(
    "GET",
    "/jobs/{job_id}",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read a job",
    answers={200: _JOB, 304: Answer("It has not changed since the ETag in If-None-Match.", headers=("ETag",))},
    problems=("not-found",),
)
def get_job(call: Call, job_id: str) -> Response:
    job = call.services.jobs.get(job_id_of(job_id))
    tag = etag_of(job.id, job.generation)
    if tag in (part.strip() for part in request.headers.get("If-None-Match", "").split(",")):
        return Response(status=304, headers={"ETag": tag})
    return job_response(call, job)


@router.route(
    "PUT",
    "/jobs/{job_id}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Replace a job's spec",
    description="Fields that are left out go back to their defaults. The change takes effect from now on, never "
    "backwards. Whether the job is scheduled, paused or finished stays as it is.",
    body=JobInput,
    form=True,
    example=examples.NEW_JOB,
    answers={200: _JOB},
    problems=("not-found", "name-taken", "over-quota", "stale", "too-large"),
    if_match=True,
)
def replace_job(call: Call, job_id: str) -> Response:
    number = job_id_of(job_id)
    body = read_body()
    draft = read_draft(body, run_as_allowed=accounts_of(call, body.value))
    job = call.services.jobs.change(number, lambda _: draft, call.caller, expected_generations(number))
    return job_response(call, job)


@router.route(
    "PATCH",
    "/jobs/{job_id}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Change some fields of a job",
    description="A JSON merge patch (RFC 7396): null takes a field back to its default.",
    body=JobInput,
    form=True,
    example={"schedule": "*/10 * * * *"},
    answers={200: _JOB},
    problems=("not-found", "name-taken", "over-quota", "stale", "too-large"),
    if_match=True,
)
def patch_job(call: Call, job_id: str) -> Response:
    number, body = job_id_of(job_id), read_body()

    def changed(spec: JobSpec) -> Draft:
        allowed = accounts_of(call, merge({"namespace": spec.namespace}, body.value))
        return read_patch(spec, body, run_as_allowed=allowed)

    return job_response(call, call.services.jobs.change(number, changed, call.caller, expected_generations(number)))


@router.route(
    "DELETE",
    "/jobs/{job_id}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Take a job off the schedule",
    description="The job is finished, its history stays. With purge, the job, its runs and their output are removed.",
    params=(Param("purge", Type.BOOLEAN, "Remove it for good.", False),),
    answers={200: Answer("The finished job.", "Job", examples.JOB, headers=("ETag",)), 204: Answer("It is removed.")},
    problems=("not-found", "stale"),
    if_match=True,
)
def delete_job(call: Call, job_id: str) -> Response:
    number = job_id_of(job_id)
    expected = expected_generations(number)
    if call.query["purge"]:
        call.services.jobs.purge(number, call.caller, expected)
        return Response(status=204)
    return job_response(call, call.services.jobs.finish(number, call.caller, expected))


@router.route(
    "POST",
    "/jobs/{job_id}/pause",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Stop a job from firing",
    description="Runs in progress go on.",
    answers={200: _JOB},
    problems=("not-found", "conflict", "stale"),
    if_match=True,
)
def pause_job(call: Call, job_id: str) -> Response:
    number = job_id_of(job_id)
    return job_response(call, call.services.jobs.pause(number, call.caller, expected_generations(number)))


@router.route(
    "POST",
    "/jobs/{job_id}/resume",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Let a job fire again",
    description="From now on: what was due meanwhile stays undone. A finished job is taken up again, too.",
    answers={200: _JOB},
    problems=("not-found", "conflict", "over-quota", "stale"),
    if_match=True,
)
def resume_job(call: Call, job_id: str) -> Response:
    number = job_id_of(job_id)
    return job_response(call, call.services.jobs.resume(number, call.caller, expected_generations(number)))


@router.route(
    "GET",
    "/jobs/{job_id}/next",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="See a job's next fire times",
    params=(COUNT, AFTER),
    answers={200: Answer("Fire times in UTC, the schedule in words, and notes.", "Forecast", examples.FORECAST)},
    problems=("not-found",),
)
def next_fires(call: Call, job_id: str) -> Response:
    found = call.services.jobs.next(job_id_of(job_id), after_ms=call.query["after"], count=call.query["count"])
    return json_response(forecast_json(found))
