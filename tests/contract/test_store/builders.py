"""Jobs and runs for the contract suite, with everything defaulted that a test does not speak of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState, JobType
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Idempotency, IdempotencyResult, NewJob, RequestKey, Store

MINUTE_MS = 60_000
_nonces = itertools.count(1)


def nonce() -> str:
    """A fresh nonce."""
    return f"{next(_nonces):032x}"


def new_job(
    name: str | None = None,
    *,
    namespace: str = "default",
    executable: str = "true",
    description: str = "",
    labels: Mapping[str, str] | None = None,
    state: JobState = JobState.ACTIVE,
    updated_ms: int = 1000,
    request: RequestKey | None = None,
    **spec: Any,
) -> NewJob:
    full = JobSpec(
        executable=executable,
        schedule="* * * * *",
        type=JobType.COMMAND,
        namespace=namespace,
        name=name,
        description=description,
        labels=labels or {},
        **spec,
    )

    def build(job_id: int) -> Job:
        return Job(
            id=job_id,
            spec=full,
            generation=1,
            state=state,
            created_ms=1000,
            updated_ms=updated_ms,
            effective_from_ms=900,
            envelope=f"envelope of {job_id}".encode(),
        )

    return NewJob(namespace, name, build, request)


def run(
    job_id: int = 1,
    *,
    shard: int = 0,
    fire_ms: int = MINUTE_MS,
    attempt: int = 1,
    state: RunState = RunState.CLAIMED,
    worker: str = "w1",
    trigger: Trigger = Trigger.CRON,
    **fields: Any,
) -> Run:
    key = RunKey(TaskId(job_id, shard), fire_ms, attempt)
    values: dict[str, Any] = {"nonce": nonce(), "generation": 1, "fence": 7, "claimed_ms": 10} | fields
    return Run(key=key, trigger=trigger, state=state, worker=worker, **values)


def recorded(store: Store, state: RunState, **fields: Any) -> Run:
    """Claim a run and bring it to `state`; return the row."""
    mine = run(**fields)
    assert store.runs.claim([mine]) == {mine.key: True}
    if state is not RunState.CLAIMED:
        assert store.runs.record([mine.evolve(state=state)]) == []
    return store.runs.get(mine.key)


def on_demand(shard: int = 0) -> Run:
    """A run that was asked for and that nobody has claimed yet."""
    return run(shard=shard, state=RunState.PENDING, trigger=Trigger.MANUAL, worker="", nonce="", claimed_ms=None)


def taken(result: IdempotencyResult) -> RequestKey:
    """The right to work on a request that is new."""
    assert result.outcome is Idempotency.NEW and result.request is not None
    return result.request


def begin(store: Store, *, scope: str = "t1 POST /jobs", body: str = "b1", now_ms: int = 1000) -> IdempotencyResult:
    """Ask whose a key is."""
    return store.idempotency.begin(scope, "key", body_digest=body, now_ms=now_ms)
