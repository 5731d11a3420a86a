"""What the worker shall change, from what it is given and what it has.

PURE. Absence is believed only where somebody vouches for it: a task that is not assigned any more is dropped (the
leader has said that the tree is complete), but a task whose body cannot be read is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment


@dataclass(frozen=True, slots=True)
class Have:
    """What is installed of a task."""

    generation: int
    fence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """New tasks to take over, known ones to update, and those to let go."""

    take: tuple[TaskId, ...]
    update: tuple[TaskId, ...]
    drop: tuple[TaskId, ...]


def changes(
    assigned: Mapping[TaskId, Assignment], offered: Mapping[TaskId, int], have: Mapping[TaskId, Have]
) -> Changes:
    """Return the changes that bring `have` to what is assigned.

    `offered` holds the generation of each task body that was read and verified. An older generation than the installed
    one is never taken: bodies may be replayed, edits may not.
    """
    take, update = [], []
    for task, assignment in sorted(assigned.items()):
        known = have.get(task)
        generation = offered.get(task)
        if generation is None:
            continue
        if known is None:
            take.append(task)
        elif generation > known.generation or (generation == known.generation and assignment.epoch > known.fence):
            update.append(task)
    return Changes(tuple(take), tuple(update), tuple(sorted(task for task in have if task not in assigned)))
