"""What the worker shall change, from what it is given and what it has.

PURE. Absence is believed only where somebody vouches for it: a task that is not assigned any more is dropped (the
leader has said that the tree is complete), but a task whose body cannot be read is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment


class Have(Protocol):
    """What is looked at of an installed task."""

    @property
    def generation(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def key(self) -> str:
        """The key that has signed it."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a task's body is that was read and verified."""

    generation: int
    key: str = ""


@lru_cache(maxsize=4096)
def offer_of(generation: int, key: str) -> Offer:
    """Return one and the same value for what is equal: there are as many as tasks, and few that differ."""
    return Offer(generation, key)


@dataclass(frozen=True, slots=True)
class Changes:
    """New tasks to take over, known ones to update, and those to let go."""

    take: tuple[TaskId, ...]
    update: tuple[TaskId, ...]
    drop: tuple[TaskId, ...]


class Overtaken(NamedTuple):
    """Why a task is not taken: a newer generation of it has run, here or elsewhere."""

    generation: int
    newest: int

    def __str__(self) -> str:
        return f"generation {self.generation}, and generation {self.newest} has run already"


def overtaken(generations: Mapping[TaskId, int], ran: Mapping[TaskId, int]) -> dict[TaskId, Overtaken]:
    """Return those of the tasks that are of an older generation than the newest that is known to have run."""
    newest = {task: ran.get(task, 0) for task in generations}
    return {task: Overtaken(number, newest[task]) for task, number in generations.items() if number < newest[task]}


def changes(
    assigned: Mapping[TaskId, Assignment], offered: Mapping[TaskId, Offer], have: Mapping[TaskId, Have]
) -> Changes:
    """Return the changes that bring `have` to what is assigned.

    `offered` holds each task body that was read and verified. An older generation than the installed one is never
    taken: bodies may be replayed, edits may not. The same one is taken again if another key has signed it: the key of
    the installed one may not be believed for long any more.
    """
    take, update = [], []
    for task, assignment in assigned.items():
        known = have.get(task)
        offer = offered.get(task)
        if offer is None:
            continue
        if known is None:
            take.append(task)
        elif offer.generation == known.generation:
            anew = assignment.epoch > known.fence or offer.key != known.key
            update += [task] if anew else []
        elif offer.generation > known.generation:
            update.append(task)
    return Changes(
        tuple(sorted(take)), tuple(sorted(update)), tuple(sorted(task for task in have if task not in assigned))
    )
