"""PURE: the audit trail: who did what, chained by hashes, so that a row that is changed, taken out or put in shows.

An entry is written in the transaction of the change it tells of. The leader links entries into one chain, in the order
in which they were committed: each link's hash covers the entry, its number and the hash of the link before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cronkeeper.errors import WireFormatError
from cronkeeper.wire.codec import dumps, loads

VERSION = 1
#: What the first link follows.
ORIGIN = "0" * 64
#: Actions that only the leader writes, straight into the chain.
OWN_PREFIX = "trail."
CUT = "trail.cut"
_FORGED = "forged."
_VALUE_BYTES, _TEXT_BYTES = 4_096, 65_536
#: JSON takes twelve bytes for one character at most.
_SURELY_SHORT = _VALUE_BYTES // 12 - 2
#: What many specs hold in plain text and what must not outlive the job in the trail.
_HIDDEN = "env"
_MASK = "***"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked: the token, and from where. The leader has no token."""

    token: str
    name: str
    role: str
    #: The client's address, as far as it is known.
    source: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done. `old` and `new` are JSON texts, empty where there is nothing to say."""

    #: 32 hex digits: the same entry, saved twice because an answer was lost, is linked once.
    nonce: str
    at_ms: int
    actor: Actor
    #: A dotted word such as `job.created`.
    action: str
    #: What it was done to: `job`, `run`, `worker`, `token`, …
    kind: str
    object_id: str
    namespace: str = ""
    old: str = ""
    new: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An entry in its place in the chain; `seq` counts from 1 without a gap."""

    seq: int
    entry: Entry
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the leader says of the chain outside of the database: how long it was, and the hash of its newest link.

    Links below `floor` were removed as too old; the first one left follows `floor_hash`.
    """

    seq: int
    hash: str
    at_ms: int
    floor: int = 1
    floor_hash: str = ORIGIN


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place where the chain is not as it was made."""

    seq: int
    why: str


def link(entry: Entry, before: Link | None) -> Link:
    """Return the entry as the next link."""
    seq, prev_hash = (1, ORIGIN) if before is None else (before.seq + 1, before.hash)
    return Link(seq, entry, prev_hash, _digest(seq, entry, prev_hash))


def link_all(entries: Iterable[Entry], before: Link | None) -> list[Link]:
    """Return the entries as the next links. What claims to be the leader's own is marked: it is not."""
    links = []
    for entry in entries:
        before = link(_marked(entry), before)
        links.append(before)
    return links


def check(links: Iterable[Link], *, seq: int, prev_hash: str) -> Fault | None:
    """Return the first fault among links that should begin with `seq` and follow `prev_hash`, or None."""
    for found in links:
        if found.seq != seq:
            return Fault(seq, f"it is missing: the next one is {found.seq}")
        if found.prev_hash != prev_hash:
            return Fault(seq, "it does not follow the one before it")
        if found.hash != _digest(seq, found.entry, prev_hash):
            return Fault(seq, "its content is not what was linked")
        seq, prev_hash = seq + 1, found.hash
    return None


def check_anchor(anchor: Anchor, head: Link | None, anchored: Link | None) -> Fault | None:
    """Compare the chain with an anchor: `head` is the newest link, `anchored` the one of the anchor's number."""
    if anchor.seq == 0:
        return None
    if head is None or head.seq < anchor.seq:
        count = 0 if head is None else head.seq
        return Fault(count + 1, f"the chain ends at {count}, and it was {anchor.seq} long")
    if anchored is None or anchored.hash != anchor.hash:
        return Fault(anchor.seq, "it is not the one that was anchored: the chain was made anew up to here")
    return None


def allows_first(first: Link, *, anchor: Anchor | None, cuts: Iterable[Entry]) -> bool:
    """Say whether the chain may begin here: at 1, or where a cut that the leader recorded has left it."""
    if first.seq == 1:
        return first.prev_hash == ORIGIN
    if anchor is not None:
        # The floor is told before anything is removed: not all below it need be gone.
        known = first.seq != anchor.floor or first.prev_hash == anchor.floor_hash
        return first.seq <= anchor.floor and known
    return any(entry.new == cut_text(first.seq, first.prev_hash) for entry in cuts)


def cut_text(floor: int, floor_hash: str) -> str:
    """Return what the entry of a cut says: links below `floor` are removed."""
    return dumps({"floor": floor, "follows": floor_hash}).decode()


def text_of(value: Mapping[str, Any] | None) -> str:
    """Return the JSON text of an object for `old` or `new`, bounded: what is long is told by its SHA-256.

    Values of environment variables are left out.
    """
    if value is None:
        return ""
    shown = {key: _bounded(_without_values(item) if key == _HIDDEN else item) for key, item in value.items()}
    raw = dumps(shown)
    return raw.decode() if len(raw) <= _TEXT_BYTES else dumps(_told(raw)).decode()


def encode_anchor(anchor: Anchor) -> bytes:
    return dumps({"v": VERSION, **asdict(anchor)})


def decode_anchor(raw: bytes) -> Anchor:
    """Raises WireFormatError."""
    data = loads(raw, version=VERSION, what="anchor of the trail")
    try:
        return Anchor(
            int(data["seq"]), str(data["hash"]), int(data["at_ms"]), int(data["floor"]), str(data["floor_hash"])
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise WireFormatError(f"anchor of the trail: {exc!r}") from exc


def _digest(seq: int, entry: Entry, prev_hash: str) -> str:
    return hashlib.sha256(dumps({"v": VERSION, "seq": seq, "prev": prev_hash, **asdict(entry)})).hexdigest()


def _marked(entry: Entry) -> Entry:
    if not entry.action.startswith(OWN_PREFIX):
        return entry
    return Entry(
        entry.nonce, entry.at_ms, entry.actor, _FORGED + entry.action, entry.kind, entry.object_id, entry.namespace,
        entry.old, entry.new,
    )  # fmt: skip


def _bounded(value: Any) -> Any:
    kind = value.__class__
    if value is None or kind is int or kind is bool or (kind is str and len(value) < _SURELY_SHORT):
        return value
    raw = dumps(value)
    return value if len(raw) <= _VALUE_BYTES else _told(raw)


def _told(raw: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}


def _without_values(env: Any) -> Any:
    """Return an environment without its values; what refers to a secret by name is kept."""
    if not isinstance(env, Mapping):
        return _MASK
    return {key: value if isinstance(value, Mapping) else _MASK for key, value in env.items()}
