"""Policies of namespaces in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.quota import Usage, excess, retry_after_s, window_of
from cronkeeper.errors import QuotaExceededError
from cronkeeper.ports import NamespacePolicy, NewJob, Weighing
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.wire.trail import Entry


class MemoryNamespaceStore:
    """See cronkeeper.ports.NamespaceStore."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def get(self, name: str) -> NamespacePolicy:
        with self._memory.call("namespaces.get"):
            return self._memory.policies.get(name, NamespacePolicy(name))

    def all(self) -> list[NamespacePolicy]:
        with self._memory.call("namespaces.all"):
            policies = self._memory.policies
            names = {*policies, *(job.spec.namespace for job in self._memory.jobs.values())}
            return [policies.get(name, NamespacePolicy(name)) for name in sorted(names)]

    def save(self, policy: NamespacePolicy, *, trail: Sequence[Entry] = ()) -> None:
        with self._memory.call("namespaces.save"):
            self._memory.policies[policy.name] = policy
            self._memory.note(trail)

    def usage(self, name: str, load_of: Callable[[str], float]) -> Usage:
        with self._memory.call("namespaces.usage"):
            return _usage(self._memory.jobs.values(), name, load_of)


def check_quotas(
    memory: Memory, jobs: Mapping[int, Job], new: Sequence[NewJob], changed: Sequence[Job], weighing: Weighing
) -> None:
    """Raise QuotaExceededError if `jobs`, in place of those that memory has, go beyond a quota; count creations."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for name in sorted({*(item.namespace for item in new), *(job.spec.namespace for job in changed)}):
        quotas = memory.policies.get(name, NamespacePolicy(name)).quotas
        limit, window = quotas.max_creates_per_minute, window_of(weighing.now_ms)
        for token, count in sorted(Counter(item.by for item in new if item.namespace == name).items()):
            minute, before = memory.creates.get((name, token), (window, 0))
            wanted = count + (before if minute == window else 0)
            if limit is not None and wanted > limit:
                wait_s = retry_after_s(weighing.now_ms)
                raise QuotaExceededError(name, "max_creates_per_minute", "namespace", limit, wanted, wait_s)
            counts[name, token] = (window, wanted)
        was, becomes = (_usage(held.values(), name, weighing.load_of) for held in (memory.jobs, jobs))
        if found := excess(quotas, was, becomes):
            raise QuotaExceededError(name, found.quota, found.field, found.limit, found.wanted)
    memory.creates.update(counts)


def _usage(jobs: Iterable[Job], name: str, load_of: Callable[[str], float]) -> Usage:
    specs = [job.spec for job in jobs if job.spec.namespace == name and job.state is not JobState.FINISHED]
    return Usage(
        len(specs),
        sum(spec.shards * load_of(spec.schedule) for spec in specs),
        sum(spec.artifact.size for spec in specs if spec.artifact is not None),
    )
