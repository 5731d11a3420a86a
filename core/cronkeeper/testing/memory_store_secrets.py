"""Sealed secrets in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cronkeeper.errors import StaleWriteError
from cronkeeper.ports import Secret
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.wire.trail import Entry


class MemorySecretStore:
    """See cronkeeper.ports.SecretStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def save(self, secret: Secret, *, expected_version: int, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("secrets.save"):
            key = (secret.namespace, secret.name)
            stored = self._memory.secrets.get(key)
            if stored != secret and (0 if stored is None else stored.sealed.version) != expected_version:
                raise StaleWriteError(f"secret {secret.name} is not at version {expected_version} any more")
            if stored != secret:
                self._memory.note(trail)
            self._memory.secrets[key] = secret

    def find(self, namespace: str, names: Collection[str]) -> dict[str, Secret]:
        with self._memory.call("secrets.find"):
            secrets = self._memory.secrets
            return {name: secrets[namespace, name] for name in names if (namespace, name) in secrets}

    def all(self, namespace: str | None = None) -> list[Secret]:
        with self._memory.call("secrets.all"):
            found = sorted(self._memory.secrets.items())
            return [secret for (space, _), secret in found if namespace in (None, space)]

    def delete(self, namespace: str, name: str, *, trail: Sequence[Entry] = ()) -> bool:
        with self._memory.call("secrets.delete"):
            if self._memory.secrets.pop((namespace, name), None) is None:
                return False
            self._memory.note(trail)
            return True
