"""The application: every request goes through one door, which knows the route's role, parameters and limits."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from flask import Flask, Response, g, request

from cronkeeper_api.auth import authorize, client_address
from cronkeeper_api.idempotency import once
from cronkeeper_api.params import parse_query
from cronkeeper_api.problems import response_of, to_problem
from cronkeeper_api.routing import Access, Call, Route
from cronkeeper_api.services import Services
from cronkeeper_api.views import all_routes

log = logging.getLogger(__name__)
access_log = logging.getLogger("cronkeeper_api.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
#: A form has two parts; more are a mistake or an attack.
_MAX_FORM_PARTS = 10
_UNEVENTFUL = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(services: Services) -> Flask:
    """Return the WSGI application. Raises RuntimeError if any path has no route that says who may use it."""
    app = Flask("cronkeeper_api", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=services.config.max_body_bytes,
        MAX_FORM_MEMORY_SIZE=services.config.max_body_bytes,
        MAX_FORM_PARTS=_MAX_FORM_PARTS,
        PROPAGATE_EXCEPTIONS=False,
    )
    # No redirects: a path is right or it is not.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    routes = routes_of(services)
    for route in routes:
        app.add_url_rule(
            route.path.replace("{", "<").replace("}", ">"),
            endpoint=route.endpoint,
            view_func=_door(route, services),
            methods=[route.method],
            provide_automatic_options=False,
        )
    _hooks(app, services)
    check_routes(app, routes)
    return app


def routes_of(services: Services) -> list[Route]:
    """Return all routes, each with who may use it under this configuration."""
    return all_routes(metrics=Access.PUBLIC if services.config.metrics_public else Access.VIEWER)


def check_routes(app: Flask, routes: Sequence[Route]) -> None:
    """Raise RuntimeError if the application answers anything that was not declared with a role."""
    declared = {route.endpoint for route in routes}
    stray = sorted({rule.endpoint for rule in app.url_map.iter_rules()} - declared)
    if stray:
        raise RuntimeError(f"these endpoints say nothing about who may use them: {', '.join(stray)}")


def _door(route: Route, services: Services) -> Callable[..., Response]:
    def enter(**parts: str) -> Response:
        caller = authorize(services.tokens, services.identities, route.access, route.reach)
        g.caller, g.known = caller.name, route.access is not Access.PUBLIC
        caller = replace(caller, source=client_address(services.config.trusted_proxies), request_id=g.request_id)
        call = Call(services.within(caller.scope), caller, g.request_id, parse_query(route.params, request.args))
        if route.idempotent:
            return once(call, lambda call: route.view(call, **parts), route.again)
        return services.slow.sending(route.view(call, **parts))

    return enter


def _hooks(app: Flask, services: Services) -> None:
    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.slow = services.slow
        g.begun = time.perf_counter()

    @app.errorhandler(Exception)
    def fail(exc: Exception) -> Response:
        problem = to_problem(exc)
        response = response_of(problem, g.get("request_id", ""))
        if "generation" in problem.extra and request.view_args and "job_id" in request.view_args:
            response.headers["ETag"] = f'"job-{request.view_args["job_id"]}-{problem.extra["generation"]}"'
        return response

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        if g.get("known"):
            # For HAProxy, which keeps it to itself: this token is none that somebody guesses.
            response.headers["X-Cronkeeper-Known"] = "1"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers.setdefault("Cache-Control", "no-store")
        _count(services, response)
        return response


def _count(services: Services, response: Response) -> None:
    route = request.url_rule.rule if request.url_rule is not None else "none"
    # Anything may stand in a request line; labels come from a closed list.
    method = request.method if request.url_rule is not None else "any"
    seconds = time.perf_counter() - g.get("begun", time.perf_counter())
    services.metrics.requests.labels(route, method, str(response.status_code)).inc()
    services.metrics.seconds.labels(route, method).observe(seconds)
    # HAProxy and Prometheus ask every second: of interest only to who looks for it.
    level = logging.DEBUG if route in _UNEVENTFUL and response.status_code == 200 else logging.INFO
    access_log.log(
        level,
        "a request was answered",
        extra={
            "event": "http.request",
            "method": request.method[:16],
            "path": request.path[:200],
            "status": response.status_code,
            "ms": round(seconds * 1000, 1),
            "by": g.get("caller", ""),
            "request": g.get("request_id", ""),
        },
    )
