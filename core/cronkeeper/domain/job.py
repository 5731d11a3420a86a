"""Jobs: what a user defines. A spec is a value; every change makes a new one with a higher generation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any

from cronkeeper.domain.calendars import (
    Blackout,
    Calendar,
    Closures,
    blackout_from_dict,
    blackout_to_dict,
    calendar_from_dict,
    calendar_to_dict,
    closures,
)
from cronkeeper.domain.ids import TaskId, node_shard
from cronkeeper.domain.instants import parse_rfc3339, rfc3339
from cronkeeper.domain.labels import Selector, parse_selector
from cronkeeper.domain.named_calendars import Dates, dates_from_dict, dates_to_dict
from cronkeeper.domain.retry import Retry, retry_from_dict, retry_to_dict
from cronkeeper.domain.run import RunState
from cronkeeper.domain.schedule import Dst, Fold, Gap, Schedule, is_reboot, parse_schedule
from cronkeeper.domain.secret_env import NO_SECRETS, SecretEnv, env_to_dict, plain_env, secrets_from_dict
from cronkeeper.domain.sharing import common, nothing, one_text, or_nothing, shared, texts

DEFAULT_NAMESPACE = "default"
DEFAULT_GRACE_S = 3600
MAX_SHARDS = 1000
NO_RETRY = Retry()
CRON_DST = Dst()


class JobType(StrEnum):
    COMMAND = "command"
    SCRIPT = "script"
    BINARY = "binary"


class Concurrency(StrEnum):
    """What a fire does while an earlier run of the task is active."""

    FORBID = "forbid"
    ALLOW = "allow"
    REPLACE = "replace"
    QUEUE = "queue"


class Misfire(StrEnum):
    """What becomes of fires that are found late but within the grace."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"


class Delivery(StrEnum):
    """What decides when no fence can be reached: run and report, or wait and skip."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class OnWorkerLoss(StrEnum):
    RERUN = "rerun"
    HOLD = "hold"


def default_on_worker_loss(delivery: Delivery) -> OnWorkerLoss:
    """Return what a job that says nothing wants: a run that was lost may have happened, so `at_most_once` holds."""
    return OnWorkerLoss.HOLD if delivery is Delivery.AT_MOST_ONCE else OnWorkerLoss.RERUN


class JobState(StrEnum):
    """What the user wants of the job; what `GET /jobs` shows as `status` is computed by `status_of`."""

    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


class JobStatus(StrEnum):
    SCHEDULED = "scheduled"
    PAUSED = "paused"
    FINISHED = "finished"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A job's file in the object store, pinned by content."""

    key: str
    url: str
    sha256: str
    size: int
    filename: str


@dataclass(frozen=True, slots=True)
class Limits:
    #: Processor seconds a run may use (RLIMIT_CPU); None is no limit.
    cpu: int | None = None
    #: Private memory a process of the run may map, in MiB (RLIMIT_DATA); None is no limit.
    memory_mb: int | None = None
    #: Output kept of a run, in KiB; the rest is dropped, save the last 4 KiB.
    output_kb: int = 1024


