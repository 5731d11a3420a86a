"""What the use cases take: who asks, what for, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.scope import EVERYWHERE, Scope
from cronkeeper.errors import FieldError
from cronkeeper.ports import Role
from cronkeeper.wire.trail import Actor


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the token's id and name, what it may do, and in which namespaces."""

    id: str
    name: str
    role: Role
    scope: Scope = EVERYWHERE
    #: From where, as far as it is known, and by which request: for the trail.
    source: str = ""
    request_id: str = ""

    @property
    def actor(self) -> Actor:
        """Who did it, as the trail says it."""
        return Actor(self.id, self.name, self.role.value, self.source, self.request_id)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came with a job."""

    filename: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """A job as its user asks for it. `faults` is what was found wrong while reading it: such a draft is never saved,
    but its other fields are still checked, so that the user hears everything at once."""

    spec: JobSpec
    upload: Upload | None = None
    faults: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What an administrator allows."""

    #: Accounts that a job may name in `run_as`. `root` is not one of them: it takes an admin's token.
    run_as_allowed: tuple[str, ...] = ("nobody",)
    max_artifact_bytes: int = 8 * 1024 * 1024
