"""What a namespace may hold: its quotas, what it holds, and where a change goes too far. PURE."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds of one namespace; None: not bounded. Finished jobs do not count, paused ones do."""

    max_jobs: int | None = None
    #: Expected fires a minute of all jobs together, each shard on its own.
    max_fires_per_minute: float | None = None
    #: The shortest time between two fires of one job, in seconds.
    min_interval_s: int | None = None
    #: Bytes of the files of all jobs together.
    max_artifact_bytes: int | None = None
    #: Jobs that one token may create in a minute of the clock.
    max_creates_per_minute: int | None = None

    @property
    def counted(self) -> bool:
        """Say whether a write must be counted under a lock."""
        bounds = (self.max_jobs, self.max_fires_per_minute, self.max_artifact_bytes, self.max_creates_per_minute)
        return bounds != (None, None, None, None)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a namespace holds."""

    jobs: int = 0
    fires_per_minute: float = 0.0
    artifact_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Excess:
    """A quota that a change would go beyond: its name, the job's field that does it, the bound and what would be."""

    quota: str
    field: str
    limit: float
    wanted: float


def excess(quotas: Quotas, before: Usage, after: Usage) -> Excess | None:
    """Return the first quota that the change breaks. What was over its bound already may stay, but not grow."""
    held = (
        ("max_jobs", "namespace", quotas.max_jobs, before.jobs, after.jobs),
        (
            "max_fires_per_minute",
            "schedule",
            quotas.max_fires_per_minute,
            before.fires_per_minute,
            after.fires_per_minute,
        ),
        ("max_artifact_bytes", "executable", quotas.max_artifact_bytes, before.artifact_bytes, after.artifact_bytes),
    )
    for quota, field, limit, was, becomes in held:
        # A hair: sums of fractions are not exact.
        if limit is not None and becomes > limit + 1e-9 and becomes > was + 1e-9:
            return Excess(quota, field, limit, becomes)
    return None


def window_of(now_ms: int) -> int:
    """Return the minute of the clock in which creations are counted."""
    return now_ms // MINUTE_MS


def retry_after_s(now_ms: int) -> int:
    """Return how many seconds the minute still lasts."""
    return -(-(MINUTE_MS - now_ms % MINUTE_MS) // 1000)
