"""From a whole world to the moves that put it right. PURE; docs/decisions/0008-planner.md says why it is as it is.

What holds after every prefix of every plan, whatever happens between two plans
- A task is given to a worker only while no other living worker is given it or owns it: it changes hands by `Revoke` now
  and by `Assign` once its release has been observed. What a lost worker owned no longer counts.
- A worker is given nothing that its labels, its capacity or its state forbid, save what it had before (`restore`).
- A healthy assignment stays where it is: a death moves the dead worker's tasks only, and a newcomer gets only what is
  new or orphaned. Making things look even is `rebalance`: separate, bounded, asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.labels import Selector
from cronkeeper.domain.placement import Assign, Move, MoveReason, Revoke, WorkerState
from cronkeeper_manager.world import PlanTask, PlanWorker, World

#: Sums of loads are floats: a hair's breadth over the capacity is not over it.
HAIR = 1e-6
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in this order (any prefix is safe), and what cannot be done, for people."""

    moves: list[Move]
    #: Tasks for which there is no worker.
    unplaced: dict[TaskId, str]
    #: Tasks that are assigned as soon as their last owner has let go of them.
    releasing: dict[TaskId, str]
    #: Tasks of draining workers that fit nowhere else.
    staying: dict[TaskId, str]


def plan(world: World) -> list[Move]:
    """Return the moves to make now, revocations first, in a stable order. Empty when all is as it should be."""
    return decide(world).moves


def unplaced(world: World) -> dict[TaskId, str]:
    """Say for each task that has no worker, and gets none now, why that is so."""
    decision = decide(world)
    return decision.unplaced | decision.releasing


def decide(world: World) -> Decision:
    """Return the whole decision in one go."""
    return Planning(world).decide()


def settle_requests(world: World) -> tuple[set[TaskId], dict[TaskId, str]]:
    """Return the move requests that are fulfilled, and those that are impossible with the reason; the rest may wait."""
    planning = Planning(world)
    fulfilled: set[TaskId] = set()
    impossible: dict[TaskId, str] = {}
    for task_id, target in sorted(world.requests.items()):
        if planning.homes.get(task_id) == target:
            fulfilled.add(task_id)
        elif fault := planning.fault(task_id, target):
            impossible[task_id] = fault
    return fulfilled, impossible


def why_not(world: World, task: TaskId, worker: str) -> str:
    """Say why this worker cannot be given this task now, or return an empty text when it can."""
    return Planning(world).fault(task, worker)


def loads(world: World) -> dict[str, float]:
    """Return each worker's expected load in fires a minute: what it is given and what it still owns."""
    return {slot.worker.id: slot.load for slot in Planning(world).slots.values()}


class Slot:
    """A worker while planning: what it carries, the room reserved for tasks on their way included."""

    __slots__ = ("capacity", "hash", "load", "share", "worker")

    def __init__(self, worker: PlanWorker, load: float) -> None:
        self.worker = worker
        self.capacity = max(worker.capacity, HAIR)
        self.hash = _hash(worker.id)
        self.load = 0.0
        #: How full it is: 1 is full.
        self.share = 0.0
        self.take(load)

    def take(self, load: float) -> None:
        self.load += load
        self.share = self.load / self.capacity

    def has_room(self, load: float) -> bool:
        return self.load + load <= self.capacity + HAIR


