"""/healthz, /readyz and /metrics: for HAProxy and Prometheus."""

from __future__ import annotations

from flask import Response

from cronkeeper_api.problems import unavailable
from cronkeeper_api.render import json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router

router = Router("health")


@router.route(
    "GET",
    "/healthz",
    access=Access.PUBLIC,
    reach=Reach.SHARED,
    summary="Is the process alive?",
    description="Asks nobody else.",
    answers={200: Answer("It is.", "Health", {"status": "ok"})},
)
def healthz(_call: Call) -> Response:
    return json_response({"status": "ok"})


@router.route(
    "GET",
    "/readyz",
    access=Access.PUBLIC,
    reach=Reach.SHARED,
    summary="Should this server get requests?",
    description="503 while MySQL does not answer or the server is about to stop. ZooKeeper is told of, but not needed: "
    "jobs are taken without it.",
    answers={200: Answer("It should.", "Health", {"status": "ok", "mysql": "ok", "zookeeper": "ok"})},
)
def readyz(call: Call) -> Response:
    services = call.services
    if services.draining():
        raise unavailable("this server is about to stop")
    if not services.pulse.beats():
        raise unavailable("MySQL does not answer")
    connected = services.coordinator.connected
    services.metrics.zookeeper.set(connected)
    return json_response({"status": "ok", "mysql": "ok", "zookeeper": "ok" if connected else "away"})


@router.route(
    "GET",
    "/metrics",
    access=Access.VIEWER,
    summary="Numbers for Prometheus",
    answers={200: Answer("Prometheus's text format.", media="text/plain", example="# HELP …\n")},
)
def metrics(call: Call) -> Response:
    call.services.metrics.zookeeper.set(call.services.coordinator.connected)
    return Response(call.services.metrics.expose(), content_type="text/plain; version=0.0.4; charset=utf-8")
