"""The planner over random histories: every plan is cut at a random point, the world goes on, and it plans again.

The checks are the test's own arithmetic; nothing here asks the planner whether the planner was right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.labels import parse_selector
from cronkeeper.domain.placement import Assign, Move, MoveReason, Revoke, WorkerState
from cronkeeper_manager.planner import decide, plan
from cronkeeper_manager.world import PlanTask, PlanWorker, World

_SELECTORS = [None, None, parse_selector("disk=ssd"), parse_selector("zone in (x,y)"), parse_selector("!old")]
_HAIR = 1e-5


@dataclass
class Fleet:
    """The real world as far as the planner can change it: what ZooKeeper and the leader's copy would hold."""

    seed: int
    tasks: dict[TaskId, PlanTask] = field(default_factory=dict)
    workers: dict[str, PlanWorker] = field(default_factory=dict)
    assigned: dict[str, set[TaskId]] = field(default_factory=dict)
    owned: dict[str, set[TaskId]] = field(default_factory=dict)
    last: dict[TaskId, str] = field(default_factory=dict)
    requests: dict[TaskId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._next_job = 1
        for _ in range(self.random.randint(1, 6)):
            self.join()
        for _ in range(self.random.randint(0, 30)):
            self.create()

    def world(self) -> World:
        """A frozen copy of it all."""
        return World(
            dict(self.tasks),
            dict(self.workers),
            {w: frozenset(ts) for w, ts in self.assigned.items()},
            {w: frozenset(ts) for w, ts in self.owned.items()},
            dict(self.last),
            dict(self.requests),
        )

    # -- what people and accidents do

    def join(self) -> None:
        labels = {"disk": self.random.choice(["ssd", "hdd"]), "zone": self.random.choice("xyz")}
        if self.random.random() < 0.2:
            labels["old"] = "yes"
        name = f"w{len(self.workers)}"
        self.workers[name] = PlanWorker(name, labels, self.random.choice([5, 20, 100]))

    def create(self) -> None:
        for shard in range(self.random.choice([1, 1, 1, 3])):
            task_id = TaskId(self._next_job, shard)
            load = self.random.choice([0.01, 1, 2, 4])
            self.tasks[task_id] = PlanTask(task_id, 1, load, self.random.choice(_SELECTORS))
        self._next_job += 1

    def disturb(self) -> None:
        name = self.random.choice(sorted(self.workers))
        here = self.workers[name]
        match self.random.randint(0, 10):
            case 0:
                self.join()
            case 1:
                self.create()
            case 2 if self.tasks:
                del self.tasks[self.random.choice(sorted(self.tasks))]
            case 3:
                self.workers[name] = replace(here, state=WorkerState.LOST, settled=False)
            case 4:
                self.workers[name] = replace(here, state=WorkerState.UP, settled=True)
            case 5 if here.state is WorkerState.UP:
                self.workers[name] = replace(here, state=WorkerState.DRAINING)
            case 6 if here.state is WorkerState.UP:
                self.workers[name] = replace(here, state=WorkerState.CORDONED)
            case 7 if here.state is not WorkerState.LOST:
                self.workers[name] = replace(here, settled=not here.settled)
            case 8 if self.tasks:
                self.requests[self.random.choice(sorted(self.tasks))] = name
            case 9 if self.tasks:
                task_id = self.random.choice(sorted(self.tasks))
                self.tasks[task_id] = replace(self.tasks[task_id], selector=self.random.choice(_SELECTORS))
            case 10 if self.random.random() < 0.3:
                self.wipe()
        self.bury()

    def bury(self) -> None:
        """What a lost worker held is cleared away, sooner or later."""
        for name, here in self.workers.items():
            if here.state is WorkerState.LOST and self.random.random() < 0.5:
                self.assigned.pop(name, None)
                self.owned.pop(name, None)

    def wipe(self) -> None:
        """ZooKeeper loses everything. The workers know what they own, but nobody can see it."""
        self.assigned.clear()
        self.owned.clear()

    # -- what the leader and the workers do

    def apply(self, moves: list[Move]) -> None:
        """Carry moves out, checking each against the world as it is; now and then the leader dies half-way."""
        for move in moves:
            self.check(move)
            self.last[move.task] = move.worker if isinstance(move, Assign) else ""
            if self.random.random() < 0.03:
                return
            if isinstance(move, Assign):
                self.assigned.setdefault(move.worker, set()).add(move.task)
            else:
                self.assigned[move.worker].discard(move.task)

    def check(self, move: Move) -> None:
        alive = {w for w, here in self.workers.items() if here.state is not WorkerState.LOST}
        if isinstance(move, Revoke):
            assert move.task in self.assigned[move.worker], f"{move}: it is not given to that worker"
            return
        task, target = self.tasks[move.task], self.workers[move.worker]
        assert move.worker in alive, f"{move}: the worker is lost"
        others = alive - {move.worker}
        assert not any(move.task in self.owned.get(w, ()) for w in others), f"{move}: somebody else owns it"
        assert not any(move.task in self.assigned.get(w, ()) for w in alive), f"{move}: it is given to somebody"
        if target.settled and task.selector is not None:
            assert task.selector.matches(target.labels or {}), f"{move}: the selector does not match"
        if move.reason is not MoveReason.RESTORE:
            assert target.state is WorkerState.UP and target.settled, f"{move}: the worker takes nothing new"
            carried = sum(self.tasks[t].load for t in self.assigned.get(move.worker, ()) if t in self.tasks)
            assert carried + task.load <= target.capacity + _HAIR, f"{move}: over the worker's capacity"

    def answer(self, *, share: float) -> None:
        """Each worker that is there takes up what it was given and lets go of the rest: a random part of it."""
        for name, here in self.workers.items():
            if here.state is WorkerState.LOST or not here.settled:
                continue
            given, owned = self.assigned.get(name, set()), self.owned.setdefault(name, set())
            for task_id in sorted(given ^ owned):
                if self.random.random() <= share:
                    (owned.discard if task_id in owned else owned.add)(task_id)

    def live_for(self, turns: int) -> None:
        for _ in range(turns):
            moves = plan(self.world())
            self.apply(moves[: self.random.randint(0, len(moves))])
            self.answer(share=0.5)
            for _ in range(self.random.choice([0, 1, 1, 2])):
                self.disturb()

    def settle(self) -> None:
        """No more accidents: within a bounded number of turns nothing is left to do."""
        self.requests.clear()
        for name, here in self.workers.items():
            if here.state is not WorkerState.LOST:
                self.workers[name] = replace(here, settled=True)
        for _ in range(200):
            self.answer(share=1.0)
            moves = plan(self.world())
            if not moves:
                return
            self.apply(moves)
        raise AssertionError(f"it does not come to rest: {plan(self.world())[:5]}")

    def homes(self) -> dict[TaskId, str]:
        """Who has what, of those that are alive."""
        found: dict[TaskId, str] = {}
        for name, tasks in self.assigned.items():
            if self.workers[name].state is WorkerState.LOST:
                continue
            for task_id in tasks:
                assert task_id not in found, f"{task_id} has two workers"
                found[task_id] = name
        return found

    def could_take(self, task: PlanTask) -> list[str]:
        """Workers that may take the task and have room for it."""
        found = []
        for name, here in self.workers.items():
            if not here.takes_new or (task.selector is not None and not task.selector.matches(here.labels or {})):
                continue
            carried = sum(self.tasks[t].load for t in self.assigned.get(name, ()))
            if carried + task.load <= here.capacity - _HAIR:
                found.append(name)
        return found


@pytest.mark.parametrize("seed", range(320))
def test_every_prefix_of_every_plan_is_safe_and_it_comes_to_rest(seed: int) -> None:
    fleet = Fleet(seed)
    fleet.live_for(18)
    fleet.settle()

    homes = fleet.homes()
    decision = decide(fleet.world())
    assert decision.moves == []
    assert set(decision.unplaced) == set(fleet.tasks) - set(homes)
    for task_id in decision.unplaced:
        assert fleet.could_take(fleet.tasks[task_id]) == [], f"{task_id} has no worker but could have"
    for task_id, name in homes.items():
        task, here = fleet.tasks[task_id], fleet.workers[name]
        assert task.selector is None or task.selector.matches(here.labels or {})
        if here.state is WorkerState.DRAINING:
            assert fleet.could_take(task) == [], f"{task_id} stays on a draining worker for nothing"
            assert task_id in decision.staying


@pytest.mark.parametrize("seed", range(0, 320, 4))
def test_in_a_fleet_at_rest_a_death_moves_the_dead_workers_tasks_only(seed: int) -> None:
    fleet = Fleet(seed)
    fleet.live_for(10)
    fleet.settle()
    before = fleet.homes()
    waiting = set(fleet.tasks) - set(before)
    victim = fleet.random.choice(sorted(fleet.workers))
    fleet.workers[victim] = replace(fleet.workers[victim], state=WorkerState.LOST, settled=False)
    fleet.settle()

    after = fleet.homes()
    for task_id, name in before.items():
        if name != victim:
            assert after[task_id] == name
    assert not waiting & set(after), "room did not grow by a death"


@pytest.mark.parametrize("seed", range(1, 320, 4))
def test_in_a_fleet_at_rest_a_newcomer_gets_only_what_has_no_good_home(seed: int) -> None:
    fleet = Fleet(seed)
    fleet.live_for(10)
    fleet.settle()
    before, rest = fleet.homes(), decide(fleet.world())
    fleet.join()
    newcomer = f"w{len(fleet.workers) - 1}"
    fleet.settle()

    for task_id, name in fleet.homes().items():
        if name == newcomer:
            assert task_id in rest.unplaced or task_id in rest.staying
        else:
            assert before.get(task_id, name) == name


@pytest.mark.parametrize("seed", range(2, 320, 4))
def test_a_wiped_zookeeper_moves_nothing(seed: int) -> None:
    fleet = Fleet(seed)
    fleet.live_for(10)
    fleet.settle()
    before = fleet.homes()
    fleet.wipe()
    for name, here in fleet.workers.items():
        fleet.workers[name] = replace(here, settled=False)
    # The new leader writes what it remembers before anybody has come back, in as many goes as it takes.
    for _ in range(20):
        moves = plan(fleet.world())
        fleet.apply(moves[: fleet.random.randint(1, len(moves))] if moves else [])

    assert fleet.homes() == before
    fleet.settle()
    assert fleet.homes() == before
