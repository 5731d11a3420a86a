"""/calendars: days that several jobs share by a name."""

from __future__ import annotations

import re
from collections.abc import Collection

from flask import Response, request

from cronkeeper.domain.job import DEFAULT_NAMESPACE
from cronkeeper_api.body import read_body
from cronkeeper_api.models import NamedCalendarInput
from cronkeeper_api.params import Param, Type
from cronkeeper_api.reading import read_model
from cronkeeper_api.render import calendar_change_json, calendar_etag, calendar_json, json_response, refreshed_json
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import DRY_RUN, next_page
from cronkeeper_manager.service import CalendarDraft

router = Router("calendars")

_ETAG = re.compile(r'"calendar-([0-9]{1,18})-([0-9]{1,18})"', re.ASCII)
_NAMESPACE = Param("namespace", Type.TEXT, "The calendar's namespace.", DEFAULT_NAMESPACE, high=63)
_CHANGE = Answer(
    "The calendar, how many jobs were saved anew, and up to 20 of them with their next fires before and after.",
    "CalendarChange",
    examples.CALENDAR_CHANGE,
    headers=("ETag",),
)


@router.route(
    "GET",
    "/calendars",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="List calendars",
    description="By namespace and name. The Link header with rel=next leads to the next page.",
    params=(
        Param("limit", Type.INTEGER, "How many at most.", 100, low=1, high=1000),
        Param("after", Type.TEXT, "The namespace/name after which the page begins.", "", high=200),
        Param("namespace", Type.TEXT, "Only this namespace.", high=63),
    ),
    answers={200: Answer("A page of calendars.", "NamedCalendar", [examples.CALENDAR], headers=("Link",), many=True)},
)
def list_calendars(call: Call) -> Response:
    limit, only = call.query["limit"], call.query["namespace"]
    namespace, _, name = call.query["after"].partition("/")
    within = None if only is None else frozenset({only})
    found = call.services.calendars.page(within=within, after=(namespace, name), limit=limit + 1)
    page = found[:limit]
    headers = next_page(after=f"{page[-1].namespace}/{page[-1].name}") if len(found) > limit else {}
    return json_response([calendar_json(item) for item in page], headers=headers)


@router.route(
    "GET",
    "/calendars/{name}",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="Read a calendar",
    params=(_NAMESPACE,),
    answers={200: Answer("The calendar.", "NamedCalendar", examples.CALENDAR, headers=("ETag",))},
    problems=("not-found",),
)
def get_calendar(call: Call, name: str) -> Response:
    found = call.services.calendars.get(call.query["namespace"], name)
    return json_response(calendar_json(found), headers={"ETag": calendar_etag(found)})


@router.route(
    "PUT",
    "/calendars/{name}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Make or change a calendar",
    description="Every job that names it is saved anew with the new days, and follows them from now on, never "
    "backwards. With very many jobs one request does not get through: the same request again goes on while `remaining` "
    "is not 0, also after a request that broke off.",
    params=(_NAMESPACE, DRY_RUN),
    body=NamedCalendarInput,
    example=examples.CALENDAR_INPUT,
    answers={200: _CHANGE, 201: _CHANGE},
    problems=("stale", "conflict"),
    if_match=True,
)
def put_calendar(call: Call, name: str) -> Response:
    wanted = read_model(NamedCalendarInput, read_body().value)
    dry_run = call.query["dry_run"]
    found = call.services.calendars.put(
        call.query["namespace"],
        name,
        CalendarDraft(wanted.description, tuple(wanted.exclude), tuple(wanted.include)),
        call.caller,
        expected=_expected(),
        dry_run=dry_run,
    )
    status = 201 if found.created and not dry_run else 200
    headers = {} if dry_run else {"ETag": calendar_etag(found.calendar)}
    return json_response(calendar_change_json(found, dry_run=dry_run), status, headers)


@router.route(
    "DELETE",
    "/calendars/{name}",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Remove a calendar",
    description="One that jobs name stays, finished ones included: the problem names them.",
    params=(_NAMESPACE,),
    answers={204: Answer("It is removed.")},
    problems=("not-found", "stale", "conflict"),
    if_match=True,
)
def delete_calendar(call: Call, name: str) -> Response:
    call.services.calendars.delete(call.query["namespace"], name, call.caller, _expected())
    return Response(status=204)


@router.route(
    "POST",
    "/calendars/refresh",
    access=Access.OPERATOR,
    reach=Reach.NAMESPACES,
    summary="Copy more years of holidays into jobs that run out of them",
    description="Looks at a page of jobs, oldest first. Where holidays are known for less than two years, years are "
    "added; days that a job has stay as they are. Copies of named calendars that were left behind are brought up to "
    "date. Repeat it with `after` until that is null.",
    params=(
        Param("limit", Type.INTEGER, "How many jobs to look at.", 1000, low=1, high=5000),
        Param("after", Type.INTEGER, "The id after which the page begins.", 0),
        DRY_RUN,
    ),
    answers={200: Answer("What was (or would be) changed.", "CalendarRefresh", examples.CALENDAR_REFRESH)},
    problems=("conflict",),
)
def refresh_calendars(call: Call) -> Response:
    query = call.query
    found = call.services.calendars.refresh(
        call.caller, after=query["after"], limit=query["limit"], dry_run=query["dry_run"]
    )
    return json_response(refreshed_json(found, dry_run=query["dry_run"]))


def _expected() -> Collection[tuple[int, int]] | None:
    """Return what If-Match names, or None when any will do. Foreign and weak tags match nothing."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tags = [_ETAG.fullmatch(tag.strip()) for tag in header.split(",")]
    return {(int(tag[1]), int(tag[2])) for tag in tags if tag is not None}
