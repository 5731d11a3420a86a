"""What a job copies of what it names, as it is whenever the job is saved: the days of calendars, sealed secrets."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.named_calendars import Dates
from cronkeeper.errors import FieldError
from cronkeeper.ports import Store
from cronkeeper_manager.service.rules import shown
from cronkeeper_manager.service.secret_copies import fill_secrets, refresh_secrets
from cronkeeper_manager.service.values import Draft


class NamedCopies:
    """Looks calendars and secrets up. Raises UnavailableError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fill(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Return the drafts with copies of what they name, and a fault for each name that is wrong."""
        known = self._known(draft.spec for draft in drafts)
        filled = [self._filled(draft, known) if _names(draft.spec) else draft for draft in drafts]
        return fill_secrets(self._store.secrets, filled)

    def refreshed(self, specs: Sequence[JobSpec]) -> list[JobSpec]:
        """Return the specs with copies as they are now. A calendar that is gone leaves its copy, a secret none."""
        known = self._known(specs)
        dated = [spec.evolve(named_dates=_copies(spec, known)) if _names(spec) else spec for spec in specs]
        return refresh_secrets(self._store.secrets, dated)

    def _filled(self, draft: Draft, known: Mapping[tuple[str, str], Dates]) -> Draft:
        spec, faults = draft.spec, list(draft.faults)
        for index, name in enumerate(_names(spec)):
            if name in _names(spec)[:index]:
                faults.append(FieldError(f"calendar.named[{index}]", "stands there twice", "leave one out"))
            elif (spec.namespace, name) not in known:
                faults.append(self._unknown(f"calendar.named[{index}]", spec.namespace, name))
        return replace(draft, spec=spec.evolve(named_dates=_copies(spec, known)), faults=tuple(faults))

    def _unknown(self, field: str, namespace: str, name: str) -> FieldError:
        names = self._store.calendars.names(namespace)
        close = difflib.get_close_matches(name[:128], names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names[:12])}" if names else ""
        return FieldError(
            field,
            f"there is no calendar {shown(name)} in the job's namespace",
            hint or "make one: PUT /calendars/{name}",
        )

    def _known(self, specs: Iterable[JobSpec]) -> dict[tuple[str, str], Dates]:
        wanted: dict[str, set[str]] = {}
        for spec in specs:
            if _names(spec):
                wanted.setdefault(spec.namespace, set()).update(_names(spec))
        return {
            (namespace, name): calendar.dates
            for namespace, names in wanted.items()
            for name, calendar in self._store.calendars.find(namespace, sorted(names)).items()
        }


def _names(spec: JobSpec) -> tuple[str, ...]:
    return () if spec.calendar is None else spec.calendar.named


def _copies(spec: JobSpec, known: Mapping[tuple[str, str], Dates]) -> dict[str, Dates]:
    copies = {name: known.get((spec.namespace, name), spec.named_dates.get(name)) for name in _names(spec)}
    return {name: dates for name, dates in copies.items() if dates is not None}
