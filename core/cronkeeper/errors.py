"""Every error we raise on purpose.

Four kinds, never blurred: *no* (a rule said no), *not now* (`retryable`), *not mine any more* (`FencedError`,
`StaleWriteError`: stop or read again, never retry) and *unknown* (`UnknownOutcomeError`: the write may have happened;
read back and compare the nonce or the version before anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field of one input: where it is, what is wrong, and how to mend it."""

    field: str
    message: str
    hint: str = ""


class CronkeeperError(Exception):
    """The root. `retryable` says whether the same call may succeed later without anybody changing anything."""

    retryable = False


class UnavailableError(CronkeeperError):
    """A store or a server could not be reached, and nothing was changed. Try again later."""

    retryable = True


class UnknownOutcomeError(CronkeeperError):
    """The answer to a write was lost. Read back by nonce or version; never simply repeat it."""


class NotFoundError(CronkeeperError):
    """There is no such thing, or it is not visible to the caller."""


class ConflictError(CronkeeperError):
    """The request is sound but the present state forbids it (a name is taken, a run has already ended)."""


class StaleWriteError(CronkeeperError):
    """Somebody else changed the row or znode first. Read again and decide again."""


class StaleCopyError(StaleWriteError):
    """What was copied into a job is not what there is any more. Copy it again."""


class FencedError(CronkeeperError):
    """A newer leader, worker session or generation exists. Stop writing."""


class IllegalTransitionError(CronkeeperError):
    """The run's transition table has no such edge."""


class PermissionDeniedError(CronkeeperError):
    """The caller is known but may not do this. `field` names the offending part of the input, if there is one."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ValidationFailedError(CronkeeperError):
    """The input is wrong. `errors` names every bad field at once; nothing was saved."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = tuple(errors)


class QuotaExceededError(CronkeeperError):
    """A quota of the namespace does not allow it; nothing was saved. `field` is what asks for too much.

    `retry_after_s` is set where waiting helps.
    """

    def __init__(
        self, namespace: str, quota: str, field: str, limit: float, wanted: float, retry_after_s: int | None = None
    ) -> None:
        super().__init__(f"namespace {namespace} may have {quota} {limit:g}; it would be {wanted:g}")
        self.quota = quota
        self.field = field
        self.retry_after_s = retry_after_s


class SignatureError(CronkeeperError):
    """A signed task does not verify. It must not be installed or run."""


class SealError(CronkeeperError):
    """A secret does not open: it was altered, belongs to another place, or its key is not held here."""


class WireFormatError(CronkeeperError):
    """Bytes from a store or a socket are not what their format version promises."""


class ConfigError(CronkeeperError):
    """The configuration does not add up; the message names every bad key. Exit with status 2."""