class Planning:
    """One plan in the making: indexes of the world, and the room that is left."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lost = {w.id for w in world.workers.values() if w.state is WorkerState.LOST}
        #: Task -> the living worker it is given to; doubles are revoked.
        self.homes: dict[TaskId, str] = {}
        #: Task -> a living worker that still owns it, though it may be given to another or to nobody.
        self.owners: dict[TaskId, str] = {}
        self._contested: set[TaskId] = set()
        self._doubles: list[tuple[TaskId, str]] = []
        self._bereaved: set[TaskId] = set()
        self._index()
        self.slots = {w.id: Slot(w, self._carried(w.id)) for w in world.workers.values() if w.id not in self.lost}
        self._fitting: dict[tuple[int, frozenset[str]], list[Slot]] = {}
        self._matching: dict[tuple[int, str], bool] = {}
        self._moves: list[Revoke] = []
        self._assigns: list[Assign] = []
        self._unplaced: dict[TaskId, str] = {}
        self._releasing: dict[TaskId, str] = {}
        self._staying: dict[TaskId, str] = {}

    def _index(self) -> None:
        # Sets and dicts are copied whole, not item by item: that keeps their hashes, and makes 100,000 tasks cheap.
        everybodys: set[TaskId] = set()
        given: set[TaskId] = set()
        for worker in sorted(self.world.owned):
            if worker not in self.lost:
                tasks = self.world.owned[worker]
                self._contested.update(everybodys & tasks)
                everybodys |= tasks
                self.owners.update(dict.fromkeys(tasks, worker))
        for worker in sorted(self.world.assigned):
            tasks = self.world.assigned[worker]
            if worker in self.lost:
                self._bereaved.update(tasks)
                continue
            twice = given & tasks
            before = {task_id: self.homes[task_id] for task_id in twice}
            self.homes.update(dict.fromkeys(tasks, worker))
            given |= tasks
            for task_id, first in before.items():
                # Of two that are given the same task, the one that does not own it must let go.
                keeps = worker if self.owners.get(task_id) == worker else first
                self.homes[task_id] = keeps
                self._doubles.append((task_id, first if keeps == worker else worker))

    def _carried(self, worker: str) -> float:
        tasks = self.world.tasks
        held = self.world.assigned.get(worker, frozenset()) | self.world.owned.get(worker, frozenset())
        return sum(task.load for task in map(tasks.get, held) if task is not None)

    # -- the decision, in the order of what must not be spoilt by what

    def decide(self) -> Decision:
        releasing, orphans = self._homeless()
        self._revoke_plainly()
        orphans = self._restore(orphans)
        # Tasks that are being released were promised a place when they were revoked: nobody else may take it now.
        self._reserve(releasing)
        self._place(orphans)
        self._grant_requests()
        self._drain()
        self._moves.sort(key=lambda move: (move.task, move.worker))
        return Decision([*self._moves, *self._assigns], self._unplaced, self._releasing, self._staying)

    def _homeless(self) -> tuple[list[PlanTask], list[PlanTask]]:
        """Return the tasks that nobody is given: those that somebody still owns, and those that nobody owns."""
        tasks = self.world.tasks
        homeless = [tasks[task_id] for task_id in set(tasks).difference(self.homes)]
        homeless.sort(key=lambda task: (-task.load, task.id))
        releasing = [task for task in homeless if task.id in self.owners]
        return releasing, [task for task in homeless if task.id not in self.owners]

    def _revoke_plainly(self) -> None:
        """Revoke what must go whether or not it fits elsewhere: doubles, removed tasks, selectors that do not match."""
        self._moves += [Revoke(task_id, worker, MoveReason.HANDOVER) for task_id, worker in self._doubles]
        for task_id in set(self.homes).difference(self.world.tasks):
            self._moves.append(Revoke(task_id, self.homes[task_id], MoveReason.REMOVED))
        for task in self.world.tasks.values():
            if task.only is not None and self.homes.get(task.id, task.only) != task.only:
                self._moves.append(Revoke(task.id, self.homes[task.id], MoveReason.HANDOVER))
                continue
            if task.selector is None and not task.keys:
                continue
            slot = self.slots.get(self.homes.get(task.id, ""))
            # Somebody who is away may come back with other labels: wait until it has said which.
            if slot is None or not slot.worker.settled:
                continue
            if task.selector is not None and not self.matches(task.selector, slot.worker):
                self._moves.append(Revoke(task.id, slot.worker.id, MoveReason.SELECTOR))
            elif task.only is None and not _opens(task, slot.worker):
                self._moves.append(Revoke(task.id, slot.worker.id, MoveReason.SECRETS))

    def _restore(self, orphans: list[PlanTask]) -> list[PlanTask]:
        """Give back what ZooKeeper has forgotten to those who had it; return the others.

        Neither capacity nor a cordon stands against it: the worker had the task before and is running it still.
        """
        rest = []
        for task in orphans:
            slot = self.slots.get(self.world.last.get(task.id, ""))
            if slot is None or not self._may_restore(task, slot):
                rest.append(task)
                continue
            slot.take(task.load)
            self._assigns.append(Assign(task.id, slot.worker.id, MoveReason.RESTORE))
        return rest

    def _may_restore(self, task: PlanTask, slot: Slot) -> bool:
        if task.only not in (None, slot.worker.id):
            return False
        wished = self._requested(task)
        if wished is not None and wished is not slot:
            return False
        return self.fits(task, slot.worker)

    def _reserve(self, releasing: list[PlanTask]) -> None:
        for task in releasing:
            owner = self.owners[task.id]
            if self.world.last.get(task.id, owner) == owner and owner in self.slots and task.id not in self._contested:
                # Its assignment is gone but was never revoked: nothing has to be waited for.
                self._assigns.append(Assign(task.id, owner, MoveReason.RESTORE))
                continue
            self._releasing[task.id] = f"waiting until {owner} has let go of it"
            slot = self._requested(task) or self._choose(task)
            if slot is not None:
                slot.take(task.load)

    def _place(self, orphans: list[PlanTask]) -> None:
        for task in orphans:
            wished = None if task.held else self._requested(task)
            slot = None if task.held else wished or self._choose(task)
            if slot is None:
                if task.only is None:
                    self._unplaced[task.id] = self._why_nowhere(task)
                continue
            slot.take(task.load)
            reason = MoveReason.REASSIGN if wished else self._reason(task.id)
            self._assigns.append(Assign(task.id, slot.worker.id, reason))

    def _reason(self, task_id: TaskId) -> MoveReason:
        last = self.world.last.get(task_id)
        if task_id in self._bereaved or last in self.lost:
            return MoveReason.WORKER_LOST
        return MoveReason.NEW if last is None else MoveReason.HANDOVER

    def _grant_requests(self) -> None:
        leaving = {move.task for move in self._moves}
        for task_id, target in sorted(self.world.requests.items()):
            home = self.homes.get(task_id)
            if home is None or home == target or task_id in leaving or self.fault(task_id, target):
                continue
            if self.owners.get(task_id, home) != home or not self.slots[target].worker.takes_new:
                continue
            self.slots[target].take(self.world.tasks[task_id].load)
            self._moves.append(Revoke(task_id, home, MoveReason.REASSIGN))

    def _drain(self) -> None:
        leaving = {move.task for move in self._moves}
        for worker in sorted(w.id for w in self.world.workers.values() if w.state is WorkerState.DRAINING):
            leaving_here = [
                self.world.tasks[task_id]
                for task_id in self.world.assigned.get(worker, ())
                if task_id not in leaving and self.homes.get(task_id) == worker
            ]
            for task in sorted(leaving_here, key=lambda task: (-task.load, task.id)):
                if task.only is not None:
                    self._moves.append(Revoke(task.id, worker, MoveReason.DRAIN))
                    continue
                slot = None if task.held else self._choose(task)
                if slot is None:
                    self._staying[task.id] = self._why_nowhere(task)
                    continue
                slot.take(task.load)
                self._moves.append(Revoke(task.id, worker, MoveReason.DRAIN))

    def elsewhere(self, task_id: TaskId, tried: Set[str]) -> str | None:
        """Return a worker other than those that have tried (or at least than the present one), and reserve its room."""
        task, home = self.world.tasks.get(task_id), self.homes.get(task_id)
        if task is None or task.held or task.only or home is None:
            return None
        slot = self._choose(task, tried | {home}) or self._choose(task, {home})
        if slot is None:
            return None
        slot.take(task.load)
        return slot.worker.id

    # -- who can take what

    def fault(self, task_id: TaskId, target: str) -> str:
        """Say why a request cannot be fulfilled; an empty text when it can, now or soon."""
        task, slot = self.world.tasks.get(task_id), self.slots.get(target)
        if task is None:
            return "there is no such task any more"
        if task.held:
            return "its job cannot be read by this version of the manager"
        if slot is None:
            return f"worker {target} is {'lost' if target in self.lost else 'not known'}"
        worker = slot.worker
        if task.only not in (None, target):
            return f"it is {task.only}'s own: each node that fits has one"
        if worker.state is not WorkerState.UP:
            return f"worker {target} is {worker.state}"
        if worker.skewed:
            return f"the clock of worker {target} is wrong"
        if task.selector is not None and not self.matches(task.selector, worker):
            return f"the labels of worker {target} do not match {task.selector}"
        if task.only is None and not _opens(task, worker):
            return f"worker {target} does not hold the key of the job's secrets"
        if worker.unheard:
            return f"MySQL has never heard of worker {target}"
        if target not in (self.homes.get(task_id), self.owners.get(task_id)) and not slot.has_room(task.load):
            return f"worker {target} has no room for {task.load:.3g} fires a minute more"
        return ""

    def _requested(self, task: PlanTask) -> Slot | None:
        target = self.world.requests.get(task.id)
        if target is None or self.fault(task.id, target):
            return None
        slot = self.slots[target]
        return slot if slot.worker.takes_new else None

    def _choose(self, task: PlanTask, avoid: Set[str] = frozenset()) -> Slot | None:
        """Return the least loaded worker that may take the task and has room, or None.

        Workers that differ by less than the task itself are equals; among them the highest rendezvous hash wins, so
        that the choice does not depend on the order of anything.
        """
        load = task.load
        if task.only is not None:
            own = self.slots.get(task.only)
            return own if own is not None and own.worker.takes_new else None
        slots = [slot for slot in self._candidates(task) if slot.load + load <= slot.capacity + HAIR]
        if avoid:
            slots = [slot for slot in slots if slot.worker.id not in avoid]
        if not slots:
            return None
        least = min([slot.share for slot in slots])
        near = load * 0.999
        equals = [slot for slot in slots if (slot.share - least) * slot.capacity < near]
        if len(equals) == 1:
            return equals[0]
        task_hash = _hash(task.id.znode)
        return max(equals, key=lambda slot: ((task_hash ^ slot.hash) * _GOLDEN & _MASK, slot.hash))

    def _candidates(self, task: PlanTask) -> list[Slot]:
        key = (id(task.selector), task.keys)
        found = self._fitting.get(key)
        if found is None:
            able = (slot for slot in self.slots.values() if slot.worker.takes_new)
            found = self._fitting[key] = [slot for slot in able if self.fits(task, slot.worker)]
        return found

    def fits(self, task: PlanTask, worker: PlanWorker) -> bool:
        """Say whether the worker's labels and keys allow it the task. What nobody knows does not speak against it."""
        return (task.selector is None or self.matches(task.selector, worker)) and _opens(task, worker)

    def matches(self, selector: Selector, worker: PlanWorker) -> bool:
        """Say whether the selector allows the worker; asked once for each pair."""
        key = (id(selector), worker.id)
        found = self._matching.get(key)
        if found is None:
            found = self._matching[key] = worker.labels is None or selector.matches(worker.labels)
        return found

    def _why_nowhere(self, task: PlanTask) -> str:
        if task.held:
            return "its job cannot be read by this version of the manager"
        if self._candidates(task):
            return f"no worker that may take it has room for {task.load:.3g} fires a minute more"
        able = [slot for slot in self.slots.values() if slot.worker.takes_new]
        if not able:
            return "there is no worker that takes new tasks"
        matching = [s for s in able if task.selector is None or self.matches(task.selector, s.worker)]
        if matching:
            return "no worker that may take it holds the key of its secrets; see secrets_key_files"
        return f"no worker that takes new tasks matches {task.selector}"


def _opens(task: PlanTask, worker: PlanWorker) -> bool:
    return not task.keys or worker.keys is None or task.keys <= worker.keys


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
