"""What a plan depends on, as values."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.labels import Selector
from cronkeeper.domain.placement import WorkerState


@dataclass(frozen=True, slots=True)
class PlanTask:
    """A task that shall have a worker."""

    id: TaskId
    generation: int
    #: Expected fires a minute: `load.expected_load`.
    load: float
    #: None allows every worker. Tasks of equal selectors should share one object: it is matched once for all of them.
    selector: Selector | None = None
    #: Its row cannot be read by this version: it stays where it is, and goes nowhere new.
    held: bool = False
    #: The one worker that it is for, if it is a node's own: it goes nowhere else, and lacks nothing while that is away.
    only: str | None = None
    #: Short names of the keys that open its secrets. Like selectors, equal ones should be one object.
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlanWorker:
    """A worker as the planner sees it. One that is neither up nor lost keeps what it has."""

    id: str
    #: None while nobody knows them: it has not come back yet and left no trace of what it was.
    labels: Mapping[str, str] | None
    capacity: int
    state: WorkerState = WorkerState.UP
    #: False while nobody can tell whether it is alive: no session, yet not lost either.
    settled: bool = True
    #: Its clock is too wrong to be given anything new.
    skewed: bool = False
    #: Short names of the keys of secrets that it holds; None while nobody knows: then it does not speak against it.
    keys: frozenset[str] | None = None
    #: MySQL, which answers, has never heard of it: one of its two witnesses is missing.
    unheard: bool = False

    @property
    def takes_new(self) -> bool:
        """Whether it may be given a task that it did not have."""
        return self.state is WorkerState.UP and self.settled and not self.skewed and not self.unheard


@dataclass(frozen=True, slots=True)
class World:
    """Everything a plan depends on. `workers` must name everybody who occurs in `assigned` or `owned`."""

    tasks: Mapping[TaskId, PlanTask]
    workers: Mapping[str, PlanWorker]
    #: Who is given what, and who has said yes to what, as ZooKeeper has it.
    assigned: Mapping[str, Set[TaskId]] = field(default_factory=dict)
    owned: Mapping[str, Set[TaskId]] = field(default_factory=dict)
    #: The leader's own copy: the worker a task was last given to; empty once it was revoked.
    last: Mapping[TaskId, str] = field(default_factory=dict)
    #: What admins asked for: this task to this worker.
    requests: Mapping[TaskId, str] = field(default_factory=dict)
