"""Named calendars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.wire.trail import Entry


class CalendarStore(Protocol):
    """Calendars by namespace and name.

    Jobs that name calendars hold copies of their days. A job that is not finished can only be saved (see JobStore)
    with copies that are the calendars' days in that very transaction: StaleCopyError otherwise.
    """

    def get(self, namespace: str, name: str) -> NamedCalendar:
        """Return the calendar. Raises NotFoundError."""
        ...

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, NamedCalendar]:
        """Return those calendars of the namespace that have one of the names."""
        ...

    def names(self, namespace: str) -> list[str]:
        """Return the names of the namespace's calendars, in order."""
        ...

    def page(
        self, *, within: frozenset[str] | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[NamedCalendar]:
        """Return a page of the calendars of these namespaces (None: of all), by namespace and name, beyond `after`."""
        ...

    def save(self, calendar: NamedCalendar, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        """Write the row, with its trail, if its stored generation is the expected one; 0: if there is none yet.

        Raises StaleWriteError. Jobs are not touched: those whose copies have become outdated are to be saved anew.
        """
        ...

    def delete(self, namespace: str, name: str, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        """Remove the calendar. StaleWriteError (another generation, or none); ConflictError (jobs name it)."""
        ...

    def count_uses(self, namespace: str, name: str, *, outdated: str = "") -> int:
        """Return how many jobs name the calendar; with a digest, only those whose copy has another digest."""
        ...
