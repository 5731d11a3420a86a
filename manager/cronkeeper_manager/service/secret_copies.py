"""What a job gets of the secrets that it names: sealed copies, as they are whenever the job is saved."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.secret_env import Sealed
from cronkeeper.errors import FieldError
from cronkeeper.ports import SecretStore
from cronkeeper_manager.service import rules
from cronkeeper_manager.service.values import Draft

_Known = Mapping[tuple[str, str], Sealed]


def fill_secrets(secrets: SecretStore, drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts with copies of the secrets that they name, and a fault for each name that is wrong."""
    known = _known(secrets, (draft.spec for draft in drafts))
    return [_filled(secrets, draft, known) if draft.spec.secrets.uses else draft for draft in drafts]


def refresh_secrets(secrets: SecretStore, specs: Sequence[JobSpec]) -> list[JobSpec]:
    """Return the specs with copies as they are now. Of a secret that is gone none is left."""
    known = _known(secrets, specs)
    return [_copied(spec, known) if spec.secrets.uses else spec for spec in specs]


def _filled(secrets: SecretStore, draft: Draft, known: _Known) -> Draft:
    spec, faults = draft.spec, list(draft.faults)
    for variable, use in spec.secrets.uses.items():
        # What cannot be a name is told by the rules.
        if (spec.namespace, use.secret) not in known and rules.NAME.fullmatch(use.secret):
            faults.append(_unknown(secrets, f"env.{rules.shown(variable)}.secret", spec.namespace, use.secret))
    return replace(draft, spec=_copied(spec, known), faults=tuple(faults))


def _unknown(secrets: SecretStore, field: str, namespace: str, name: str) -> FieldError:
    names = [secret.name for secret in secrets.all(namespace)]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "set it first: PUT /secrets/{name}"
    return FieldError(field, f"there is no secret {name} in the job's namespace", hint)


def _copied(spec: JobSpec, known: _Known) -> JobSpec:
    mine = {name: sealed for (namespace, name), sealed in known.items() if namespace == spec.namespace}
    return spec.evolve(secrets=spec.secrets.filled(mine))


def _known(secrets: SecretStore, specs: Iterable[JobSpec]) -> _Known:
    wanted: dict[str, set[str]] = {}
    for spec in specs:
        if spec.secrets.uses:
            names = filter(rules.NAME.fullmatch, spec.secrets.names)
            wanted.setdefault(spec.namespace, set()).update(names)
    return {
        (namespace, name): secret.sealed
        for namespace, names in wanted.items()
        for name, secret in secrets.find(namespace, sorted(names)).items()
    }
