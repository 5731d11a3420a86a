"""Named calendars in memory."""

from __future__ import annotations

from collections.abc import Sequence

from cronkeeper.domain.named_calendars import NamedCalendar
from cronkeeper.errors import ConflictError, NotFoundError, StaleWriteError
from cronkeeper.testing.memory_store_state import Memory, uses_of
from cronkeeper.wire.trail import Entry


class MemoryCalendarStore:
    """See cronkeeper.ports.CalendarStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def get(self, namespace: str, name: str) -> NamedCalendar:
        with self._memory.call("calendars.get"):
            if (namespace, name) not in self._memory.calendars:
                raise NotFoundError(f"there is no calendar {name} in namespace {namespace}")
            return self._memory.calendars[namespace, name]

    def find(self, namespace: str, names: Sequence[str]) -> dict[str, NamedCalendar]:
        with self._memory.call("calendars.find"):
            stored = self._memory.calendars
            return {name: stored[namespace, name] for name in names if (namespace, name) in stored}

    def names(self, namespace: str) -> list[str]:
        with self._memory.call("calendars.names"):
            return sorted(name for home, name in self._memory.calendars if home == namespace)

    def page(
        self, *, within: frozenset[str] | None = None, after: tuple[str, str] = ("", ""), limit: int
    ) -> list[NamedCalendar]:
        with self._memory.call("calendars.page"):
            keys = sorted(key for key in self._memory.calendars if key > after)
            wanted = [key for key in keys if within is None or key[0] in within]
            return [self._memory.calendars[key] for key in wanted[:limit]]

    def save(self, calendar: NamedCalendar, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("calendars.save"):
            self._expect(calendar.namespace, calendar.name, expected_generation)
            self._memory.calendars[calendar.namespace, calendar.name] = calendar
            self._memory.note(trail)

    def delete(self, namespace: str, name: str, *, expected_generation: int, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("calendars.delete"):
            if not expected_generation:
                raise StaleWriteError(f"there is no calendar {name}")
            self._expect(namespace, name, expected_generation)
            if self._uses(namespace, name, ""):
                raise ConflictError(f"jobs name the calendar {name}")
            del self._memory.calendars[namespace, name]
            self._memory.note(trail)

    def count_uses(self, namespace: str, name: str, *, outdated: str = "") -> int:
        with self._memory.call("calendars.count_uses"):
            return self._uses(namespace, name, outdated)

    def _uses(self, namespace: str, name: str, outdated: str) -> int:
        jobs = self._memory.jobs.values()
        found = [uses_of(job)[name] for job in jobs if job.spec.namespace == namespace and name in uses_of(job)]
        return len([digest for digest in found if not outdated or digest != outdated])

    def _expect(self, namespace: str, name: str, generation: int) -> None:
        stored = self._memory.calendars.get((namespace, name))
        if (0 if stored is None else stored.generation) != generation:
            raise StaleWriteError(f"the calendar {name} of namespace {namespace} has changed, or is gone")
