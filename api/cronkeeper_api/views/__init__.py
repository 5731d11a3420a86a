"""The views: one module for each part of the API."""

from __future__ import annotations

from dataclasses import replace

from cronkeeper_api.routing import Access, Route
from cronkeeper_api.views import (
    backfill,
    bulk,
    calendars,
    denials,
    documents,
    fleet,
    forecast,
    health,
    jobs,
    namespaces,
    resign,
    runs,
    secrets,
    tokens,
    trail,
    why,
)


def all_routes(*, metrics: Access) -> list[Route]:
    """Return every route of the API; `metrics` is who may read the numbers."""
    of_jobs = (jobs, bulk, runs, backfill, why, forecast, calendars)
    of_all = (fleet, namespaces, tokens, denials, resign, secrets, trail, health, documents)
    found = [route for module in (*of_jobs, *of_all) for route in module.router.routes]
    return [replace(route, access=metrics) if route.path == "/metrics" else route for route in found]
