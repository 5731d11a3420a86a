"""A fault to come, as a value, and how one is taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.checker.history import FaultKind


@dataclass(frozen=True, slots=True)
class Operation:
    """One fault to come. `how` chooses among the ways of a kind; empty is the first that is named at its function."""

    kind: FaultKind
    targets: tuple[str, ...]
    how: str = ""
    seed: int = 0


class Healing:
    """A fault that is taken back by calling functions once, in their order."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def heal(self) -> None:
        """Take the fault back; a second call does nothing."""
        while self._steps:
            self._steps.pop(0)()
