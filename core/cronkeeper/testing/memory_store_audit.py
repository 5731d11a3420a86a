"""What the auditor keeps, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Job, spec_to_dict
from cronkeeper.domain.run import Run, Trigger
from cronkeeper.ports import AuditMark, Event, Fate, Fire, JobVersion, Missed, SignedRow
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.wire.codec import dumps


class MemoryAuditStore:
    """See cronkeeper.ports.AuditStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def versions(self, job_ids: Sequence[int]) -> list[JobVersion]:
        with self._memory.call("audit.versions"):
            wanted = set(job_ids)
            return _in_order(item for item in self._memory.versions.values() if item.job_id in wanted)

    def changed_versions(self, since_ms: int, *, after: tuple[int, int] = (0, 0), limit: int) -> list[JobVersion]:
        with self._memory.call("audit.changed_versions"):
            found = _in_order(
                item
                for item in self._memory.versions.values()
                if item.since_ms >= since_ms and (item.job_id, item.generation) > after
            )
            end = (found[limit - 1].job_id, found[limit - 1].generation) if len(found) > limit else None
            return [item for item in found if end is None or (item.job_id, item.generation) <= end]

    def fates(self, fires: Sequence[Fire]) -> dict[Fire, Fate]:
        with self._memory.call("audit.fates"):
            wanted = set(fires)
            runs = sorted(self._memory.runs.values(), key=lambda run: run.key)
            return {fate.fire: fate for fate in map(_fate, runs) if fate.fire in wanted}

    def recorded(self, after: Fire, until_ms: int, *, limit: int) -> list[Fate]:
        with self._memory.call("audit.recorded"):
            runs = [r for r in self._memory.runs.values() if r.key.attempt == 1 and r.trigger is not Trigger.MANUAL]
            found = sorted(map(_fate, runs), key=lambda fate: _by_time(fate.fire))
            return [f for f in found if _by_time(f.fire) > _by_time(after) and f.fire.fire_ms <= until_ms][:limit]

    def ahead(self, by_ms: int, *, limit: int) -> list[Fate]:
        with self._memory.call("audit.ahead"):
            from_ms = self._memory.clock.now_ms() + by_ms
            found = [fate for fate in map(_fate, self._memory.runs.values()) if fate.fire.fire_ms > from_ms]
            return sorted(found, key=lambda fate: _by_time(fate.fire))[:limit]

    def drop_ahead(self, fates: Sequence[Fate], by_ms: int, *, term: int) -> int:
        with self._memory.call("audit.drop_ahead"):
            self._memory.hold_term(term)
            from_ms, seen = self._memory.clock.now_ms() + by_ms, set(fates)
            gone = [k for k, run in self._memory.runs.items() if _fate(run) in seen and k.fire_ms > from_ms]
            for key in gone:
                del self._memory.runs[key]
            return len(gone)

    def signed(self, job_ids: Sequence[int]) -> list[SignedRow]:
        with self._memory.call("audit.signed"):
            jobs, spoilt = self._memory.jobs, self._memory.spoilt
            return [_signed(jobs[job_id]) for job_id in sorted(set(job_ids)) if job_id in jobs and job_id not in spoilt]

    def mark(self) -> AuditMark:
        with self._memory.call("audit.mark"):
            return self._memory.audit_mark

    def save(
        self,
        mark: AuditMark,
        *,
        missed: Sequence[Missed],
        withdrawn: Sequence[Fire],
        events: Sequence[Event],
        term: int,
    ) -> None:
        with self._memory.call("audit.save"):
            self._memory.hold_term(term)
            for fire in withdrawn:
                self._memory.missed.pop(fire, None)
            self._memory.missed.update({item.fire: item for item in missed})
            self._memory.audit_mark = mark
            self._memory.events += [event for event in dict.fromkeys(events) if event not in self._memory.events]

    def missed_page(self, after: Fire, *, limit: int) -> list[Missed]:
        with self._memory.call("audit.missed_page"):
            return [self._memory.missed[fire] for fire in sorted(self._memory.missed) if fire > after][:limit]

    def held(self, *, limit: int) -> list[Missed]:
        with self._memory.call("audit.held"):
            found = [item for item in self._memory.missed.values() if item.held]
            return sorted(found, key=lambda item: (item.noted_ms, item.fire))[:limit]

    def missed_of(self, job_id: int, *, limit: int) -> list[Missed]:
        with self._memory.call("audit.missed_of"):
            landed = {_fire(run) for run in self._memory.runs.values()}
            of_job = [item for item in self._memory.missed.values() if item.fire.task.job_id == job_id]
            found = [item for item in of_job if not item.held and item.fire not in landed]
            return sorted(found, key=lambda item: (-item.fire.fire_ms, item.fire.task))[:limit]

    def missed_at(self, job_id: int, fire_ms: int) -> list[Missed]:
        with self._memory.call("audit.missed_at"):
            fires = [f for f in sorted(self._memory.missed) if f.task.job_id == job_id and f.fire_ms == fire_ms]
            return [self._memory.missed[fire] for fire in fires]

    def purge(self, *, before_ms: int, limit: int) -> int:
        with self._memory.call("audit.purge"):
            fires = [fire for fire in sorted(self._memory.missed) if fire.fire_ms < before_ms][:limit]
            for fire in fires:
                del self._memory.missed[fire]
            ordered = _in_order(self._memory.versions.values())
            over = [item for item in ordered if item.since_ms < before_ms and _replaced(item, ordered, before_ms)][
                :limit
            ]
            for item in over:
                del self._memory.versions[item.job_id, item.generation, item.state]
            return len(fires) + len(over)


def _in_order(items: Iterable[JobVersion]) -> list[JobVersion]:
    return sorted(items, key=lambda item: (item.job_id, item.generation, item.since_ms))


def _replaced(item: JobVersion, others: Sequence[JobVersion], before_ms: int) -> bool:
    """Say whether a later version of the job had begun before that instant."""
    place = (item.generation, item.since_ms)
    return any(
        other.job_id == item.job_id and (other.generation, other.since_ms) > place and other.since_ms < before_ms
        for other in others
    )


def _by_time(fire: Fire) -> tuple[int, TaskId]:
    return (fire.fire_ms, fire.task)


def _fire(run: Run) -> Fire:
    return Fire(run.key.task, run.key.fire_ms)


def _fate(run: Run) -> Fate:
    return Fate(
        _fire(run),
        run.key.attempt,
        run.state,
        run.trigger,
        run.worker,
        run.generation,
        run.reason,
        run.claimed_ms,
        run.fence,
        run.nonce,
    )


def _signed(job: Job) -> SignedRow:
    spec = job.spec
    return SignedRow(
        job.id, job.generation, job.state, job.effective_from_ms, spec.schedule, spec.timezone, spec.selector,
        spec.shards, dumps(spec_to_dict(spec)).decode(), job.envelope, job.withdrawn,
    )  # fmt: skip
