"""/jobs/{id}/backfill: runs of a past range."""

from __future__ import annotations

from flask import Response

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper_api.body import read_body
from cronkeeper_api.models import BackfillInput
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import backfill_json, json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import job_id_of
from cronkeeper_manager.service import Wish

router = Router("runs")


@router.route(
    "POST",
    "/jobs/{job_id}/backfill",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Make up for the past",
    description="Creates a run for each fire of the range that has none, by the job's present schedule; 10,000 runs at "
    "most. They go oldest first, `max_parallel` at a time. What ran, failed or was skipped is left alone, unless "
    "`rerun_skipped` asks for the skipped. Asking again creates nothing twice.",
    body=BackfillInput,
    example={"from": "2026-02-27T11:00:00Z", "to": "2026-02-27T13:00:00Z", "dry_run": False},
    answers={200: Answer("What was (or would be) created, and what was left alone.", "Backfill", examples.BACKFILL)},
    problems=("not-found", "conflict"),
)
def backfill(call: Call, job_id: str) -> Response:
    wanted = read_model(BackfillInput, read_body().value)
    wish = Wish(
        from_ms=parse_rfc3339(wanted.begin),
        to_ms=parse_rfc3339(wanted.end),
        max_parallel=wanted.max_parallel,
        rerun_skipped=wanted.rerun_skipped,
        dry_run=wanted.dry_run,
    )
    if not wanted.dry_run:
        call.services.jobs.sign_pause(job_id_of(job_id), call.caller)
    return json_response(backfill_json(call.services.backfills.backfill(job_id_of(job_id), wish, call.caller)))
