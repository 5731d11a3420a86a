"""Idempotency-Key: the same request again gets the same answer, and does nothing twice."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace

from flask import Response, request

from cronkeeper.errors import CronkeeperError, FieldError, UnknownOutcomeError
from cronkeeper.ports import Idempotency
from cronkeeper_api.body import body_digest
from cronkeeper_api.problems import ProblemError
from cronkeeper_api.render import etag_of
from cronkeeper_api.routing import Again, Call

log = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII)


def once(call: Call, work: Callable[[Call], Response], again: Again | None) -> Response:
    """Return what `work` answers; or, for a key whose request has been answered, that answer again.

    A request that failed before anything was saved frees its key. Of one whose server died, `again` makes the answer
    from what it saved; had it saved nothing, it is worked on anew after a minute, in which it hears 409.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return work(call)
    if not _KEY.fullmatch(key):
        fault = FieldError("Idempotency-Key", "is not 1 to 200 printable characters without spaces", "send a UUID")
        raise ProblemError("invalid", "the Idempotency-Key is not usable", [fault])
    store = call.services.store.idempotency
    scope = f"{call.caller.id} {request.method} {request.path}"
    found = store.begin(scope, key, body_digest=body_digest(), now_ms=call.services.clock.now_ms())
    match found.outcome:
        case Idempotency.REPLAY:
            return _replayed(_stored(found.status, found.body))
        case Idempotency.SAVED if again is not None:
            return _replayed(again(call, found.saved))
        case Idempotency.MISMATCH:
            raise ProblemError("key-reused", "this Idempotency-Key was sent with another body; use a new one")
    mine = found.request
    if mine is None:
        detail = "a request with this Idempotency-Key is being worked on"
        raise ProblemError("in-flight", detail, headers={"Retry-After": "1"})
    try:
        response = work(replace(call, key=mine))
    except UnknownOutcomeError:
        raise
    except (CronkeeperError, ProblemError):
        store.abandon(mine)
        raise
    try:
        store.finish(mine, status=response.status_code, body=response.get_data())
    except CronkeeperError as exc:
        # What was asked for is done and must be answered; a repetition is answered from what was saved.
        log.warning("an answer could not be kept", extra={"event": "idempotency.lost", "error": str(exc)})
    return response


def _replayed(response: Response) -> Response:
    response.headers["Idempotent-Replayed"] = "true"
    return response


def _stored(status: int, body: bytes) -> Response:
    response = Response(body, status=status, content_type="application/json")
    if status == 201:
        data = json.loads(body)
        response.headers["Location"] = f"/jobs/{data['id']}"
        response.headers["ETag"] = etag_of(data["id"], data["generation"])
    return response
