"""Signing all tasks anew, after the signing key has changed: a piece at a time, as often as you like.

It happens in a request that an admin of all namespaces has sent. What a task says is not looked up anywhere: it is what
its present signature vouches for, byte for byte, and a task whose signature is not by a key that is trusted still is
refused. Nothing but the signature changes, so no fire moves, no generation counts up, and whoever edits a job at the
same time wins. Rows are signed anew; the leader, who compares them with the znodes each minute, copies them there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cronkeeper.errors import SignatureError, WireFormatError
from cronkeeper.ports import JobStore
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.task import Signer, Verifier, signer_of
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """A job whose task is not signed anew, and why."""

    job_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Resigned:
    """What was done to some jobs, by id; `next_after` leads to the next ones, and is None at the end."""

    key: str
    signed: int
    current: int
    refused: tuple[Refused, ...]
    next_after: int | None


class Resigning:
    """Signs tasks anew. Raises UnavailableError: go on from the last `next_after`, or from the start."""

    def __init__(self, jobs: JobStore, signer: Signer, verifier: Verifier, clock: Clock) -> None:
        self._jobs = jobs
        self._signer = signer
        self._verifier = verifier
        self._clock = clock

    def some(self, *, after: int, limit: int, caller: Caller) -> Resigned:
        """Sign the tasks of the next jobs after that id, at most `limit`. Safe to repeat."""
        left = sorted(job_id for job_id in self._jobs.job_ids() if job_id > after)
        ids = left[:limit]
        found = self._jobs.envelopes(ids)
        wanted: dict[int, tuple[bytes, bytes]] = {}
        refused: list[Refused] = []
        for job_id, raw in sorted(found.items()):
            try:
                self._verifier.open(raw, job_id=job_id)
                if signer_of(raw) == self._signer.key_id:
                    continue
                new = self._signer.reseal(raw, job_id=job_id, verifier=self._verifier)
            except (SignatureError, WireFormatError) as exc:
                refused.append(Refused(job_id, str(exc)))
                log.error(
                    "a task is not signed anew", extra={"event": "task.not_resigned", "job": job_id, "error": str(exc)}
                )
                continue
            wanted[job_id] = (raw, new)
        signed = self._save(wanted, caller)
        current = len(found) - len(wanted) - len(refused)
        next_after = ids[-1] if len(left) > limit else None
        return Resigned(self._signer.key_id, signed, current, tuple(refused), next_after)

    def _save(self, wanted: dict[int, tuple[bytes, bytes]], caller: Caller) -> int:
        if not wanted:
            return 0
        what = {"jobs": len(wanted), "first": min(wanted), "last": max(wanted)}
        entry = note(caller, "tasks.resigned", "key", self._signer.key_id, at_ms=self._clock.now_ms(), new=what)
        signed = self._jobs.reseal(wanted, trail=[entry])
        log.info(
            "tasks were signed anew", extra={"event": "tasks.resigned", "jobs": signed, "key": self._signer.key_id}
        )
        return signed
