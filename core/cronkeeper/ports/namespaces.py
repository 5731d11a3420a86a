"""What an administrator allows in each namespace, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cronkeeper.domain.quota import Quotas, Usage
from cronkeeper.wire.trail import Entry


@dataclass(frozen=True, slots=True)
class NamespacePolicy:
    """What is allowed in one namespace. One that nobody has decided about has no accounts of its own and no bounds."""

    name: str
    #: Accounts that its jobs may name in `run_as`; None: those of the installation.
    run_as: tuple[str, ...] | None = None
    quotas: Quotas = field(default_factory=Quotas)
    #: None: nobody has decided.
    updated_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Weighing:
    """How a write of jobs is held against quotas."""

    now_ms: int
    #: Returns the expected fires a minute of one task with this schedule.
    load_of: Callable[[str], float]


class NamespaceStore(Protocol):
    def get(self, name: str) -> NamespacePolicy:
        """Return the policy, also of a namespace that nobody has decided about."""
        ...

    def all(self) -> list[NamespacePolicy]:
        """Return the policies that were decided, and those of all namespaces that hold a job, by name."""
        ...

    def save(self, policy: NamespacePolicy, *, trail: Sequence[Entry] = ()) -> None:
        """Write or overwrite, with its trail. Safe to repeat.

        Writes of jobs that were begun before are held against what was before.
        """
        ...

    def usage(self, name: str, load_of: Callable[[str], float]) -> Usage:
        """Return what the namespace holds."""
        ...
