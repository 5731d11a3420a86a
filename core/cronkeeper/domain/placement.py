"""Who has what: workers, assignments and moves, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cronkeeper.domain.ids import TaskId

# What workers and leaders must agree on, so that nothing is given on while its last owner may still begin it.

#: How often a worker renews its lease row.
LEASE_EVERY_S = 2.0
#: A worker starts nothing this long after its last sign of life that a store has acknowledged (counted from the sending
#: on, by the boot-time clock): first it asks for the claim again.
START_WITHIN_S = 4.0


class WorkerState(StrEnum):
    UP = "up"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"


class MoveReason(StrEnum):
    """Why a task moves. A closed list: shown by dry runs, stored with the assignment, used as a metric label."""

    NEW = "new"
    WORKER_LOST = "worker_lost"
    DRAIN = "drain"
    REASSIGN = "reassign"
    SELECTOR = "selector"
    REBALANCE = "rebalance"
    REMOVED = "removed"
    RESTORE = "restore"
    HANDOVER = "handover"
    #: It cannot open the job's secrets. Of a `Revoke` only: no assignment bears it, so older workers never read it.
    SECRETS = "secrets"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself in its ephemeral znode. `started_ms` is epoch milliseconds, UTC."""

    id: str
    host: str
    labels: Mapping[str, str] = field(default_factory=dict)
    #: How much expected load (see the planner) it takes, in fires a minute.
    capacity: int = 10_000
    version: str = ""
    #: Random for each start of the daemon: tells its own stale znode and lease from a namesake's.
    epoch: str = ""
    pid: int = 0
    started_ms: int = 0
    #: It was told to stop, and stays until its tasks are with others and its runs have ended.
    leaving: bool = False
    #: Short names of the keys of jobs' secrets that it holds; None when it does not say (it is of an older version).
    secrets_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the manager and admins want of a worker, and what it last told of itself. Outlives the worker's session."""

    id: str
    cordoned: bool = False
    draining: bool = False
    last: WorkerInfo | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The leader's word that a task belongs to a worker. `epoch` only grows: it is the fencing number of its runs."""

    task: TaskId
    worker: str
    generation: int
    epoch: int
    reason: MoveReason
    assigned_ms: int
    #: Fires after this instant may not have been decided by the owner before; a hint for when MySQL cannot be asked.
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ownership:
    """The worker's yes to an assignment: the generation it has installed, and the epoch of the daemon that says so."""

    task: TaskId
    worker: str
    generation: int
    worker_epoch: str


@dataclass(frozen=True, slots=True)
class Assign:
    task: TaskId
    worker: str
    reason: MoveReason


@dataclass(frozen=True, slots=True)
class Revoke:
    task: TaskId
    worker: str
    reason: MoveReason


Move = Assign | Revoke


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease row in MySQL: the second witness of its life. Ages are measured by the database's own clock."""

    worker: str
    incarnation: str
    age_ms: int
    lost: bool
    clock_offset_ms: int
    info: WorkerInfo | None = None
