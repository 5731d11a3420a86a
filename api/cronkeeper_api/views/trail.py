"""/audit: who did what, from where, and whether that was altered."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from cronkeeper.domain.instants import rfc3339
from cronkeeper.ports import TrailQuery
from cronkeeper.wire.trail import Entry, Link
from cronkeeper_api.params import Param, Type
from cronkeeper_api.render import json_response
from cronkeeper_api.routing import Access, Answer, Call, Router
from cronkeeper_api.views import examples
from cronkeeper_api.views.shared import next_page
from cronkeeper_manager.service.trail import Check

router = Router("audit")

_MAX_PAGE = 10_000


@router.route(
    "GET",
    "/audit",
    access=Access.ADMIN,
    summary="Read the audit trail",
    description="Oldest first. The Link header with rel=next leads to what came later. Entries that no leader has "
    "linked into the chain yet have no `seq`; they come at the end of the last page.",
    params=(
        Param("limit", Type.INTEGER, "How many at most.", 1000, low=1, high=_MAX_PAGE),
        Param("after", Type.INTEGER, "The seq after which the page begins.", 0),
        Param("actor", Type.TEXT, "Only what tokens of this name did.", high=190),
        Param("action", Type.TEXT, "Only this, such as job.created.", high=64),
        Param("object", Type.TEXT, "Only what was done to this: job/17, worker/node-3; or to a kind: token.", high=190),
        Param("from", Type.INSTANT, "Only since this instant."),
        Param("to", Type.INSTANT, "Only until this instant."),
    ),
    answers={200: Answer("Entries.", "AuditEntry", [examples.AUDIT_ENTRY], headers=("Link",), many=True)},
)
def read_trail(call: Call) -> Response:
    given = call.query
    kind, _, object_id = (given["object"] or "").partition("/")
    query = TrailQuery(
        limit=given["limit"],
        after=given["after"],
        actor=given["actor"],
        action=given["action"],
        kind=kind or None,
        object_id=object_id or None,
        from_ms=given["from"],
        to_ms=given["to"],
    )
    page = call.services.trail.page(query)
    body = [_link_json(link) for link in page.links] + [_entry_json(entry) for entry in page.waiting]
    headers = next_page(after=str(page.links[-1].seq)) if page.more else {}
    return json_response(body, headers=headers)


@router.route(
    "GET",
    "/audit/verify",
    access=Access.ADMIN,
    summary="Check that the audit trail was not altered",
    description="A piece at a time: call it again with `through` as `after`, until `done` or until something is "
    "broken. What ZooKeeper knows of the trail, the `anchor`, is compared, too.",
    params=(
        Param("limit", Type.INTEGER, "How many to check at most.", _MAX_PAGE, low=1, high=_MAX_PAGE),
        Param("after", Type.INTEGER, "The seq after which to begin.", 0),
    ),
    answers={200: Answer("What was found.", "AuditCheck", examples.AUDIT_CHECK)},
)
def verify_trail(call: Call) -> Response:
    return json_response(_check_json(call.services.trail.check(after=call.query["after"], limit=call.query["limit"])))


def _link_json(link: Link) -> dict[str, Any]:
    return {**_entry_json(link.entry), "seq": link.seq, "prev_hash": link.prev_hash, "hash": link.hash}


def _entry_json(entry: Entry) -> dict[str, Any]:
    actor = entry.actor
    return {
        "seq": None,
        "at": rfc3339(entry.at_ms),
        "actor": {"token": actor.token, "name": actor.name, "role": actor.role},
        "source": actor.source,
        "request_id": actor.request_id,
        "action": entry.action,
        "object": f"{entry.kind}/{entry.object_id}",
        "namespace": entry.namespace or None,
        "old": _value(entry.old),
        "new": _value(entry.new),
        "nonce": entry.nonce,
        "prev_hash": None,
        "hash": None,
    }


def _value(text: str) -> Any:
    """Return what a text says. One that is no JSON was not written by us: it is shown as it is."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def _check_json(found: Check) -> dict[str, Any]:
    fault, anchor = found.fault, found.anchor
    return {
        "checked": found.checked,
        "through": found.through,
        "hash": found.hash or None,
        "done": found.done,
        "broken": None if fault is None else {"seq": fault.seq, "why": fault.why},
        "anchor": None
        if anchor is None
        else {"seq": anchor.seq, "hash": anchor.hash, "at": rfc3339(anchor.at_ms), "floor": anchor.floor},
    }
