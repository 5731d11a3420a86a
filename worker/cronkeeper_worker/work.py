"""What a task runs, apart from when and how: of that most tasks have a spec in common, which is kept once. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from cronkeeper.domain.job import Artifact, JobSpec
from cronkeeper.domain.secret_env import NO_SECRETS, SecretEnv
from cronkeeper.domain.sharing import nothing


class Work(NamedTuple):
    """A task's own part of its spec."""

    executable: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = nothing()
    secrets: SecretEnv = NO_SECRETS
    artifact: Artifact | None = None


def work_of(spec: JobSpec) -> Work:
    """Return what a spec says that a task runs."""
    return Work(spec.executable, spec.args, spec.env, spec.secrets, spec.artifact)


def parted(spec: JobSpec) -> tuple[JobSpec, Work | str]:
    """Return a spec without what is a task's own, or says nothing to its worker, and what it runs.

    That is a text for those that are a command line and nothing else.
    """
    work = work_of(spec)
    if spec.calendar is not None or spec.blackouts:
        lean = spec.evolve(executable="", name=None, description="", owner="", labels=nothing(), **_NO_WORK)
    else:
        lean = _lean(*(getattr(spec, name) for name in _COMMON))
    return lean, work.executable if work == Work(work.executable) else work


#: What is left of a spec without a calendar, in order.
_COMMON = (
    "schedule", "type", "namespace", "timezone", "run_as", "timeout_s", "retry", "concurrency", "misfire", "grace_s",
    "delivery", "on_worker_loss", "dst", "jitter_s", "starts_at_ms", "ends_at_ms", "shards", "limits",
)  # fmt: skip
_NO_WORK = {"args": (), "env": nothing(), "secrets": NO_SECRETS, "artifact": None}


@lru_cache(maxsize=8192, typed=True)
def _lean(*values: object) -> JobSpec:
    """Return one object for all that are equal."""
    return JobSpec(executable="", **dict(zip(_COMMON, values, strict=True)))  # type: ignore[arg-type]
