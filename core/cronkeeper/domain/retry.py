"""Retries: after a failed attempt, when is the next one, if at all?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.sharing import shared


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry is a new run of the same fire time, with the next attempt number."""

    #: How many retries may follow the first attempt; 0 is none.
    limit: int = 0
    backoff_s: int = 10
    max_backoff_s: int = 3600
    #: Up to so many seconds are added to each wait.
    jitter_s: int = 0
    #: Whether the task moves to another worker that fits, if there is one, before the next attempt.
    elsewhere: bool = False


_RETRY = shared(Retry)


def next_attempt_after_s(retry: Retry, failed: RunKey) -> int | None:
    """Return the seconds to wait before the attempt after a failed one, or None when no attempt is left.

    The wait doubles from `backoff_s` up to `max_backoff_s`. What the jitter adds is the same for the same attempt,
    whoever asks, so that a failover does not re-roll it.
    """
    if failed.attempt > retry.limit:
        return None
    doublings = min(failed.attempt - 1, 32)
    digest = hashlib.blake2b(str(failed).encode(), digest_size=8).digest()
    return min(retry.backoff_s << doublings, retry.max_backoff_s) + int.from_bytes(digest) % (retry.jitter_s + 1)


def longest_waits_s(retry: Retry) -> int:
    """Return the sum of all waits, at their longest."""
    waits = (min(retry.backoff_s << min(number, 32), retry.max_backoff_s) for number in range(retry.limit))
    return sum(waits) + retry.limit * retry.jitter_s


def retry_to_dict(retry: Retry) -> dict[str, Any]:
    """Return the JSON shape of the spec's `retry`."""
    # By hand: `asdict` copies deeply, and this is done several times for each job that is saved.
    return {
        "limit": retry.limit,
        "backoff_s": retry.backoff_s,
        "max_backoff_s": retry.max_backoff_s,
        "jitter_s": retry.jitter_s,
        "elsewhere": retry.elsewhere,
    }


def retry_from_dict(data: Mapping[str, Any]) -> Retry:
    """Read `retry_to_dict`'s shape, also of versions that knew fewer fields. Raises KeyError, TypeError, ValueError."""
    return _RETRY(
        int(data["limit"]),
        int(data["backoff_s"]),
        int(data["max_backoff_s"]),
        int(data.get("jitter_s", 0)),
        bool(data.get("elsewhere", False)),
    )
