"""Whether what stands in MySQL was asked for: the audit trail knows who made a token, cordoned a worker, ended a job.

Whoever may write in the database can write past the API. They can forge an entry of the trail, too; but then the trail
tells of it, and a person sees what nobody did. What is decided here is PURE.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import NodeInfo
from cronkeeper.ports import Cordon, PlanRow, Token
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.service.denials import digest_of


def token_fault(token: Token, entries: Sequence[Entry]) -> str:
    """Say what of a token the trail does not know; an empty text where all of it was asked for."""
    made = [_new(entry) for entry in entries if entry.action == "token.created"]
    if not made:
        return f"the trail does not tell who made token {token.id} ({token.name}, {token.role.value})"
    told = made[-1]
    for field, actual in (("name", token.name), ("role", token.role.value), ("namespaces", token.scope.listed())):
        if told.get(field) != actual:
            return f"token {token.id} has {field} {actual}; it was made with {told.get(field)}"
    # Entries of earlier versions do not tell it.
    if not hmac.compare_digest(str(told.get("digest", token.digest)), token.digest):
        return f"token {token.id} ({token.name}) has another secret than the one it was made with"
    if token.revoked_ms is None and any(entry.action == "token.revoked" for entry in entries):
        return f"token {token.id} ({token.name}) was revoked, and is not any more"
    return ""


def identity_fault(token: Token, entries: Sequence[Entry]) -> str:
    """Say what the trail does not know of an issuer's identity that is (or was) denied; else an empty text."""
    issuer, _, subject = token.name.partition("#")
    if not hmac.compare_digest(digest_of(issuer, subject), token.digest):
        return f"the denial of {token.name} is altered: it is not found by that name"
    told = [entry.action for entry in entries if entry.action in _DENIALS]
    denied, asked_for = token.revoked_ms is not None, told[-1:] == ["identity.denied"]
    if denied and not asked_for:
        return f"{token.name} is denied, and the trail does not tell who asked for it"
    if asked_for and not denied:
        return f"{token.name} was denied, and is not any more"
    return ""


_DENIALS = ("identity.denied", "identity.allowed")


def cordon_fault(cordon: Cordon, entries: Sequence[Entry]) -> str:
    """Say that nobody asked for what is wanted of a worker; an empty text where somebody did."""
    wish = {"cordoned": cordon.cordoned, "draining": cordon.draining}
    told = [_new(entry) for entry in entries if entry.action in _CORDONS]
    if told and {name: told[-1].get(name) for name in wish} == wish:
        return ""
    if not told and not any(wish.values()):
        return ""
    wanted = " and ".join(name for name, on in wish.items() if on) or "neither cordoned nor draining"
    return f"worker {cordon.worker} is to be {wanted}, and the trail does not tell who asked for it"


_CORDONS = ("worker.cordoned", "worker.uncordoned", "worker.drained")


def state_change(before: PlanRow, after: PlanRow | None) -> str:
    """Say what became of a job without a new generation, which every change by a user makes; else an empty text.

    A leader ends jobs that way, and pauses them; a job that is gone was purged. All three leave a word elsewhere.
    """
    if after is None:
        return "its row is gone"
    if after.generation < before.generation:
        return f"its row went back from generation {before.generation} to {after.generation}"
    if after.generation > before.generation or after.state is before.state:
        return ""
    return f"its row says {after.state.value} now, and said {before.state.value} before"


def may_be_asked_for(before: PlanRow, after: PlanRow | None) -> bool:
    """Say whether an entry or an event may account for it. A finished or paused job never goes on by itself."""
    if after is None:
        return True
    return after.generation == before.generation and before.state is JobState.ACTIVE


def node_fault(node: NodeInfo, cordons: Mapping[str, Cordon]) -> str:
    """Say that a worker's znode wants something of it of which MySQL knows nothing."""
    if node.id in cordons or not (node.cordoned or node.draining):
        return ""
    return f"the znode of worker {node.id} has it cordoned or draining, and MySQL knows nothing of it"


def last_entries(entries: Iterable[Entry], kind: str, object_id: str) -> list[Entry]:
    """Return those of them that tell of this object."""
    return [entry for entry in entries if (entry.kind, entry.object_id) == (kind, object_id)]


def _new(entry: Entry) -> dict[str, Any]:
    try:
        found = json.loads(entry.new)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
