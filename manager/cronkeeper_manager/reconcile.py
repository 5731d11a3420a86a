"""One turn of a leader: look at everything, decide with pure functions, apply step by step, forget, look again."""

from __future__ import annotations

import logging

from cronkeeper.domain.placement import NodeInfo, WorkerState
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.memory import give_back
from cronkeeper_manager.audit import Auditor
from cronkeeper_manager.burial import Burial
from cronkeeper_manager.chores import Chores
from cronkeeper_manager.healing import Healer, missing_tasks
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.liveness import Judgement, Memory, begin, hold_off, judge, next_look_s
from cronkeeper_manager.moves import Mover
from cronkeeper_manager.observe import Observer, Snapshot, build_world
from cronkeeper_manager.planner import Decision, decide
from cronkeeper_manager.world import World

log = logging.getLogger(__name__)

TURN_S = 1.0
#: For so long a turn goes on applying moves; then it looks again, as somebody may have died meanwhile.
BUDGET_S = 2.0
REBUILD_BUDGET_S = 10.0


class Reconciler:
    """Everything that one leader does in its term. `turn` is called about once a second, and when something changed."""

    def __init__(self, leading: Leading, observer: Observer) -> None:
        self._leading = leading
        self._observer = observer
        self._memory: Memory = begin(leading.clock.boot_s(), leading.liveness)
        self._burial = Burial(leading, observer)
        self._mover = Mover(leading, observer)
        self._healer = Healer(leading, observer)
        self._chores = Chores(leading, observer)
        self._auditor = Auditor(leading)
        self._looked_s = leading.clock.boot_s()
        self._nodes: dict[str, NodeInfo] = {}
        #: The last world for which nothing was to be done.
        self._at_rest: World | None = None
        self._decision = Decision([], {}, {}, {})
        self._healed_copies = False
        self._rebuilding = False

    @property
    def decision(self) -> Decision:
        """What the last turn decided."""
        return self._decision

    def turn(self) -> float:
        """Do one turn and return the seconds until the next.

        Raises UnavailableError (the loop tries again) or FencedError (somebody else leads: stop).
        """
        with self._leading.metrics.step_seconds.time():
            self._leading.check()
            self._leading.hold_term()
            snapshot = self._look()
            judgement = self._judge(snapshot)
            if self._burial.bury(judgement, snapshot):
                # Their tasks are planned for at once, with their znodes gone.
                snapshot = self._look()
            world = build_world(snapshot, judgement.verdicts)
            left = self._place(snapshot, world, judgement)
            if not snapshot.ready:
                self._complete(snapshot)
            self._tidy(snapshot, world)
            self._leading.notes.flush(self._leading.mysql)
            self._measure(snapshot, world)
            if snapshot.full:
                give_back()
        if left or (not snapshot.ready and snapshot.leases is not None):
            return 0.0
        soon_s = next_look_s(judgement, self._leading.clock.boot_s(), self._leading.liveness)
        return TURN_S if soon_s is None else min(TURN_S, max(soon_s, 0.05))

    # -- looking

    def _look(self) -> Snapshot:
        leading = self._leading
        try:
            snapshot = self._observer.observe()
            if not snapshot.ready:
                snapshot = self._begin_rebuild(snapshot)
        except UnavailableError:
            # What we do not see now may have come and gone when we see it again.
            self._memory = hold_off(self._memory, leading.clock.boot_s(), leading.liveness)
            raise
        if snapshot.now_s - self._looked_s > leading.liveness.session_s:
            # We were paused or slow: everybody gets the time to be seen again.
            self._memory = hold_off(self._memory, snapshot.now_s, leading.liveness)
        self._looked_s = snapshot.now_s
        return snapshot

    def _begin_rebuild(self, snapshot: Snapshot) -> Snapshot:
        """Make the layout again, and what we remember of the nodes; trust nothing that was kept of the tree."""
        if self._rebuilding:
            return snapshot
        leading = self._leading
        leading.check()
        leading.coordinator.ensure_layout()
        self._memory = hold_off(self._memory, leading.clock.boot_s(), leading.liveness)
        for name, node in sorted(self._nodes.items()):
            # Cordons and drains are kept nowhere else.
            if name not in snapshot.nodes:
                leading.coordinator.save_node(node)
        self._observer.forget_tree()
        self._rebuilding = True
        log.info("the tree is being completed", extra={"event": "tree.rebuilding"})
        return self._observer.observe()

    def _judge(self, snapshot: Snapshot) -> Judgement:
        self._nodes = dict(snapshot.nodes)
        before = self._memory.lost
        judgement = judge(self._memory, snapshot.sighting(), self._leading.liveness)
        if judgement.braked:
            gone = sorted(judgement.memory.absent.keys() - judgement.memory.lost)
            log.error(
                "many workers vanished at once, failover pauses", extra={"event": "failover.paused", "gone": gone}
            )
            self._leading.notes.add("failover.paused", "fleet", f"{len(gone)} workers are gone: {', '.join(gone[:20])}")
        judgement = self._burial.confirm(judgement, before, snapshot)
        self._memory = judgement.memory
        return judgement

    # -- deciding and applying

    def _place(self, snapshot: Snapshot, world: World, judgement: Judgement) -> bool:
        """Plan and apply; say whether moves are left for the next turn."""
        leading = self._leading
        self._mover.save_unsaved()
        if leading.mysql.available and (snapshot.full or not self._healed_copies) and snapshot.ready:
            self._mover.heal_copies(snapshot)
            self._healed_copies = True
        if not self._is_news(world):
            return False
        self._decision = decide(world)
        moves = self._decision.moves
        if moves and not leading.mysql.available and not leading.without_mysql():
            # The copy comes first. In a moment MySQL is back, or has been silent for long enough.
            self._at_rest = None
            return False
        done = self._mover.apply(moves, snapshot, judgement.memory.absent, budget_s=self._budget_s(snapshot))
        self._at_rest = None if moves else world
        return done < len(moves)

    def _budget_s(self, snapshot: Snapshot) -> float:
        """Return for how long a turn may go on writing: while the tree is incomplete, nothing is more urgent."""
        return BUDGET_S if snapshot.ready else REBUILD_BUDGET_S

    def _is_news(self, world: World) -> bool:
        """Say whether anything that a plan depends on has changed since the last plan, which had no moves."""
        before = self._at_rest
        return before is None or not (
            world.tasks is before.tasks
            and world.assigned is before.assigned
            and (world.owned is before.owned or world.owned == before.owned)
            and world.workers == before.workers
            and world.requests == before.requests
        )

    def _complete(self, snapshot: Snapshot) -> None:
        """Tell the workers that absence means something again, once everything is there."""
        if snapshot.leases is None or self._decision.moves or missing_tasks(snapshot):
            return
        if not snapshot.fresh:
            # Complete as far as we remember. Somebody may have wiped again what we wrote, so look before we say so.
            self._rebuilding = False
            return
        self._leading.coordinator.mark_ready(self._leading.leadership)
        self._rebuilding = False
        log.info("the tree is complete", extra={"event": "tree.ready", "tasks": len(snapshot.catalog.tasks)})

    def _tidy(self, snapshot: Snapshot, world: World) -> None:
        """Do what can wait and needs MySQL: should that fail meanwhile, the rest of the turn still counts."""
        if snapshot.leases is None or self._leading.stopping():
            return
        try:
            self._healer.heal(snapshot, budget_s=self._budget_s(snapshot))
            self._chores.work(snapshot, world, self._decision)
            if snapshot.ready:
                self._auditor.work(snapshot, self._decision.unplaced)
        except UnavailableError as exc:
            log.warning("tidying is put off", extra={"event": "tidying.put_off", "error": str(exc)})

    # -- telling

    def _measure(self, snapshot: Snapshot, world: World) -> None:
        metrics = self._leading.metrics
        states = [worker.state for worker in world.workers.values()]
        for state in WorkerState:
            metrics.workers.labels(state=state.value).set(states.count(state))
        placed = sum(len(tasks) for tasks in snapshot.assigned.values())
        metrics.tasks.labels(placement="placed").set(placed)
        metrics.tasks.labels(placement="unplaced").set(len(self._decision.unplaced))
        metrics.tasks.labels(placement="releasing").set(len(self._decision.releasing))
        metrics.tasks.labels(placement="staying").set(len(self._decision.staying))
