"""What would be: the end of all plans, and the moves that would make the fleet even. PURE, like the planner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assign, Move, MoveReason, WorkerState
from cronkeeper_manager.planner import HAIR, Planning, Slot, plan
from cronkeeper_manager.world import PlanTask, World

# ------------------------------------------------------------------------------------------------------ rebalancing


def rebalance(world: World, *, max_moves: int) -> list[Assign]:
    """Return at most `max_moves` moves from the fullest to the emptiest workers, best first.

    Only tasks at rest move: given to and owned by one worker that is up, and asked for by nobody. Each is to be carried
    out as a move request, so that it changes hands like any other.
    """
    planning = Planning(world)
    slots = [s for s in planning.slots.values() if s.worker.takes_new]
    at_rest = {s.worker.id: _at_rest(planning, s.worker.id) for s in slots}
    moves: list[Assign] = []
    while len(moves) < max_moves:
        found = _best_step(planning, slots, at_rest)
        if found is None:
            break
        task, donor, receiver = found
        donor.take(-task.load)
        receiver.take(task.load)
        at_rest[donor.worker.id].remove(task)
        moves.append(Assign(task.id, receiver.worker.id, MoveReason.REBALANCE))
    return moves


def _at_rest(planning: Planning, worker: str) -> list[PlanTask]:
    """Return the tasks that may be moved away from a worker, heaviest first."""
    world = planning.world
    both = world.assigned.get(worker, frozenset()) & world.owned.get(worker, frozenset())
    tasks = [world.tasks[t] for t in both if t in world.tasks and planning.homes.get(t) == worker]
    free = [task for task in tasks if not task.held and task.only is None and task.id not in world.requests]
    return sorted(free, key=lambda task: (-task.load, task.id))


def _best_step(
    planning: Planning, slots: Iterable[Slot], at_rest: Mapping[str, list[PlanTask]]
) -> tuple[PlanTask, Slot, Slot] | None:
    ranked = sorted(slots, key=lambda s: (s.share, s.worker.id))
    for donor in reversed(ranked):
        for receiver in ranked:
            for task in at_rest[donor.worker.id]:
                if not _helps(task.load, donor, receiver):
                    continue
                if planning.fits(task, receiver.worker):
                    return task, donor, receiver
    return None


def _helps(load: float, donor: Slot, receiver: Slot) -> bool:
    """Say whether the move leaves the receiver within its capacity and no fuller than the donor."""
    if donor is receiver or not receiver.has_room(load):
        return False
    return (receiver.load + load) / receiver.capacity <= (donor.load - load + HAIR) / donor.capacity


# ----------------------------------------------------------------------------------------------------- what would be


@dataclass(frozen=True, slots=True)
class Journey:
    """Where a task would end up."""

    task: TaskId
    origin: str | None
    target: str | None
    reason: MoveReason


def foresee(world: World) -> tuple[list[Journey], World]:
    """Play plans until nothing moves any more, releases being immediate; return every task's journey and the end."""
    start = {task_id: worker for worker, tasks in sorted(world.assigned.items()) for task_id in sorted(tasks)}
    reasons: dict[TaskId, MoveReason] = {}
    for _ in range(2 * len(world.tasks) + 2):
        moves = plan(world)
        if not moves:
            break
        for move in moves:
            # The first reason is the cause: that a revoked task is then handed over is a matter of course.
            reasons.setdefault(move.task, move.reason)
        world = _played(world, moves)
    end = {task_id: worker for worker, tasks in world.assigned.items() for task_id in tasks}
    journeys = [
        Journey(task_id, start.get(task_id), end.get(task_id), reason)
        for task_id, reason in sorted(reasons.items())
        if start.get(task_id) != end.get(task_id)
    ]
    return journeys, world


def _played(world: World, moves: Iterable[Move]) -> World:
    """Return the world after the moves, with every release and every yes observed at once."""
    lost = {w.id for w in world.workers.values() if w.state is WorkerState.LOST}
    given = {worker: set(tasks) for worker, tasks in world.assigned.items() if worker not in lost}
    last = dict(world.last)
    for move in moves:
        if isinstance(move, Assign):
            given.setdefault(move.worker, set()).add(move.task)
            last[move.task] = move.worker
        else:
            given[move.worker].discard(move.task)
            last[move.task] = ""
    return World(world.tasks, world.workers, given, given, last, world.requests)
