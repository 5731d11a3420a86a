"""/runs: on demand, history, output, cancel."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Sequence

from flask import Response, request

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Run
from cronkeeper_api.body import read_body
from cronkeeper_api.models import RunInput
from cronkeeper_api.params import Param, Type
from cronkeeper_api.problems import ProblemError
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import json_response, run_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.services import Services
from cronkeeper_api.slow_clients import SMALL_ANSWER_BYTES
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import job_id_of, next_page, run_key_of

router = Router("runs")

_MAX_BYTES = 2**40


def _requested(runs: Sequence[Run]) -> Response:
    body = [run_json(run) for run in runs]
    headers = {"Location": f"/runs/{runs[0].id}"}
    return json_response(body if len(runs) > 1 else body[0], 202, headers)


def _requested_before(call: Call, saved: Sequence[str]) -> Response:
    return _requested([call.services.runs.get(RunKey.parse(run_id)) for run_id in saved])


@router.route(
    "POST",
    "/jobs/{job_id}/run",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Run a job now",
    description="Besides its schedule; a paused job may be run, too. The answer is the run, or an array of runs for a "
    "job with several shards.",
    body=RunInput,
    body_required=False,
    example={},
    answers={202: Answer("The run, still pending.", "RunOrRuns", examples.PENDING_RUN, headers=("Location",))},
    problems=("not-found", "conflict"),
    idempotent=True,
    again=_requested_before,
)
def run_now(call: Call, job_id: str) -> Response:
    wanted = read_model(RunInput, read_body(optional=True).value)
    call.services.jobs.sign_pause(job_id_of(job_id), call.caller)
    return _requested(call.services.runs.run_now(job_id_of(job_id), call.caller, shard=wanted.shard, request=call.key))


@router.route(
    "GET",
    "/jobs/{job_id}/runs",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="See a job's history",
    description="Newest fire time first. The Link header with rel=next leads to older runs.",
    params=(
        Param("limit", Type.INTEGER, "How many at most.", 100, low=1, high=10_000),
        Param("before", Type.RUN_ID, "The id of the run below which the page begins."),
    ),
    answers={200: Answer("Runs.", "Run", [examples.RUN], headers=("Link",), many=True)},
    problems=("not-found",),
)
def history(call: Call, job_id: str) -> Response:
    limit = call.query["limit"]
    found = call.services.runs.history(job_id_of(job_id), limit=limit + 1, before=call.query["before"])
    page = found[:limit]
    headers = next_page(before=page[-1].id) if len(found) > limit else {}
    return json_response([run_json(run) for run in page], headers=headers)


@router.route(
    "GET",
    "/runs/{run_id}",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read a run",
    answers={200: Answer("The run.", "Run", examples.RUN)},
    problems=("not-found",),
)
def get_run(call: Call, run_id: str) -> Response:
    return json_response(run_json(call.services.runs.get(run_key_of(run_id))))


@router.route(
    "POST",
    "/runs/{run_id}/cancel",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="End a run",
    description="A pending run is cancelled at once; for one in progress its worker is asked to end the process.",
    answers={202: Answer("The run as it is now.", "Run", examples.RUN)},
    problems=("not-found", "conflict"),
)
def cancel_run(call: Call, run_id: str) -> Response:
    return json_response(run_json(call.services.runs.cancel(run_key_of(run_id), call.caller)), 202)


@router.route(
    "GET",
    "/runs/{run_id}/log",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read a run's output",
    description="As bytes, so far. With follow=1 the answer goes on until the run has ended. X-Run-State is the state "
    "at the beginning.",
    params=(
        Param("offset", Type.INTEGER, "The byte to begin with.", 0, high=_MAX_BYTES),
        Param("tail", Type.INTEGER, "Only the last so many bytes.", low=1, high=_MAX_BYTES),
        Param("follow", Type.BOOLEAN, "Go on until the run has ended.", False),
    ),
    answers={200: Answer("The output.", media="text/plain", headers=("X-Run-State",), example="total 0\n")},
    problems=("not-found", "too-many"),
)
def read_log(call: Call, run_id: str) -> Response:
    run = call.services.runs.get(run_key_of(run_id))
    offset = _begin(run, call.query["offset"], call.query["tail"])
    response = Response(content_type="text/plain; charset=utf-8")
    if call.query["follow"]:
        response.response = _follow(call.services, run, offset)
    else:
        response.response = call.services.runs.output(run.key, offset=offset)
        if run.output_bytes - offset > SMALL_ANSWER_BYTES:
            call.services.slow.take()
            response.call_on_close(call.services.slow.release)
    response.headers["X-Run-State"] = run.state.value
    # Output is a job's, not ours: a browser must show it as text and nothing else.
    response.headers["Content-Disposition"] = f'inline; filename="{run.id}.log"'
    # Proxies hand the bytes on as they come.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _begin(run: Run, offset: int, tail: int | None) -> int:
    return offset if tail is None else max(offset, run.output_bytes - tail)


def _follow(services: Services, run: Run, offset: int) -> Iterator[bytes]:
    """Take one of the places for live tails: each holds a thread, and other requests need some, too."""
    if not services.tails.acquire(blocking=False):
        raise ProblemError("too-many", "too many live tails on this server", headers={"Retry-After": "10"})
    services.metrics.followers.inc()
    return _Tail(services, run, offset, request.environ.get("gunicorn.socket"))


class _Tail:
    """A live tail: an iterator whose `close` gives the place back, also when it never began."""

    def __init__(self, services: Services, run: Run, offset: int, connection: socket.socket | None) -> None:
        self._chunks = services.runs.follow(
            run.key, offset=offset, stop=services.stopping, limit_s=services.config.follow_limit_s
        )
        self._services = services
        self._connection = connection
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        if not chunk and self._connection is not None and _is_gone(self._connection):
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Called by the server when the answer has ended, however it ended."""
        if self._open:
            self._open = False
            self._services.metrics.followers.dec()
            self._services.tails.release()


def _is_gone(connection: socket.socket) -> bool:
    """Say whether the client has closed its end: while nothing is written, nothing else would tell."""
    try:
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
