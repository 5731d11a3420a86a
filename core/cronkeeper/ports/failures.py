"""Failures, and what the leader does about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Run


class FailureStore(Protocol):
    """What the leader asks about jobs on whose failures it acts (`JobSpec.watched`), and how it pauses them.

    Reports of failures (`RunStore.record` and `lose`) note the job in the same transaction.
    """

    def noted(self, *, limit: int) -> dict[int, str]:
        """Return jobs that have failed since they were settled last: their ids, each with the newest note's nonce."""
        ...

    def settle(self, seen: Mapping[int, str], *, term: int) -> None:
        """Remove the notes that were seen, under the leader's term; newer ones stay. Safe to repeat."""
        ...

    def ends(self, job_id: int, *, after_ms: int, limit: int, before: RunKey | None = None) -> list[Run]:
        """Return the job's runs of fire times after that instant, as `RunStore.history` does, without their output."""
        ...

    def pause(self, job_id: int, *, generation: int, reason: str, term: int) -> bool:
        """Pause an active job of exactly this generation, under the leader's term. False when it has changed.

        Nothing is signed: the job is `withdrawn` until it is saved anew. Safe to repeat.
        """
        ...
