"""Which namespaces somebody may reach. PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
#: Stands for all namespaces, in texts.
ALL = "*"
#: Of one scope.
MAX_NAMESPACES = 50


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of namespaces. `names` is None for all of them; an empty set is none at all, never all."""

    names: frozenset[str] | None

    @property
    def everywhere(self) -> bool:
        """Say whether it is all namespaces, those included that do not exist yet."""
        return self.names is None

    def holds(self, namespace: str) -> bool:
        """Say whether the namespace is in it."""
        return self.names is None or namespace in self.names

    def listed(self) -> list[str]:
        """Return the namespaces in order; `["*"]` for all."""
        return [ALL] if self.names is None else sorted(self.names)

    def __str__(self) -> str:
        return ",".join(self.listed())


EVERYWHERE = Scope(None)
NOWHERE = Scope(frozenset())


def scope_of(names: Iterable[str]) -> Scope:
    """Return the scope of a list of namespaces, or of `*` alone. Raises ValueError that says what is wrong with it."""
    listed = list(names)
    if listed == [ALL]:
        return EVERYWHERE
    if not listed:
        raise ValueError("is empty: no namespace is not all of them; write * for all")
    if ALL in listed:
        raise ValueError("* stands alone: it is all namespaces already")
    if len(listed) > MAX_NAMESPACES:
        raise ValueError(f"{len(listed)} namespaces are too many; {MAX_NAMESPACES} are allowed")
    for name in listed:
        if not NAMESPACE.fullmatch(name):
            raise ValueError(f"{name[:40]!a} is not a namespace: 1 to 63 lower-case letters, digits or '-'")
    return Scope(frozenset(listed))


def read_scope(text: str) -> Scope:
    """Return the scope that a store's text says. What cannot be read is no namespace at all."""
    try:
        return scope_of(text.split(","))
    except ValueError:
        return NOWHERE
