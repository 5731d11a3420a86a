"""The leader's part in the audit trail: it chains what has come in, says elsewhere how long it is, checks it.

The chain stands in the same database as what it tells of, and whoever may write there could make a new one. So the
leader remembers the newest link while it leads, writes it to ZooKeeper (the anchor) and to its log every minute, and
compares before it goes on. Once the chain is not what it was, no newer anchor is written: the old one is the evidence.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace

from cronkeeper.errors import StaleWriteError, WireFormatError
from cronkeeper.ports import TrailQuery
from cronkeeper.wire.trail import (
    CUT,
    ORIGIN,
    Actor,
    Anchor,
    Entry,
    Fault,
    Link,
    allows_first,
    check,
    check_anchor,
    cut_text,
    link,
    link_all,
)
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.observe import Snapshot

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
#: So many entries are linked at once, and so many batches in a turn.
_LINK_EACH, _BATCHES = 500, 10
_ANCHOR_EVERY_S = 60.0
#: Of the whole chain so many links are looked at each time an anchor is due, round and round.
_SWEEP_EACH = 2000
_CUT_EVERY_S, _CUT_EACH = 3600.0, 2000
_LEADER = Actor("", "leader", "leader")


class TrailKeeper:
    """Called each turn of the leader while MySQL answers; lives as long as a term."""

    def __init__(self, leading: Leading) -> None:
        self._leading = leading
        self._store = leading.store.trail
        self._begun = False
        #: The newest link as we have left it.
        self._head: Link | None = None
        #: What may be the newest link: the answer to writing it was lost.
        self._unsure: Link | None = None
        self._anchor: Anchor | None = None
        #: The last link that the sweep has found good.
        self._swept: Link | None = None
        self._told: set[Fault] = set()
        self._due_s: dict[str, float] = {}

    def work(self, snapshot: Snapshot) -> None:
        """Do what is due. Raises UnavailableError or FencedError."""
        if not self._begun:
            self._begin()
        self._link()
        if self._is_due("anchor", _ANCHOR_EVERY_S, snapshot):
            self._sweep()
            self._compare()
            self._publish(snapshot.now_ms)
        if self._is_due("cut", _CUT_EVERY_S, snapshot):
            self._cut(snapshot)

    def _is_due(self, chore: str, every_s: float, snapshot: Snapshot) -> bool:
        if snapshot.now_s < self._due_s.get(chore, 0.0):
            return False
        self._due_s[chore] = snapshot.now_s + every_s
        return True

    # -- chaining

    def _begin(self) -> None:
        """Take over from the leader before us: what it said last must be true still."""
        self._head = self._leading.mysql.call(self._store.head)
        try:
            self._anchor = self._leading.coordinator.trail_anchor()
        except WireFormatError as exc:
            self._break(Fault(0, f"what ZooKeeper says of it cannot be read: {exc}"))
        if self._anchor is None and self._head is not None:
            self._leading.notes.add("trail.unanchored", "trail", "ZooKeeper says nothing of it: was the tree wiped?")
            log.warning("the audit trail has no anchor", extra={"event": "trail.unanchored", "links": self._head.seq})
        if self._anchor is None:
            self._anchor = self._base()
        self._begun = True

    def _base(self) -> Anchor:
        """Return an anchor that says nothing of the chain but where it may begin, as far as the chain itself tells."""
        nothing = Anchor(0, ORIGIN, 0)
        first = self._leading.mysql.call(lambda: self._store.since(0))
        if first is None:
            return nothing
        cuts = self._leading.mysql.call(lambda: self._store.page(TrailQuery(action=CUT))) if first.seq > 1 else []
        if not allows_first(first, anchor=None, cuts=[item.entry for item in cuts]):
            self._break(Fault(1, f"it begins at {first.seq}, and nothing says that what was before is too old"))
        return replace(nothing, floor=first.seq, floor_hash=first.prev_hash)

    def _link(self) -> None:
        mysql, term = self._leading.mysql, self._leading.term
        self._make_sure()
        for _ in range(_BATCHES):
            waiting = mysql.call(lambda: self._store.waiting(limit=_LINK_EACH))
            if not waiting:
                return
            nonces = [entry.nonce for entry in waiting]
            doubles = mysql.call(lambda: self._store.linked(nonces))  # noqa: B023
            if doubles:
                mysql.call(lambda: self._store.forget(sorted(doubles), term=term))  # noqa: B023
            self._append(link_all([entry for entry in waiting if entry.nonce not in doubles], self._head))
            if len(waiting) < _LINK_EACH:
                return

    def _append(self, links: list[Link]) -> None:
        if not links:
            return
        self._unsure = links[-1]
        try:
            self._leading.mysql.call(lambda: self._store.link(links, term=self._leading.term))
        except StaleWriteError:
            self._make_sure()
            return
        self._head, self._unsure = self._unsure, None

    def _make_sure(self) -> None:
        """Find out which link is the newest, after an answer that was lost or a refusal."""
        if self._unsure is None:
            return
        found, expected = self._leading.mysql.call(self._store.head), (self._head, self._unsure)
        if found not in expected:
            # Nobody else links in this term. What was done must be told all the same, behind what is there now.
            seq = 1 if self._head is None else self._head.seq
            self._break(Fault(seq, "it is not the newest one any more, and no leader has changed that"))
        self._head, self._unsure = found, None

    # -- looking whether it holds

    def _sweep(self) -> None:
        """Look at the next piece of the chain."""
        before = self._swept
        query = TrailQuery(limit=_SWEEP_EACH, after=0 if before is None else before.seq)
        links = self._leading.mysql.call(lambda: self._store.page(query))
        if not links:
            self._swept = None
            return
        # Where it may begin is for `cronkeeper audit --verify`: a cut may be under way.
        seq, prev_hash = (links[0].seq, links[0].prev_hash) if before is None else (before.seq + 1, before.hash)
        if fault := check(links, seq=seq, prev_hash=prev_hash):
            self._break(fault)
        self._swept = links[-1] if len(links) == _SWEEP_EACH else None

    def _compare(self) -> None:
        """Compare the chain with what was said of it last, and what is said of it with what we have said."""
        anchor = self._anchor
        if anchor is None:
            return
        self._stand_by(anchor)
        head = self._leading.mysql.call(self._store.head)
        query = TrailQuery(limit=1, after=anchor.seq - 1)
        found = self._leading.mysql.call(lambda: self._store.page(query)) if anchor.seq else []
        anchored = found[0] if found and found[0].seq == anchor.seq else None
        if fault := check_anchor(anchor, head, anchored):
            self._break(fault)

    def _stand_by(self, anchor: Anchor) -> None:
        """See that ZooKeeper says what we have said."""
        try:
            told = self._leading.coordinator.trail_anchor()
        except WireFormatError:
            told = Anchor(0, ORIGIN, 0)
        if told == anchor or not anchor.seq:
            return
        if told is not None:
            self._break(Fault(anchor.seq, "what ZooKeeper said of it was altered"))
        self._save(anchor)

    def _break(self, fault: Fault) -> None:
        self._leading.metrics.trail_broken.set(1)
        if fault in self._told:
            return
        self._told.add(fault)
        log.error("the audit trail was altered", extra={"event": "trail.broken", "seq": fault.seq, "why": fault.why})
        self._leading.notes.add("trail.broken", "trail", f"{fault.seq}: {fault.why}")

    # -- saying how long it is

    def _publish(self, now_ms: int) -> None:
        head, before = self._head, self._anchor
        if head is None or before is None or self._told or before.seq == head.seq:
            return
        self._save(replace(before, seq=head.seq, hash=head.hash, at_ms=now_ms))
        # The log is a third place that an intruder would have to alter.
        log.info("the audit trail is anchored", extra={"event": "trail.anchored", "seq": head.seq, "hash": head.hash})

    def _save(self, anchor: Anchor) -> None:
        self._leading.coordinator.anchor_trail(anchor, self._leading.leadership)
        self._anchor = anchor

    # -- keeping it short

    def _cut(self, snapshot: Snapshot) -> None:
        """Remove what is too old. First the chain and the anchor say so: a cut that nobody announced is a theft."""
        before_ms = snapshot.now_ms - self._leading.trail_keep_days * _DAY_MS
        first = self._leading.mysql.call(lambda: self._store.since(0))
        if first is None or self._head is None or self._anchor is None or self._told:
            return
        if first.entry.at_ms < before_ms:
            kept = self._leading.mysql.call(lambda: self._store.since(before_ms)) or self._head
            if kept.seq > max(first.seq, self._anchor.floor):
                self._announce(kept, snapshot.now_ms)
        if first.seq < self._anchor.floor:
            floor, term = self._anchor.floor, self._leading.term
            count = self._leading.mysql.call(lambda: self._store.cut(floor, limit=_CUT_EACH, term=term))
            log.info("old entries of the audit trail were removed", extra={"event": "trail.cut", "entries": count})
            if count == _CUT_EACH:
                self._due_s["cut"] = snapshot.now_s + 1.0

    def _announce(self, kept: Link, now_ms: int) -> None:
        text = cut_text(kept.seq, kept.prev_hash)
        entry = Entry(secrets.token_hex(16), now_ms, _LEADER, CUT, "trail", "trail", new=text)
        self._append([link(entry, self._head)])
        head, before = self._head, self._anchor
        if head is not None and before is not None and head.entry is entry:
            self._save(
                replace(before, seq=head.seq, hash=head.hash, at_ms=now_ms, floor=kept.seq, floor_hash=kept.prev_hash)
            )
