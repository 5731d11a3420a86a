"""Secrets of jobs, sealed: the store never sees a value, nor a key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from cronkeeper.domain.secret_env import Sealed
from cronkeeper.wire.trail import Entry


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret as the store holds it. Instants are epoch milliseconds, UTC."""

    namespace: str
    name: str
    #: The version grows with each new value.
    sealed: Sealed
    updated_ms: int
    #: The name of the token that set it.
    updated_by: str


class SecretStore(Protocol):
    """Secrets by namespace and name. A job is saved only with copies of the versions that are stored here."""

    def save(self, secret: Secret, *, expected_version: int, trail: Sequence[Entry] = ()) -> None:
        """Insert the secret (expected version 0), or replace that version of it.

        Raises StaleWriteError when another version is stored. Safe to repeat.
        """
        ...

    def find(self, namespace: str, names: Collection[str]) -> dict[str, Secret]:
        """Return those secrets of the namespace that have one of the names."""
        ...

    def all(self, namespace: str | None = None) -> list[Secret]:
        """Return the secrets (of one namespace), by namespace and name."""
        ...

    def delete(self, namespace: str, name: str, *, trail: Sequence[Entry] = ()) -> bool:
        """Remove the secret for good. False when there was none."""
        ...
