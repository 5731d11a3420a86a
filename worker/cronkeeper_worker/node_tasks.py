"""The node's tasks and runs, as the agent has them changed: in the engine's thread, and whole after a crash."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper_worker import run_files
from cronkeeper_worker.agent import Node
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.engine import Engine
from cronkeeper_worker.engine_thread import EngineThread
from cronkeeper_worker.fences import Fence
from cronkeeper_worker.journal import Entry, Journal, Phase, TaskRow
from cronkeeper_worker.node_crontab import NodeCrontab
from cronkeeper_worker.runner_client import RunnerClient
from cronkeeper_worker.tasks import Installed

log = logging.getLogger(__name__)


class NodeTasks:
    """For the agent's thread; `begin` for before any runs, `go_on_with` for the engine's. Runs are in `top`."""

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        journal: Journal,
        cache: ArtifactCache,
        runner: RunnerClient,
        crontab: NodeCrontab,
        top: str,
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._journal = journal
        self._cache = cache
        self._runner = runner
        self._crontab = crontab
        self._top = top

    def as_seen_by_the_agent(self) -> Node:
        return Node(self._apply, self._have, self._demand, self._retry, self._set_foreign, self._adopt)

    def installed(self) -> list[Installed]:
        return self._thread.ask(lambda: list(self._engine.tasks.values()))

    def begin(self, coordinator: Coordinator, worker: str) -> None:
        """At a start: let go of what went to others while no daemon was here, and take up what the journal has open.

        In this order: the news that a run has ended starts what waited for it, and plans its retry, and the task's new
        owner may be cut off from the very fence that we would ask.
        """
        if coordinator.connected:
            with zookeeper_may_be_away():
                self._drop_moved(coordinator, worker)
        self.go_on_with(self._journal.open_entries())

    def _drop_moved(self, coordinator: Coordinator, worker: str) -> None:
        if not coordinator.is_ready():
            return
        assigned = coordinator.assigned(worker)
        moved = [task for task in self._engine.tasks if task not in assigned]
        if moved:
            self._engine.uninstall(moved)
            self._journal.save_tasks([], moved)
            self._crontab.install(list(self._engine.tasks.values()))
            coordinator.disown(worker, moved)
            log.info("tasks went to others meanwhile", extra={"event": "tasks.moved", "dropped": len(moved)})

    def go_on_with(self, entries: Sequence[Entry]) -> None:
        """Take these up. Ends that the runner told while nobody listened are read from where it keeps them."""
        self._engine.resume(
            entries,
            lambda key: os.path.isdir(run_files.run_folder(self._top, str(key))),
            lambda key: run_files.read_exit(run_files.run_folder(self._top, str(key))),
        )

    # -- what the agent asks

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        """Install and drop tasks: disarm, write down, crontab, arm. A crash in between leaves the journal right."""

        def change() -> list[Installed]:
            # What is due until now of these is still ours to decide; whoever comes after us decides from here on. The
            # others have their turn piece by piece: of many, each look is as long as the runner's news waits.
            # After a pause of the process, tasks that we are found to have lost may have been another's for as long.
            leaving = () if self._thread.held() else dropped
            self._engine.look_at([*(row.task for row, _ in given), *leaving], Trigger.TIMER)
            self._engine.take(given, dropped)
            return list(self._engine.tasks.values())

        try:
            now = self._thread.ask(change)
        except BaseException:
            # The journal's disk is full, say: what the engine has of it already is not asked for again.
            self._crontab.doubt()
            raise
        self._cache.want(artifact for item in now if (artifact := item.work.artifact) is not None)
        self._show([row.envelope for row, _ in given])
        self._crontab.write()

    def _show(self, envelopes: Sequence[bytes]) -> None:
        """Have the root part know the newest generations: it starts no older ones then, whoever asks for them."""
        if self._runner.signed:
            with contextlib.suppress(UnavailableError):  # it learns them from the orders
                self._runner.learn(envelopes)

    def _have(self) -> Mapping[TaskId, Installed]:
        return self._thread.ask(lambda: dict(self._engine.tasks))

    def _retry(self, due: Mapping[RunKey, int]) -> None:
        if due:
            self._thread.post(lambda: self._engine.retry(due))

    def _demand(self, keys: Sequence[RunKey], trigger: Trigger) -> None:
        if keys:
            self._thread.post(lambda: self._engine.demand(keys, trigger))

    def _set_foreign(self, runs: dict[TaskId, frozenset[RunKey]]) -> None:
        self._thread.post(lambda: self._engine.set_foreign(runs))

    def _adopt(self, runs: Sequence[Run]) -> None:
        """Go on with runs of ours that the journal has lost: they run, or have ended, or are to be started still."""
        log.warning("runs are taken up from the ledger", extra={"event": "run.adopted", "runs": len(runs)})
        entries = [
            Entry(run, Phase.STARTED if run.state is RunState.RUNNING else Phase.CLAIMED, claim_fence=Fence.MYSQL.value)
            for run in runs
        ]

        def adopt() -> None:
            self._journal.update(entries, report=False)
            self.go_on_with(entries)

        self._thread.ask(adopt)


@contextlib.contextmanager
def zookeeper_may_be_away() -> Iterator[None]:
    try:
        yield
    except UnavailableError:
        log.warning("ZooKeeper is away; the node goes on with the tasks it has", extra={"event": "zookeeper.away"})