NO_LIMITS = Limits()
_LIMITS, _DST, _INT = shared(Limits), shared(Dst), shared(int)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """All that a user says about a job. Every field but the first three has a default."""

    executable: str
    schedule: str
    type: JobType
    namespace: str = DEFAULT_NAMESPACE
    name: str | None = None
    description: str = ""
    owner: str = ""
    timezone: str = "UTC"
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=nothing)
    #: Variables that get secrets, with the sealed copies: put there when the job is saved.
    secrets: SecretEnv = NO_SECRETS
    #: The account on the node; None is the node's default (never root).
    run_as: str | None = None
    timeout_s: int | None = None
    retry: Retry = NO_RETRY
    #: After so many fire times in a row that have failed for good, the job is paused; None is never.
    pause_after_failures: int | None = None
    concurrency: Concurrency = Concurrency.FORBID
    misfire: Misfire = Misfire.LATEST
    grace_s: int = DEFAULT_GRACE_S
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    on_worker_loss: OnWorkerLoss = OnWorkerLoss.RERUN
    dst: Dst = CRON_DST
    jitter_s: int = 0
    starts_at_ms: int | None = None
    ends_at_ms: int | None = None
    selector: str | None = None
    shards: int = 1
    limits: Limits = NO_LIMITS
    labels: Mapping[str, str] = field(default_factory=nothing)
    filename: str | None = None
    artifact: Artifact | None = None
    #: Days without fires, in the job's zone; None is every day allowed.
    calendar: Calendar | None = None
    blackouts: tuple[Blackout, ...] = ()
    #: The dates of the calendar's holidays, by region: copied when the job is saved, so that they stay what they are.
    holiday_dates: Mapping[str, tuple[date, ...]] = field(default_factory=nothing)
    #: The days of the calendars that it names, by name: copied each time the job is saved.
    named_dates: Mapping[str, Dates] = field(default_factory=nothing)
    #: What `H` in the schedule of a job without a name is resolved for: its id.
    spread: str = ""
    #: Its JSON text, once somebody has made that (see cronkeeper.wire.spec_text): no part of what the user says.
    text: str | None = field(default=None, init=False, repr=False, compare=False)

    def evolve(self, **changes: Any) -> JobSpec:
        """Return a copy with these fields changed."""
        return replace(self, **changes)

    def parsed_schedule(self) -> Schedule:
        """Return the schedule as a value. ScheduleError or ValueError: a stored spec may be older than a rule."""
        return parse_schedule(self.schedule, self.timezone, self.dst, seed=self.seed, closures=self.closures())

    def closures(self) -> Closures | None:
        """Return what its calendar and blackouts close, None for nothing."""
        if self.calendar is None and not self.blackouts:
            return None
        return closures(self.calendar, self.holiday_dates, self.blackouts, self.named_dates)

    @property
    def at_reboot(self) -> bool:
        """Whether it runs at each start of each node that fits, so that each node has a task of its own."""
        return is_reboot(self.schedule)

    def has_shard(self, shard: int, worker: str) -> bool:
        """Say whether the worker may have this shard of the job."""
        return shard == node_shard(worker) if self.at_reboot else shard < self.shards

    @property
    def seed(self) -> str:
        """What `H` is resolved for."""
        return f"{self.namespace}/{self.name}" if self.name is not None else self.spread

    @property
    def timing(self) -> tuple[object, ...]:
        """All that its fire times depend on, to be compared and looked up."""
        # Many jobs share a schedule; a name makes a difference only where there is an H.
        seed = self.seed if "h" in self.schedule.lower() else ""
        when = (self.schedule, self.timezone, self.dst, self.starts_at_ms, self.ends_at_ms)
        named = tuple((name, self.named_dates[name].digest) for name in sorted(self.named_dates))
        return (*when, seed, self.calendar, tuple(sorted(self.holiday_dates.items())), named, self.blackouts)

    def parsed_selector(self) -> Selector | None:
        """Return the selector as a value; None allows every worker."""
        return None if self.selector is None else parse_selector(self.selector)

    @property
    def reruns_lost(self) -> bool:
        """Whether a run whose end nobody saw is run again. Not under `at_most_once`: it may have run, or still run."""
        return self.on_worker_loss is OnWorkerLoss.RERUN and self.delivery is Delivery.AT_LEAST_ONCE

    @property
    def watched(self) -> bool:
        """Whether the leader acts on its failures."""
        return self.pause_after_failures is not None or self.retry.elsewhere

    def due_between(self, after_ms: int, until_ms: int) -> tuple[int, int]:
        """Narrow (after, until] to the job's own window [starts_at, ends_at)."""
        low = after_ms if self.starts_at_ms is None else max(after_ms, self.starts_at_ms - 1)
        high = until_ms if self.ends_at_ms is None else min(until_ms, self.ends_at_ms - 1)
        return low, high

    def jitter_ms(self, task: TaskId, fire_ms: int) -> int:
        """Return the delay of this fire's start: the same on every node, so that a failover does not re-roll it."""
        if not self.jitter_s:
            return 0
        digest = hashlib.blake2b(f"{task}@{fire_ms}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) % (self.jitter_s * 1000)


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest scheduled or manual run that a job's row remembers."""

    run_id: str
    fire_ms: int
    state: RunState
    ended_ms: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store holds it. Instants are epoch milliseconds, UTC."""

    id: int
    spec: JobSpec
    generation: int
    state: JobState
    created_ms: int
    updated_ms: int
    #: The present generation never fires for an instant at or before this one: an edit never fires backwards.
    effective_from_ms: int
    #: The signed task (see cronkeeper.wire.task), made where the authenticated request was accepted.
    envelope: bytes
    last_run: LastRun | None = None
    #: Why it has the state it has, where nobody asked for that; empty otherwise.
    state_reason: str = ""
    #: A leader paused it, who can sign nothing: the envelope still says active, so no worker may have its tasks.
    withdrawn: bool = False

    def tasks(self) -> list[TaskId]:
        """Return the job's tasks, one for each shard. Those that nodes have of `@reboot` are not known to the job."""
        return [TaskId(self.id, shard) for shard in range(0 if self.spec.at_reboot else self.spec.shards)]


def status_of(state: JobState, last_run: LastRun | None, *, unsuccessful: frozenset[RunState]) -> JobStatus:
    """Return what people see: an active job whose last run failed is an `error`, and goes on being scheduled."""
    if state is JobState.PAUSED:
        return JobStatus.PAUSED
    if state is JobState.FINISHED:
        return JobStatus.FINISHED
    if last_run is not None and last_run.state in unsuccessful:
        return JobStatus.ERROR
    return JobStatus.SCHEDULED


def next_fire(spec: JobSpec, after_ms: int) -> int | None:
    """Return the job's next fire time inside its window, or None."""
    low, _ = spec.due_between(after_ms, after_ms)
    found = spec.parsed_schedule().next_fire(low)
    if found is None or (spec.ends_at_ms is not None and found >= spec.ends_at_ms):
        return None
    return found


def may_fire(spec: JobSpec, after_ms: int) -> bool:
    """Say whether anything can be due after that instant; of `@reboot` that is all that can be said."""
    if spec.at_reboot:
        return spec.ends_at_ms is None or spec.ends_at_ms > after_ms
    return next_fire(spec, after_ms) is not None


def spec_to_dict(spec: JobSpec) -> dict[str, Any]:
    """Return the spec in its JSON shape, defaults included: what a job's row, a signed task and `GET /jobs` hold."""
    return {
        "executable": spec.executable,
        "schedule": spec.schedule,
        "type": spec.type.value,
        "namespace": spec.namespace,
        "name": spec.name,
        "description": spec.description,
        "owner": spec.owner,
        "timezone": spec.timezone,
        "args": list(spec.args),
        **env_to_dict(spec.env, spec.secrets),
        "run_as": spec.run_as,
        "timeout_s": spec.timeout_s,
        "retry": retry_to_dict(spec.retry),
        "pause_after_failures": spec.pause_after_failures,
        "concurrency": spec.concurrency.value,
        "misfire": spec.misfire.value,
        "grace_s": spec.grace_s,
        "delivery": spec.delivery.value,
        "on_worker_loss": spec.on_worker_loss.value,
        "dst": {"gap": _value(spec.dst.gap), "fold": _value(spec.dst.fold)},
        "jitter_s": spec.jitter_s,
        "starts_at": None if spec.starts_at_ms is None else rfc3339(spec.starts_at_ms),
        "ends_at": None if spec.ends_at_ms is None else rfc3339(spec.ends_at_ms),
        "selector": spec.selector,
        "shards": spec.shards,
        "limits": {"cpu": spec.limits.cpu, "memory_mb": spec.limits.memory_mb, "output_kb": spec.limits.output_kb},
        "labels": dict(spec.labels),
        "filename": spec.filename,
        "artifact": None if spec.artifact is None else _artifact_to_dict(spec.artifact),
        "calendar": None if spec.calendar is None else calendar_to_dict(spec.calendar),
        "blackouts": [blackout_to_dict(blackout) for blackout in spec.blackouts],
        "holiday_dates": {key: [day.isoformat() for day in days] for key, days in spec.holiday_dates.items()},
        "named_dates": dates_to_dict(spec.named_dates),
        "spread": spec.spread,
    }


def spec_from_dict(data: Mapping[str, Any]) -> JobSpec:
    """Read what `spec_to_dict` wrote. Raises KeyError, TypeError or ValueError for anything else.

    Unknown keys are ignored, so that a worker can read the task of a newer API server; what an older one did not write
    is read as it was meant then.
    """
    dst, limits, artifact = data["dst"], data["limits"], data["artifact"]
    calendar, holiday_dates = data.get("calendar"), data.get("holiday_dates", {})
    return JobSpec(
        executable=str(data["executable"]),
        schedule=one_text(str(data["schedule"])),
        type=JobType(data["type"]),
        namespace=common(str(data["namespace"])),
        name=data["name"],
        description=str(data["description"]),
        owner=common(str(data["owner"])),
        timezone=common(str(data["timezone"])),
        args=tuple(str(arg) for arg in data["args"]),
        env=or_nothing(plain_env(data["env"])),
        secrets=secrets_from_dict(data["env"], data.get("sealed", {})),
        run_as=common(data["run_as"]),
        timeout_s=data["timeout_s"],
        retry=retry_from_dict(data["retry"]),
        pause_after_failures=data.get("pause_after_failures"),
        concurrency=Concurrency(data["concurrency"]),
        misfire=Misfire(data["misfire"]),
        grace_s=_INT(data["grace_s"]),
        delivery=Delivery(data["delivery"]),
        on_worker_loss=OnWorkerLoss(data["on_worker_loss"]),
        dst=_DST(Gap(dst["gap"]) if dst["gap"] else None, Fold(dst["fold"]) if dst["fold"] else None),
        jitter_s=int(data["jitter_s"]),
        starts_at_ms=None if data["starts_at"] is None else parse_rfc3339(data["starts_at"]),
        ends_at_ms=None if data["ends_at"] is None else parse_rfc3339(data["ends_at"]),
        selector=common(data["selector"]),
        shards=int(data["shards"]),
        limits=_LIMITS(limits["cpu"], limits["memory_mb"], int(limits["output_kb"])),
        labels=texts(data["labels"]),
        filename=data["filename"],
        artifact=None if artifact is None else _artifact_from_dict(artifact),
        calendar=None if calendar is None else calendar_from_dict(calendar),
        blackouts=tuple(blackout_from_dict(blackout) for blackout in data.get("blackouts", ())),
        holiday_dates=or_nothing(
            {str(key): tuple(map(date.fromisoformat, days)) for key, days in holiday_dates.items()}
        ),
        named_dates=or_nothing(dates_from_dict(data.get("named_dates", {}))),
        spread=str(data.get("spread", "")),
    )


def _artifact_to_dict(artifact: Artifact) -> dict[str, Any]:
    return {
        "key": artifact.key,
        "url": artifact.url,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "filename": artifact.filename,
    }


def _artifact_from_dict(data: Mapping[str, Any]) -> Artifact:
    return Artifact(str(data["key"]), str(data["url"]), str(data["sha256"]), int(data["size"]), str(data["filename"]))


def _value(item: StrEnum | None) -> str | None:
    return None if item is None else item.value
