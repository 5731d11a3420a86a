"""Jobs as rows and back. Pure."""

from __future__ import annotations

import json
from typing import Any

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobSpec, JobState, LastRun, spec_from_dict
from cronkeeper.domain.run import RunState
from cronkeeper.domain.secret_env import secrets_from_dict
from cronkeeper.errors import WireFormatError
from cronkeeper.ports import JobVersion, PlanRow, SignedRow
from cronkeeper.store.flavour import Row
from cronkeeper.wire.sealed import keys_of
from cronkeeper.wire.spec_text import spec_text

#: All columns of the table, in the order of `to_row`.
COLUMNS = (
    "id",
    "namespace",
    "name",
    "generation",
    "state",
    "schedule",
    "timezone",
    "selector",
    "shards",
    "effective_from_ms",
    "created_ms",
    "updated_ms",
    "search",
    "spec",
    "envelope",
    "watched",
    "state_reason",
)
#: What `from_row` reads: columns of jobs, then of job_heads (all None where the job has never run).
READ = (
    "id",
    "generation",
    "state",
    "effective_from_ms",
    "created_ms",
    "updated_ms",
    "spec",
    "envelope",
    "state_reason",
    "paused_generation",
)
READ_HEAD = ("shard", "fire_ms", "attempt", "state", "ended_ms")
PLAN = (
    "id",
    "generation",
    "state",
    "shards",
    "selector",
    "schedule",
    "timezone",
    "effective_from_ms",
    "updated_ms",
    "paused_generation",
)
#: Whatever a spec with sealed secrets holds somewhere, and hardly any other does.
SEALED = '"sealed":{"'
NO_SECRETS_KEYS: frozenset[str] = frozenset()

#: What `signed_row` reads.
SIGNED = (
    "id",
    "generation",
    "state",
    "effective_from_ms",
    "schedule",
    "timezone",
    "selector",
    "shards",
    "spec",
    "envelope",
    "paused_generation",
)

#: A version of a job, and where in the job's own row it comes from.
HISTORY = ("job_id", "generation", "state", "since_ms", "effective_from_ms", "spec")
REMEMBERED = ("id", "generation", "state", "updated_ms", "effective_from_ms", "spec")


def to_row(job: Job) -> Row:
    """Return the job's row."""
    spec = job.spec
    return (
        job.id,
        spec.namespace,
        spec.name,
        job.generation,
        job.state.value,
        spec.schedule,
        spec.timezone,
        spec.selector,
        spec.shards,
        job.effective_from_ms,
        job.created_ms,
        job.updated_ms,
        searchable(spec),
        spec_text(spec),
        job.envelope,
        int(spec.watched),
        job.state_reason,
    )


def placeholder(namespace: str, name: str | None, mark: str) -> Row:
    """Return a row without an id that holds a place (and a name) until the same transaction fills it."""
    return (namespace, name, 0, JobState.PAUSED.value, "", "", None, 1, 0, 0, 0, mark, "", b"", 0, "")


def label_rows(job: Job) -> list[Row]:
    """Return the rows by which the job is found by its labels."""
    return [(job.id, key, value) for key, value in sorted(job.spec.labels.items())]


def searchable(spec: JobSpec) -> str:
    """Return what a job is looked for in. A line feed parts the fields."""
    return f"{spec.name or ''}\n{spec.executable}\n{spec.description}".casefold()


def from_row(row: Any) -> Job:
    """Read a row of READ and READ_HEAD. Raises WireFormatError when it was edited by hand or is of a newer version."""
    job_id, generation, state, effective_from_ms, created_ms, updated_ms, spec, envelope, reason, paused, *head = row
    try:
        return Job(
            id=int(job_id),
            spec=spec_from_dict(json.loads(spec)),
            generation=int(generation),
            state=JobState(state),
            created_ms=int(created_ms),
            updated_ms=int(updated_ms),
            effective_from_ms=int(effective_from_ms),
            envelope=bytes(envelope),
            last_run=_last_run(int(job_id), *head),
            state_reason=reason,
            withdrawn=_is_withdrawn(state, generation, paused),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise WireFormatError(f"the row of job {job_id} cannot be read: {exc!r}") from exc


def plan_row(row: Any) -> PlanRow:
    """Read a row of PLAN, and its spec if that holds sealed secrets. Raises WireFormatError."""
    job_id, generation, state, shards, selector, schedule, timezone, effective_from_ms, updated_ms, paused, spec = row
    try:
        return PlanRow(
            int(job_id),
            int(generation),
            JobState(state),
            int(shards),
            selector,
            str(schedule),
            str(timezone),
            int(effective_from_ms),
            int(updated_ms),
            _is_withdrawn(state, generation, paused),
            NO_SECRETS_KEYS if spec is None else _secrets_keys(json.loads(spec)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise WireFormatError(f"the row of job {job_id} cannot be read: {exc!r}") from exc


def signed_row(row: Any) -> SignedRow:
    """Read a row of SIGNED. Raises WireFormatError."""
    job_id, generation, state, effective_ms, schedule, timezone, selector, shards, spec, envelope, paused = row
    try:
        return SignedRow(
            int(job_id),
            int(generation),
            JobState(state),
            int(effective_ms),
            str(schedule),
            str(timezone),
            selector,
            int(shards),
            str(spec),
            bytes(envelope),
            _is_withdrawn(state, generation, paused),
        )
    except (TypeError, ValueError) as exc:
        raise WireFormatError(f"the row of job {job_id} cannot be read: {exc!r}") from exc


def _secrets_keys(spec: dict[str, Any]) -> frozenset[str]:
    return keys_of(secrets_from_dict(spec["env"], spec.get("sealed", {})))


def version(row: Any) -> JobVersion:
    """Read a row of HISTORY. Raises WireFormatError."""
    job_id, generation, state, since_ms, effective_from_ms, spec = row
    try:
        return JobVersion(
            int(job_id),
            int(generation),
            JobState(state),
            int(since_ms),
            int(effective_from_ms),
            spec_from_dict(json.loads(spec)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise WireFormatError(f"a version of job {job_id} cannot be read: {exc!r}") from exc


def _is_withdrawn(state: str, generation: int, paused_generation: int | None) -> bool:
    """Say whether a leader's pause still holds: whoever saves the job, of any version, makes a new generation."""
    return state == JobState.PAUSED and paused_generation == generation


def _last_run(
    job_id: int, shard: int | None, fire_ms: int | None, attempt: int | None, state: str | None, ended_ms: int | None
) -> LastRun | None:
    if shard is None or fire_ms is None or attempt is None or state is None:
        return None
    key = RunKey(TaskId(job_id, shard), fire_ms, attempt)
    return LastRun(str(key), fire_ms, RunState(state), ended_ms)
