"""Failures in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import JobState
from cronkeeper.domain.run import Run
from cronkeeper.testing.memory_store_runs import place
from cronkeeper.testing.memory_store_state import Memory


class MemoryFailureStore:
    """See cronkeeper.ports.FailureStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def noted(self, *, limit: int) -> dict[int, str]:
        with self._memory.call("failures.noted"):
            return dict(sorted(self._memory.failing.items())[:limit])

    def settle(self, seen: Mapping[int, str], *, term: int) -> None:
        with self._memory.call("failures.settle"):
            if seen:
                self._memory.hold_term(term)
            for job_id, nonce in seen.items():
                if self._memory.failing.get(job_id) == nonce:
                    del self._memory.failing[job_id]

    def ends(self, job_id: int, *, after_ms: int, limit: int, before: RunKey | None = None) -> list[Run]:
        with self._memory.call("failures.ends"):
            runs = [run for run in self._memory.runs.values() if run.key.task.job_id == job_id]
            newer = [run.evolve(output_tail="") for run in runs if run.key.fire_ms > after_ms]
            older = [run for run in newer if before is None or place(run.key) < place(before)]
            return sorted(older, key=lambda run: place(run.key), reverse=True)[:limit]

    def pause(self, job_id: int, *, generation: int, reason: str, term: int) -> bool:
        with self._memory.call("failures.pause"):
            self._memory.hold_term(term)
            job = self._memory.jobs.get(job_id)
            if job is None or job.generation != generation:
                return False
            if job.state is not JobState.ACTIVE:
                return job.withdrawn
            updated_ms = max(job.updated_ms, self._memory.clock.now_ms())
            paused = replace(job, state=JobState.PAUSED, state_reason=reason, withdrawn=True, updated_ms=updated_ms)
            self._memory.jobs[job_id] = paused
            self._memory.remember(paused)
            return True
