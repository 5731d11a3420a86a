"""/openapi.json and /docs: the API, for programs and for people."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from flask import Response

from cronkeeper_api.docs import POLICY, page_of
from cronkeeper_api.openapi import document_of
from cronkeeper_api.render import json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router

router = Router("documents")


@router.route(
    "GET",
    "/openapi.json",
    access=Access.VIEWER,
    reach=Reach.SHARED,
    summary="This API as an OpenAPI 3.1 document",
    answers={200: Answer("The document.", "Document", {"openapi": "3.1.0"})},
)
def openapi(call: Call) -> Response:
    return json_response(_document(call.services.config.metrics_public))


@router.route(
    "GET",
    "/docs",
    access=Access.VIEWER,
    reach=Reach.SHARED,
    summary="This API for people",
    answers={200: Answer("A page.", media="text/html", example="<!DOCTYPE html>…")},
)
def docs(call: Call) -> Response:
    response = Response(
        page_of(_document(call.services.config.metrics_public)), content_type="text/html; charset=utf-8"
    )
    response.headers["Content-Security-Policy"] = POLICY
    return response


@lru_cache(maxsize=2)
def _document(metrics_public: bool) -> dict[str, Any]:
    # Here, not above: the routes include this module's.
    from cronkeeper_api.views import all_routes

    return document_of(all_routes(metrics=Access.PUBLIC if metrics_public else Access.VIEWER))
