"""/preview and /apply: what a spec would do; many jobs at once, by name."""

from __future__ import annotations

from flask import Response

from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper.runtime.collector import without_collector
from cronkeeper_api.body import read_body
from cronkeeper_api.models import ApplyInput, JobInput
from cronkeeper_api.reading import read_draft, read_drafts, read_model
from cronkeeper_api.render import applied_json, forecast_json, json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import AFTER, COUNT, DRY_RUN, accounts_of
from cronkeeper_manager.service import rules

router = Router("jobs")


@router.route(
    "POST",
    "/preview",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="See what a job would do, without saving it",
    params=(COUNT, AFTER),
    body=JobInput,
    form=True,
    example=examples.NEW_JOB,
    answers={200: Answer("Fire times in UTC, the schedule in words, and notes.", "Forecast", examples.FORECAST)},
    problems=("too-large",),
)
def preview(call: Call) -> Response:
    body = read_body()
    draft = read_draft(body, run_as_allowed=accounts_of(call, body.value))
    found = call.services.jobs.preview(draft, call.caller, after_ms=call.query["after"], count=call.query["count"])
    return json_response(forecast_json(found))


@router.route(
    "POST",
    "/apply",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Bring many jobs to their specs, by name",
    description="One transaction: all or nothing. Jobs that are not named stay, unless `prune` selects them.",
    params=(DRY_RUN,),
    body=ApplyInput,
    example=examples.APPLY,
    answers={200: Answer("What was (or would be) created, changed, left and pruned.", "Applied", examples.APPLIED)},
    problems=("conflict", "over-quota", "too-many", "too-large"),
    idempotent=True,
)
@without_collector()
def apply(call: Call) -> Response:
    wanted = read_model(ApplyInput, read_body().value)
    allowed = call.services.namespaces.run_as_of(wanted.namespace)
    faults = rules.check_fields({"namespace": wanted.namespace, "selector": wanted.prune}, run_as_allowed=allowed)
    if faults:
        names = {"selector": "prune"}
        raise ValidationFailedError([FieldError(names.get(f.field, f.field), f.message, f.hint) for f in faults])
    drafts = read_drafts(wanted.jobs, namespace=wanted.namespace, run_as_allowed=allowed)
    dry_run = call.query["dry_run"]
    applied = call.services.jobs.apply(
        drafts, call.caller, namespace=wanted.namespace, prune=wanted.prune, dry_run=dry_run
    )
    return json_response(applied_json(applied, dry_run=dry_run))
