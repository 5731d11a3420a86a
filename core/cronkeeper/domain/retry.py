"""Retries: after a failed attempt, when is the next one, if at all?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry is a new run of the same fire time, with the next attempt number."""

    #: How many retries may follow the first attempt; 0 is none.
    limit: int = 0
    backoff_s: int = 10
    max_backoff_s: int = 3600
    #: Whether the task moves to another worker that fits, if there is one, before the next attempt.
    elsewhere: bool = False


def next_attempt_after_s(retry: Retry, attempt: int) -> int | None:
    """Return the seconds to wait before attempt `attempt + 1`, or None when no attempt is left.

    The wait doubles from `backoff_s` up to `max_backoff_s`.
    """
    if attempt > retry.limit:
        return None
    doublings = min(attempt - 1, 32)
    return min(retry.backoff_s << doublings, retry.max_backoff_s)
