"""Schemathesis over our OpenAPI document: all its phases, and what it found wrong in a form that a test can show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.openapi import from_dict

PHASES = ("examples", "coverage", "fuzzing", "stateful")
#: Statuses that refuse a request that does not fit its schema. 412 and 409 come first where a precondition fails, too.
_REFUSALS = [400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429]
#: `POST /calendars/refresh` and `/calendars/{name}` share a path, and so their methods; as do the secrets'.
_SHARED_PATHS = ("/calendars/refresh", "/secrets/rotate")
#: A job that was removed is finished, not gone: it and its history can still be read.
_KEPT = "/jobs/{job_id}"


@dataclass(frozen=True)
class Sent:
    """One request, and the status of its answer."""

    operation: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    status: int


@dataclass
class Findings:
    """What a run found. `faults` holds one text for each kind of fault, `errors` what kept it from looking."""

    cases: Counter[str] = field(default_factory=Counter)
    sent: list[Sent] = field(default_factory=list)
    faults: dict[tuple[str, ...], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def explore(
    document: Mapping[str, Any], *, headers: Mapping[str, str], max_examples: int, app: Any = None, url: str = ""
) -> Findings:
    """Send what the document allows and what it does not, to the WSGI `app` or to the server at `url`.

    The same document gives the same requests, but for what they take from answers.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": 20261201,
            "cache": {"enabled": False},
            "continue-on-failure": True,
            "headers": dict(headers),
            "generation": {
                "max-examples": max_examples,
                "deterministic": True,
                "no-shrink": True,
                "database": "none",
            },
            "phases": {phase: {"enabled": True} for phase in PHASES},
            "checks": {
                # What fits the schema can still be wrong: a schedule that never fires.
                "positive_data_acceptance": {"enabled": False},
                # It cannot leave the token out of requests to a WSGI application: the test does that.
                "ignored_auth": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": _REFUSALS},
            },
            **({"base-url": url} if url else {}),
        }
    )
    schema = from_dict(dict(document), config=config)
    if app is not None:
        schema.app = app
    found = Findings()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(event, found)
        elif isinstance(event, events.NonFatalError):
            found.errors.append(f"{event.label}: {event.value}")
        elif isinstance(event, events.FatalError):
            found.errors.append(str(event.exception))
    return found


def _note(event: events.ScenarioFinished, found: Findings) -> None:
    recorder = event.recorder
    found.cases[event.phase.value] += len(recorder.cases)
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is None:
            continue
        request, case = interaction.request, recorder.cases[case_id].value
        headers = {name: values[0] for name, values in request.headers.items()}
        operation = f"{case.operation.method.upper()} {case.operation.path}"
        found.sent.append(
            Sent(operation, request.method, request.uri, headers, request.body, interaction.response.status_code)
        )
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure, case = check.failure_info.failure, recorder.cases[case_id].value
            if _is_meant(type(failure).__name__, case.operation.path):
                continue
            answer = recorder.interactions[case_id].response
            shown = "" if answer is None else f"{answer.status_code} {answer.content[:500]!r}"
            asked = f"{case.method} {case.formatted_path} {case.query} {str(case.body)[:500]}"
            key = (type(failure).__name__, event.label or "", failure.title)
            found.faults.setdefault(key, f"{failure.message[:500]}\n  {asked}\n  {shown}")


def _is_meant(failure: str, path: str) -> bool:
    if failure == "AllowHeaderMismatch":
        return path in _SHARED_PATHS
    return failure == "UseAfterFree" and path.startswith(_KEPT)
