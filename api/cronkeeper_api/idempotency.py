"""Idempotency-Key: the same request again gets the same answer, and does nothing twice."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable

from flask import Response, request

from cronkeeper.errors import CronkeeperError, FieldError, UnknownOutcomeError
from cronkeeper.ports import Idempotency
from cronkeeper_api.body import body_digest
from cronkeeper_api.problems import ProblemError
from cronkeeper_api.render import etag_of
from cronkeeper_api.routing import Call

log = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


def once(call: Call, work: Callable[[], Response]) -> Response:
    """Return what `work` answers; or, for a key whose request has been answered, that answer again.

    A request that failed before anything was saved frees its key. One whose outcome is unknown keeps it: better a
    409 than a second job.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return work()
    if not _KEY.fullmatch(key):
        fault = FieldError("Idempotency-Key", "is not 1 to 200 printable characters without spaces", "send a UUID")
        raise ProblemError("invalid", "the Idempotency-Key is not usable", [fault])
    store = call.services.store.idempotency
    scope = f"{call.caller.id} {request.method} {request.path}"
    found = store.begin(scope, key, body_digest=body_digest(), now_ms=call.services.clock.now_ms())
    match found.outcome:
        case Idempotency.REPLAY:
            return _replay(found.status, found.body)
        case Idempotency.MISMATCH:
            raise ProblemError("key-reused", "this Idempotency-Key was sent with another body; use a new one")
        case Idempotency.IN_FLIGHT:
            raise ProblemError(
                "in-flight", "a request with this Idempotency-Key is being worked on", headers={"Retry-After": "1"}
            )
    try:
        response = work()
    except UnknownOutcomeError:
        raise
    except (CronkeeperError, ProblemError):
        store.abandon(scope, key)
        raise
    try:
        store.finish(scope, key, status=response.status_code, body=response.get_data())
    except CronkeeperError as exc:
        # What was asked for is done and must be answered; only a repetition will hear 409 instead of this answer.
        log.warning("an answer could not be kept", extra={"event": "idempotency.lost", "error": str(exc)})
    return response


def _replay(status: int, body: bytes) -> Response:
    response = Response(body, status=status, content_type="application/json")
    response.headers["Idempotent-Replayed"] = "true"
    if status == 201:
        data = json.loads(body)
        response.headers["Location"] = f"/jobs/{data['id']}"
        response.headers["ETag"] = etag_of(data["id"], data["generation"])
    return response
