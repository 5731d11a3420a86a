"""What the store keeps of who did what. The words are those of `wire.trail`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cronkeeper.wire.trail import Entry, Link


@dataclass(frozen=True, slots=True)
class TrailQuery:
    """Which links, oldest first. `after` is the last `seq` of the page before."""

    limit: int = 1000
    after: int = 0
    #: The name of the token that was used.
    actor: str | None = None
    action: str | None = None
    kind: str | None = None
    object_id: str | None = None
    #: Epoch milliseconds, both included.
    from_ms: int | None = None
    to_ms: int | None = None


class TrailStore(Protocol):
    """The audit trail. Entries come in with the changes they tell of; the leader links them into a chain.

    Whoever writes on behalf of somebody hands the entry to the method that writes (`trail=` or `note=`), which inserts
    it in the same transaction: there is no change without its entry, and no entry without its change.
    """

    def record(self, entries: Sequence[Entry]) -> None:
        """Insert entries that belong to no other write. Safe to repeat."""
        ...

    def waiting(self, *, limit: int) -> list[Entry]:
        """Return entries that are not linked yet, oldest first."""
        ...

    def link(self, links: Sequence[Link], *, term: int) -> None:
        """Append links, which follow each other, and take their entries off those that wait, under the leader's term.

        Entries that were linked before (by nonce) must not be among them: see `linked`. Raises StaleWriteError when
        the newest link is not the one before the first of these. Safe to repeat.
        """
        ...

    def linked(self, nonces: Sequence[str]) -> set[str]:
        """Return which of these entries are in the chain."""
        ...

    def forget(self, nonces: Sequence[str], *, term: int) -> None:
        """Take entries off those that wait: they were linked before. Safe to repeat."""
        ...

    def page(self, query: TrailQuery) -> list[Link]:
        """Return links."""
        ...

    def head(self) -> Link | None:
        """Return the newest link."""
        ...

    def since(self, at_ms: int) -> Link | None:
        """Return the first link (by `seq`) of that instant or later."""
        ...

    def cut(self, floor: int, *, limit: int, term: int) -> int:
        """Remove links below `floor`, oldest first, at most `limit`; return how many."""
        ...
