"""What several views need."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from cronkeeper.domain.ids import RunKey, is_job_id
from cronkeeper.domain.job import DEFAULT_NAMESPACE, Job
from cronkeeper.errors import NotFoundError
from cronkeeper_api.params import Param, Type
from cronkeeper_api.render import etag_of, job_json, json_response
from cronkeeper_api.routing import Call
from cronkeeper_manager.service.preview import MAX_COUNT

_ETAG = re.compile(r'"job-([0-9]+)-([0-9]{1,18})"', re.ASCII)

COUNT = Param("count", Type.INTEGER, "How many fire times.", 10, low=1, high=MAX_COUNT)
AFTER = Param("after", Type.INSTANT, "The instant (RFC 3339) after which to look; now unless given.")
DRY_RUN = Param("dry_run", Type.BOOLEAN, "Only show what would change.", False)


def accounts_of(call: Call, value: Any) -> tuple[str, ...]:
    """Return the accounts that a job may name in `run_as`, by the namespace that its JSON names."""
    given = value.get("namespace", DEFAULT_NAMESPACE) if isinstance(value, dict) else DEFAULT_NAMESPACE
    return call.services.namespaces.run_as_of(given)


def job_id_of(text: str) -> int:
    """Return the id in a path. What cannot be an id does not exist."""
    if not is_job_id(text):
        raise NotFoundError("there is no job with this id; ids are numbers")
    return int(text)


def run_key_of(text: str) -> RunKey:
    """Return the run's key in a path. What cannot be a run does not exist."""
    try:
        return RunKey.parse(text)
    except ValueError as exc:
        raise NotFoundError("there is no run with this id") from exc


def expected_generations(job_id: int) -> Collection[int] | None:
    """Return the generations that If-Match names, or None when any will do.

    Foreign and weak tags match nothing: the answer is then 412.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tags = [_ETAG.fullmatch(tag.strip()) for tag in header.split(",")]
    return {int(tag[2]) for tag in tags if tag is not None and int(tag[1]) == job_id}


def job_response(call: Call, job: Job, status: int = 200) -> Response:
    """Return one job with its ETag."""
    # A new job has no worker yet: no need to ask.
    workers = [] if status == 201 else call.services.jobs.workers_of([job]).get(job.id, [])
    headers = {"ETag": etag_of(job.id, job.generation)}
    if status == 201:
        headers["Location"] = f"/jobs/{job.id}"
    body = job_json(job, now_ms=call.services.clock.now_ms(), workers=workers)
    return json_response(body, status, headers)


def next_page(**changes: str) -> dict[str, str]:
    """Return the Link header of the next page: this request with these parameters changed."""
    given = [(key, value) for key, value in request.args.items(multi=True) if key not in changes]
    return {"Link": f'<{request.path}?{urlencode([*given, *changes.items()])}>; rel="next"'}
