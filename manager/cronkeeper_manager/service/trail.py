"""The audit trail: what is told of a change, and reading and checking what was told."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from cronkeeper.domain.job import Job, JobSpec, JobState, JobType, spec_to_dict
from cronkeeper.errors import UnavailableError, WireFormatError
from cronkeeper.ports import Coordinator, TrailQuery, TrailStore
from cronkeeper.wire.spec_text import spec_fields
from cronkeeper.wire.trail import (
    CUT,
    Anchor,
    Entry,
    Fault,
    Link,
    allows_first,
    check,
    check_anchor,
    text_of,
)
from cronkeeper_manager.service.apply import differences
from cronkeeper_manager.service.values import Caller

#: Follows from what the user wrote; or is long and says nothing about who did what.
_UNTOLD = frozenset({"sealed", "holiday_dates", "named_dates", "spread"})


def note(
    caller: Caller,
    action: str,
    kind: str,
    object_id: object,
    *,
    at_ms: int,
    namespace: str = "",
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
) -> Entry:
    """Return an entry, to be handed to the store's method that does what it tells of.

    `action` is a dotted word such as `secret.set`. `old` and `new` hold what was and what is now, never a secret's
    value. One entry belongs to one write: make another one for another try.
    """
    return Entry(
        secrets.token_hex(16), at_ms, caller.actor, action, kind, str(object_id), namespace, text_of(old), text_of(new)
    )


def job_note(caller: Caller, action: str, old: Job | None, new: Job | None, *, at_ms: int) -> Entry:
    """Return the entry of a change of a job: what was changed of it; of a new one, and of one that is gone, all of it.

    Either may be None, not both.
    """
    job = new or old
    assert job is not None
    was: dict[str, Any] | None
    becomes: dict[str, Any] | None
    if old is not None and new is not None:
        was, becomes = _told(old, new)
    else:
        whole = _whole(job.generation, job.state, job.spec)
        was, becomes = (None, whole) if old is None else (whole, None)
    return note(caller, action, "job", job.id, at_ms=at_ms, namespace=job.spec.namespace, old=was, new=becomes)


def creation(caller: Caller, spec: JobSpec, *, at_ms: int) -> Callable[[Job], Entry]:
    """Return what makes the entry of a new job of this spec, once it has an id: little, all else is made here."""
    actor, text = caller.actor, text_of(_whole(1, JobState.ACTIVE, spec))

    def entry(job: Job) -> Entry:
        nonce = secrets.token_hex(16)
        return Entry(nonce, at_ms, actor, "job.created", "job", str(job.id), spec.namespace, "", text)

    return entry


def saved_note(caller: Caller, old: Job, new: Job, action: str = "") -> Entry:
    """Return the entry of a job that is saved along with others."""
    usual = "job.finished" if new.state is JobState.FINISHED else "job.changed"
    return job_note(caller, action or usual, old, new, at_ms=new.updated_ms)


def _told(old: Job, new: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a job was, and what it becomes, as far as that differs."""
    changed = {key: pair for key, pair in differences(old.spec, new.spec).items() if key not in _UNTOLD}
    if "env" in changed:
        was, becomes = changed["env"]
        changed["env"] = (_unlike(was, becomes), _unlike(becomes, was))
    was, becomes = ({"generation": job.generation, "state": job.state.value} for job in (old, new))
    for key, pair in changed.items():
        was[key], becomes[key] = pair
    return was, becomes


def _unlike(env: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in env.items() if other.get(name) != value}


def _whole(generation: int, state: JobState, spec: JobSpec) -> dict[str, Any]:
    usual = _usual(spec.type)
    told = {
        key: value
        for key, value in spec_fields(spec).items()
        if (value != usual[key] or key == "type") and key not in _UNTOLD
    }
    return {"generation": generation, "state": state.value, **told}


@lru_cache
def _usual(kind: JobType) -> Mapping[str, Any]:
    """Return a spec of this type in its JSON shape with nothing but defaults. Not to be changed."""
    return spec_to_dict(JobSpec(executable="", schedule="", type=kind))


@dataclass(frozen=True, slots=True)
class Page:
    """Links, oldest first, and entries that no leader has linked yet: those come only with the last page."""

    links: list[Link]
    waiting: list[Entry]
    more: bool


@dataclass(frozen=True, slots=True)
class Check:
    """What checking a piece of the chain found."""

    #: How many links were looked at.
    checked: int
    #: The last one of them, and its hash; 0 when there is none.
    through: int
    hash: str
    #: Whether that is the newest one.
    done: bool
    fault: Fault | None
    #: What a leader said last of the chain; None when nobody did, or nobody can tell.
    anchor: Anchor | None


class Trail:
    """Reads and checks the trail. Raises UnavailableError while the database is away."""

    def __init__(self, store: TrailStore, coordinator: Coordinator) -> None:
        self._store = store
        self._coordinator = coordinator

    def page(self, query: TrailQuery) -> Page:
        """Return a page of what was done."""
        found = self._store.page(replace(query, limit=query.limit + 1))
        more = len(found) > query.limit
        waiting = [] if more else [entry for entry in self._store.waiting(limit=query.limit) if _wants(query, entry)]
        return Page(found[: query.limit], waiting, more)

    def check(self, *, after: int, limit: int) -> Check:
        """Check the links after that one, at most `limit`; with what ZooKeeper says of them, if it says anything.

        Call it again with `through` until `done` or until there is a fault.
        """
        anchor = self._anchor()
        head = self._store.head()
        before = self._at(after) if after else None
        links = self._store.page(TrailQuery(limit=limit, after=after))
        through = links[-1] if links else before
        done = through is None or head is None or through.seq >= head.seq
        fault = self._fault(after, before, links, anchor) or self._not_as_anchored(after, through, anchor, done)
        seq, digest = (0, "") if through is None else (through.seq, through.hash)
        return Check(len(links), seq, digest, done, fault, anchor)

    def _fault(self, after: int, before: Link | None, links: list[Link], anchor: Anchor | None) -> Fault | None:
        if after and before is None:
            return Fault(after, "it is missing")
        if before is not None:
            return check(links, seq=before.seq + 1, prev_hash=before.hash)
        if not links:
            return None
        first = links[0]
        cuts = [] if first.seq == 1 else [link.entry for link in self._store.page(TrailQuery(action=CUT))]
        if not allows_first(first, anchor=anchor, cuts=cuts):
            return Fault(1, f"the chain begins at {first.seq}, and nothing says that what was before is too old")
        return check(links, seq=first.seq, prev_hash=first.prev_hash)

    def _not_as_anchored(self, after: int, through: Link | None, anchor: Anchor | None, done: bool) -> Fault | None:
        end = 0 if through is None else through.seq
        if anchor is None or not (done or after < anchor.seq <= end):
            return None
        # The newest link as of now: others may have come since the page was read.
        return check_anchor(anchor, self._store.head(), self._at(anchor.seq))

    def _at(self, seq: int) -> Link | None:
        found = self._store.page(TrailQuery(limit=1, after=seq - 1)) if seq else []
        return found[0] if found and found[0].seq == seq else None

    def _anchor(self) -> Anchor | None:
        try:
            return self._coordinator.trail_anchor()
        except (UnavailableError, WireFormatError):
            return None


def _wants(query: TrailQuery, entry: Entry) -> bool:
    return (
        query.actor in (None, entry.actor.name)
        and query.action in (None, entry.action)
        and query.kind in (None, entry.kind)
        and query.object_id in (None, entry.object_id)
        and (query.from_ms is None or entry.at_ms >= query.from_ms)
        and (query.to_ms is None or entry.at_ms <= query.to_ms)
    )
