"""What the auditor needs of a version: when it is due, and how long after its fate has to be known. PURE.

The leader holds 100,000 of them, and most have their spec in common with others as soon as nothing else is in it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from cronkeeper.domain.job import Concurrency, JobSpec, JobType
from cronkeeper.domain.schedule import Dst
from cronkeeper.ports import JobVersion


def slim(version: JobVersion) -> JobVersion:
    """Return the version with a spec that says the same about time, and nothing else."""
    spec = version.spec
    # What `H` stands for depends on the job's name, or on its id.
    seed = (spec.namespace, spec.name, spec.spread) if "h" in spec.schedule.lower() else ("", None, "")
    window = (spec.starts_at_ms, spec.ends_at_ms)
    lean = _spec(
        spec.schedule, spec.timezone, spec.dst, seed, window, spec.shards, spec.grace_s, spec.jitter_s, spec.concurrency
    )
    if spec.calendar is not None or spec.blackouts:
        lean = lean.evolve(
            calendar=spec.calendar,
            blackouts=spec.blackouts,
            holiday_dates=spec.holiday_dates,
            named_dates=spec.named_dates,
        )
    return replace(version, spec=lean)


@lru_cache(maxsize=16_384)
def _spec(
    schedule: str,
    timezone: str,
    dst: Dst,
    seed: tuple[str, str | None, str],
    window: tuple[int | None, int | None],
    shards: int,
    grace_s: int,
    jitter_s: int,
    concurrency: Concurrency,
) -> JobSpec:
    """Return one object for all that are equal."""
    namespace, name, spread = seed
    return JobSpec(
        "",
        schedule,
        JobType.COMMAND,
        namespace=namespace,
        name=name,
        spread=spread,
        timezone=timezone,
        dst=dst,
        starts_at_ms=window[0],
        ends_at_ms=window[1],
        shards=shards,
        grace_s=grace_s,
        jitter_s=jitter_s,
        concurrency=concurrency,
    )
