"""kazoo's client, without its book of watches: 100,000 of them take 70 MB there, and all call the same function.

Whoever is told of a change by the server has asked to be told. So all that has to be known is whom to call: everybody
who ever asked on this connection, be it for another path. To be called too often does us no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient


class AllPaths:
    """Stands where kazoo keeps the watchers of each path."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[Any], None]] = set()

    def __getitem__(self, path: str) -> set[Callable[[Any], None]]:
        return self._watchers

    def pop(self, path: str, default: Any = None) -> set[Callable[[Any], None]]:
        """Return whom to call; others may be told of another path still."""
        return self._watchers

    def values(self) -> list[set[Callable[[Any], None]]]:
        return [self._watchers]


class LeanClient(KazooClient):  # type: ignore[misc]  # kazoo has no types
    """Its memory does not grow with what is watched, and it calls each watcher once when the connection is lost."""

    def _reset_watchers(self) -> None:
        super()._reset_watchers()
        self._child_watchers, self._data_watchers = AllPaths(), AllPaths()
