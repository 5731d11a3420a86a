"""From values to the JSON that others rely on (DESIGN: "Jobs over HTTP")."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flask import Response

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Job, JobState, LastRun, next_fire, spec_to_dict, status_of
from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.domain.run import UNSUCCESSFUL, Run
from cronkeeper.domain.secret_env import without_boxes
from cronkeeper.ports import Event, Missed, Secret, Token
from cronkeeper_manager.fleet import MoveView, PlanView, WorkerView
from cronkeeper_manager.service import Answer as WhyAnswer
from cronkeeper_manager.service import (
    Applied,
    Backfill,
    CalendarChange,
    Change,
    FleetForecast,
    Forecast,
    NamespaceView,
    Refreshed,
)
from cronkeeper_manager.service.calendars import Affected
from cronkeeper_manager.service.outlook import Bucket


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of JSON. Text is sent as UTF-8, not escaped."""
    # "replace": no stored text holds half a surrogate pair, and an answer must not fail over one.
    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    response = Response(data, status=status, content_type="application/json")
    response.headers.update(dict(headers or {}))
    return response


def job_json(
    job: Job, *, now_ms: int, workers: Sequence[str], fires: dict[object, int | None] | None = None
) -> dict[str, Any]:
    """Return a job. `fires` remembers next fire times over the jobs of a page: many share a schedule."""
    data = without_boxes(spec_to_dict(job.spec))
    return {
        "id": str(job.id),
        "status": status_of(job.state, job.last_run, unsuccessful=UNSUCCESSFUL).value,
        **data,
        "status_reason": job.state_reason or None,
        "generation": job.generation,
        "created_at": rfc3339(job.created_ms),
        "updated_at": rfc3339(job.updated_ms),
        "next_fire": _instant(_next_fire(job, now_ms, {} if fires is None else fires)),
        "last_run": None if job.last_run is None else _last_run(job.last_run),
        "workers": list(workers),
    }


def etag_of(job_id: object, generation: object) -> str:
    """Return a job's ETag."""
    return f'"job-{job_id}-{generation}"'


def run_json(run: Run) -> dict[str, Any]:
    """Return a run."""
    return {
        "id": run.id,
        "job_id": str(run.key.task.job_id),
        "fire_time": rfc3339(run.key.fire_ms),
        "attempt": run.key.attempt,
        "shard": run.key.task.shard,
        "trigger": run.trigger.value,
        "state": run.state.value,
        "reason": None if run.reason is None else run.reason.value,
        "worker": run.worker or None,
        "claimed_at": _instant(run.claimed_ms),
        "started_at": _instant(run.started_ms),
        "ended_at": _instant(run.ended_ms),
        "exit_code": run.exit_code,
        "signal": run.signal,
        "autonomous": run.autonomous,
        "output_tail": run.output_tail,
        "output_bytes": run.output_bytes,
        "cancel_requested": run.cancel_requested,
    }


def backfill_json(found: Backfill) -> dict[str, Any]:
    """Return what a backfill created and what it left alone."""
    return {
        "dry_run": found.dry_run,
        "created": [run_json(run) for run in found.created],
        "existing": [
            {
                "run_id": str(RunKey(fate.fire.task, fate.fire.fire_ms, fate.attempt)),
                "fire_time": rfc3339(fate.fire.fire_ms),
                "shard": fate.fire.task.shard,
                "state": fate.state.value,
                "reason": None if fate.reason is None else fate.reason.value,
            }
            for fate in found.existing
        ],
        "unsettled": [rfc3339(ms) for ms in found.unsettled],
    }


def why_json(found: WhyAnswer) -> dict[str, Any]:
    """Return the answer of `why`."""
    return {
        "fire_time": rfc3339(found.fire_ms),
        "due": found.due,
        "decision": found.decision.value,
        "reason": None if found.reason is None else found.reason.value,
        "words": found.words,
        "runs": [run_json(run) for run in found.runs],
        "previous_fire": _instant(found.previous_ms),
        "next_fire": _instant(found.next_ms),
    }


def missed_json(item: Missed) -> dict[str, Any]:
    """Return a missed fire."""
    return {
        "job_id": str(item.fire.task.job_id),
        "shard": item.fire.task.shard,
        "fire_time": rfc3339(item.fire.fire_ms),
        "reason": item.reason,
        "detail": item.detail,
        "noted_at": rfc3339(item.noted_ms),
    }


def event_json(event: Event) -> dict[str, Any]:
    """Return an event."""
    return {"at": rfc3339(event.at_ms), "kind": event.kind, "subject": event.subject, "detail": event.detail}


def forecast_json(found: Forecast) -> dict[str, Any]:
    """Return the answer of `next` and `preview`."""
    return {"next": [rfc3339(ms) for ms in found.fire_times], "words": found.words, "notes": list(found.notes)}


def fleet_forecast_json(found: FleetForecast) -> dict[str, Any]:
    """Return what the fleet is expected to do."""
    return {
        "from": rfc3339(found.from_ms),
        "to": rfc3339(found.to_ms),
        "by": found.by.value,
        "jobs": found.jobs,
        "tasks": found.tasks,
        "unmeasured": found.unmeasured,
        "buckets": [_bucket(bucket) for bucket in found.buckets],
        "herds": [
            {
                "at": rfc3339(herd.at_ms),
                "fires": herd.fires,
                "schedules": [
                    {"schedule": schedule, "timezone": timezone, "tasks": tasks}
                    for schedule, timezone, tasks in herd.schedules
                ],
            }
            for herd in found.herds
        ],
        "quietest": [_bucket(bucket) for bucket in found.quietest],
        "quiet_minutes": list(found.quiet_minutes),
    }


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {"at": rfc3339(bucket.at_ms), "fires": bucket.fires, "load": bucket.load}


