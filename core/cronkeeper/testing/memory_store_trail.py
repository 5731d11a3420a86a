"""The audit trail in memory."""

from __future__ import annotations

from collections.abc import Sequence

from cronkeeper.errors import StaleWriteError
from cronkeeper.ports import TrailQuery
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.wire.trail import ORIGIN, Entry, Link


class MemoryTrailStore:
    """See cronkeeper.ports.TrailStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def record(self, entries: Sequence[Entry]) -> None:
        with self._memory.call("trail.record"):
            self._memory.note(entries)

    def waiting(self, *, limit: int) -> list[Entry]:
        with self._memory.call("trail.waiting"):
            return self._memory.trail_inbox[:limit]

    def link(self, links: Sequence[Link], *, term: int) -> None:
        with self._memory.call("trail.link"):
            if not links:
                return
            self._memory.hold_term(term)
            newest = self._memory.trail[-1] if self._memory.trail else None
            if newest != links[-1]:
                found = (0, ORIGIN) if newest is None else (newest.seq, newest.hash)
                if found != (links[0].seq - 1, links[0].prev_hash):
                    raise StaleWriteError(f"the trail's newest link is {found[0]}, not {links[0].seq - 1}")
                self._memory.trail += links
            self._forget([item.entry.nonce for item in links])

    def linked(self, nonces: Sequence[str]) -> set[str]:
        with self._memory.call("trail.linked"):
            return {item.entry.nonce for item in self._memory.trail} & set(nonces)

    def forget(self, nonces: Sequence[str], *, term: int) -> None:
        with self._memory.call("trail.forget"):
            self._memory.hold_term(term)
            self._forget(nonces)

    def page(self, query: TrailQuery) -> list[Link]:
        with self._memory.call("trail.page"):
            return [item for item in self._memory.trail if _matches(item, query)][: query.limit]

    def head(self) -> Link | None:
        with self._memory.call("trail.head"):
            return self._memory.trail[-1] if self._memory.trail else None

    def since(self, at_ms: int) -> Link | None:
        with self._memory.call("trail.since"):
            return next((item for item in self._memory.trail if item.entry.at_ms >= at_ms), None)

    def cut(self, floor: int, *, limit: int, term: int) -> int:
        with self._memory.call("trail.cut"):
            self._memory.hold_term(term)
            count = min(limit, sum(1 for item in self._memory.trail if item.seq < floor))
            del self._memory.trail[:count]
            return count

    def _forget(self, nonces: Sequence[str]) -> None:
        gone = set(nonces)
        self._memory.trail_inbox = [entry for entry in self._memory.trail_inbox if entry.nonce not in gone]


def _matches(item: Link, query: TrailQuery) -> bool:
    entry = item.entry
    return (
        item.seq > query.after
        and query.actor in (None, entry.actor.name)
        and query.action in (None, entry.action)
        and query.kind in (None, entry.kind)
        and query.object_id in (None, entry.object_id)
        and (query.from_ms is None or entry.at_ms >= query.from_ms)
        and (query.to_ms is None or entry.at_ms <= query.to_ms)
    )
