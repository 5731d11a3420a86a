"""Errors as RFC 9457 problems: one stable type for each kind, every bad field named at once, on every answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from cronkeeper.errors import (
    ConflictError,
    CronkeeperError,
    FieldError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    StaleWriteError,
    UnavailableError,
    UnknownOutcomeError,
    ValidationFailedError,
)
from cronkeeper_manager.service import NameTakenError, StaleCalendarError, StaleJobError, TooLargeError

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
MAX_ERRORS = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its name (the last part of `type`), its status, and what the caller should do."""

    name: str
    status: int
    title: str
    help: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "malformed", 400, "The request cannot be read", "Send one JSON value in UTF-8; `errors` says what is wrong."
        ),
        Kind(
            "unauthorized",
            401,
            "A valid token is needed",
            "Send `Authorization: Bearer ck_…`; tokens expire and can be revoked.",
        ),
        Kind(
            "forbidden", 403, "The token's role does not allow this", "Use a token with the role that `detail` names."
        ),
        Kind(
            "not-found", 404, "There is no such thing", "Check the path and the id; what was purged is gone for good."
        ),
        Kind("method-not-allowed", 405, "The path does not know this method", "The `Allow` header lists the methods."),
        Kind(
            "too-slow",
            408,
            "The request came too slowly",
            "Its body did not arrive in time. Nothing was saved; send it again over a better connection.",
        ),
        Kind(
            "conflict", 409, "The present state forbids this", "Read the thing again; `detail` says what is in the way."
        ),
        Kind(
            "name-taken", 409, "The name is taken", "Choose another name or namespace, or change the job that has it."
        ),
        Kind(
            "in-flight",
            409,
            "The same request is being worked on",
            "Repeat it a little later, with the same Idempotency-Key.",
        ),
        Kind("stale", 412, "It has changed since it was read", "Read it again; `generation` is the present one."),
        Kind("too-large", 413, "The request or the file is too large", "`detail` says how much is allowed."),
        Kind(
            "unsupported-media-type",
            415,
            "The content type is not understood",
            "Send application/json, or multipart/form-data for files.",
        ),
        Kind(
            "invalid",
            422,
            "Some fields are wrong",
            "`errors` names every one of them, and how to mend it. Nothing was saved.",
        ),
        Kind("key-reused", 422, "The Idempotency-Key belongs to another request", "Use a new key for a new request."),
        Kind(
            "over-quota",
            422,
            "The namespace's quota does not allow it",
            "`errors` names the field and the quota. Finish other jobs, or ask an admin for more. Nothing was saved.",
        ),
        Kind("too-many", 429, "Too many at once", "Wait as long as `Retry-After` says."),
        Kind("internal", 500, "Something is wrong here", "Tell the administrators the `instance`; their logs have it."),
        Kind("unknown-outcome", 500, "It is not known whether it was saved", "Read before you repeat it."),
        Kind(
            "no-answer",
            502,
            "The API server gave no answer",
            "It is not known whether it was saved: read first, or repeat it with the same Idempotency-Key.",
        ),
        Kind(
            "unavailable", 503, "A store cannot be reached", "Nothing was saved; repeat it after `Retry-After` seconds."
        ),
        Kind(
            "late-answer",
            504,
            "The API server did not answer in time",
            "It is not known whether it was saved: read first, or repeat it with the same Idempotency-Key.",
        ),
    )
}

_BY_STATUS = {400: "malformed", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "method-not-allowed"}
_BY_STATUS |= {
    408: "too-slow",
    409: "conflict",
    412: "stale",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid",
}
_BY_STATUS |= {429: "too-many", 431: "too-large", 503: "unavailable"}


@dataclass(slots=True)
class ProblemError(Exception):
    """An answer that is a problem. `extra` are further members of its body."""

    kind: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def to_problem(exc: BaseException) -> ProblemError:
    """Return the problem that an exception is to the caller. Unexpected ones are logged and told without details."""
    match exc:
        case ProblemError():
            return exc
        case CronkeeperError():
            return _of_ours(exc)
        case HTTPException() if exc.code is not None and 400 <= exc.code < 600:
            return _of_http(exc, exc.code)
    return _internal(exc)


def _of_ours(exc: CronkeeperError) -> ProblemError:
    match exc:
        case ValidationFailedError():
            return ProblemError("invalid", _count(exc.errors), exc.errors)
        case PermissionDeniedError():
            return ProblemError("forbidden", str(exc), [FieldError(exc.field, str(exc))] if exc.field else ())
        case QuotaExceededError():
            return _of_quota(exc)
        case NotFoundError():
            return ProblemError("not-found", str(exc))
        case NameTakenError():
            return ProblemError("name-taken", str(exc), [FieldError("name", "is taken in this namespace")])
        case ConflictError():
            return ProblemError("conflict", str(exc))
        case StaleJobError() | StaleCalendarError():
            return ProblemError("stale", str(exc), extra={"generation": exc.generation})
        case StaleWriteError():
            return ProblemError("conflict", "it was changed at the same moment; try again")
        case TooLargeError():
            return ProblemError("too-large", str(exc), [FieldError(exc.field, str(exc))])
        case UnavailableError():
            log.warning("a store could not be reached", extra={"event": "store.unavailable", "error": str(exc)})
            return unavailable()
        case UnknownOutcomeError():
            log.error("a write's outcome is unknown", extra={"event": "store.unknown_outcome", "error": str(exc)})
            return ProblemError("unknown-outcome", "the answer of the store was lost; read before you repeat it")
    return _internal(exc)


def _of_quota(exc: QuotaExceededError) -> ProblemError:
    fault = FieldError(exc.field, f"goes beyond the quota {exc.quota}", "see GET /namespaces")
    if exc.retry_after_s is None:
        return ProblemError("over-quota", str(exc), [fault])
    return ProblemError("too-many", str(exc), [fault], headers={"Retry-After": str(exc.retry_after_s)})


def _internal(exc: BaseException) -> ProblemError:
    log.error("a request failed", extra={"event": "request.failed"}, exc_info=exc)
    return ProblemError("internal", "the request failed for a reason that is ours; it is in the logs")


def unavailable(detail: str = "a store could not be reached; nothing was saved") -> ProblemError:
    """Return the problem of a store that does not answer."""
    return ProblemError("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def response_of(problem: ProblemError, instance: str) -> Response:
    """Return the answer: application/problem+json with the request's id as `instance`."""
    kind = KINDS[problem.kind]
    body: dict[str, Any] = {
        "type": f"/problems/{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "instance": instance,
        "errors": [
            {"field": error.field, "message": error.message, "hint": error.hint}
            for error in problem.errors[:MAX_ERRORS]
        ],
        **problem.extra,
    }
    response = Response(json.dumps(body) + "\n", status=kind.status, content_type="application/problem+json")
    response.headers.update(dict(problem.headers))
    return response


def _of_http(exc: HTTPException, code: int) -> ProblemError:
    name = _BY_STATUS.get(code, "internal" if code >= 500 else "malformed")
    headers = {}
    if isinstance(exc, MethodNotAllowed) and exc.valid_methods:
        headers["Allow"] = ", ".join(sorted(exc.valid_methods))
    detail = {404: "there is nothing at this path", 413: "the request's body is larger than allowed"}.get(code)
    return ProblemError(name, detail or KINDS[name].title.lower(), headers=headers)


def _count(errors: Sequence[FieldError]) -> str:
    fields = sorted({error.field for error in errors})
    shown = ", ".join(fields[:5]) + (" and more" if len(fields) > 5 else "")
    return f"{len(errors)} {'fault' if len(errors) == 1 else 'faults'}, in {shown}"