def worker_json(view: WorkerView) -> dict[str, Any]:
    """Return a worker."""
    return {
        "id": view.id,
        "host": view.host,
        "state": view.state.value,
        "labels": dict(view.labels),
        "capacity": view.capacity,
        "tasks": view.tasks,
        "version": view.version,
        "last_seen": _instant(view.last_seen_ms),
        "clock_offset_ms": view.clock_offset_ms,
    }


def moves_json(moves: Sequence[MoveView]) -> dict[str, Any]:
    """Return moves, in the order in which they would be made."""
    return {
        "moves": [
            {"task": str(move.task), "from": move.from_, "to": move.to, "reason": move.reason.value} for move in moves
        ]
    }


def plan_json(found: PlanView) -> dict[str, Any]:
    """Return the answer of a plan."""
    return {
        **moves_json(found.moves),
        "unplaced": {str(task): why for task, why in found.unplaced.items()},
        "load": {worker: round(load, 3) for worker, load in found.load.items()},
    }


def secret_json(secret: Secret) -> dict[str, Any]:
    """Return a secret, without its box."""
    return {
        "name": secret.name,
        "namespace": secret.namespace,
        "version": secret.sealed.version,
        "updated_at": rfc3339(secret.updated_ms),
        "updated_by": secret.updated_by,
    }


def calendar_json(item: NamedCalendar) -> dict[str, Any]:
    """Return a named calendar."""
    return {
        "namespace": item.namespace,
        "name": item.name,
        "description": item.description,
        "exclude": list(item.dates.exclude),
        "include": list(item.dates.include),
        "generation": item.generation,
        "created_at": rfc3339(item.created_ms),
        "updated_at": rfc3339(item.updated_ms),
    }


def calendar_etag(item: NamedCalendar) -> str:
    """Return a calendar's ETag: one that was removed and made again is another."""
    return f'"calendar-{item.created_ms}-{item.generation}"'


def calendar_change_json(found: CalendarChange, *, dry_run: bool) -> dict[str, Any]:
    """Return what became, or would become, of a calendar and of the jobs that name it."""
    return {
        "calendar": calendar_json(found.calendar),
        "dry_run": dry_run,
        "created": found.created,
        "changed": found.changed,
        "remaining": found.remaining,
        "jobs": [_affected(job) for job in found.shown],
    }


def refreshed_json(found: Refreshed, *, dry_run: bool) -> dict[str, Any]:
    """Return what a refresh did to a page of jobs."""
    return {
        "dry_run": dry_run,
        "looked": found.looked,
        "changed": found.changed,
        "jobs": [_affected(job) for job in found.shown],
        "left": [str(job_id) for job_id in found.left],
        "after": None if found.after is None else str(found.after),
    }


def _affected(job: Affected) -> dict[str, Any]:
    return {
        "id": str(job.job_id),
        "name": job.name,
        "next_before": [rfc3339(ms) for ms in job.next_before],
        "next_after": [rfc3339(ms) for ms in job.next_after],
    }


def namespace_json(view: NamespaceView) -> dict[str, Any]:
    """Return a namespace."""
    policy, usage = view.policy, view.usage
    return {
        "name": policy.name,
        "run_as": None if policy.run_as is None else list(policy.run_as),
        "quotas": asdict(policy.quotas),
        "usage": {**asdict(usage), "fires_per_minute": round(usage.fires_per_minute, 4)},
        "updated_at": _instant(policy.updated_ms),
    }


def token_json(token: Token) -> dict[str, Any]:
    """Return a token, without its secret, which nobody knows."""
    return {
        "id": str(token.id),
        "name": token.name,
        "role": token.role.value,
        "namespaces": token.scope.listed(),
        "created_at": rfc3339(token.created_ms),
        "expires_at": _instant(token.expires_ms),
        "revoked_at": _instant(token.revoked_ms),
    }


def applied_json(applied: Applied, *, dry_run: bool) -> dict[str, Any]:
    """Return what an apply did, or would do."""
    return {
        "dry_run": dry_run,
        "created": [_change_json(change, dry_run) for change in applied.created],
        "changed": [_change_json(change, dry_run) for change in applied.changed],
        "unchanged": [{"name": name, "id": str(job_id)} for name, job_id in applied.unchanged],
        "pruned": [_change_json(change, dry_run) for change in applied.pruned],
    }


def _change_json(change: Change, dry_run: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"name": change.name, "id": None if change.job_id is None else str(change.job_id)}
    if change.fields:
        data["fields"] = {field: {"from": was, "to": becomes} for field, (was, becomes) in change.fields.items()}
    if dry_run:
        data["next_before"] = [rfc3339(ms) for ms in change.next_before]
        data["next_after"] = [rfc3339(ms) for ms in change.next_after]
    return data


def _next_fire(job: Job, now_ms: int, fires: dict[object, int | None]) -> int | None:
    if job.state is not JobState.ACTIVE:
        return None
    after_ms = max(now_ms, job.effective_from_ms)
    key = (*job.spec.timing, after_ms)
    if key not in fires:
        try:
            fires[key] = next_fire(job.spec, after_ms)
        except ValueError:
            # Saved under older rules, or by a newer zone database: the rest of the job is still worth showing.
            fires[key] = None
    return fires[key]


def _last_run(run: LastRun) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "fire_time": rfc3339(run.fire_ms),
        "state": run.state.value,
        "ended_at": _instant(run.ended_ms),
    }


def _instant(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)
