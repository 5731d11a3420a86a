"""T57: the real worker core under Hypothesis: whatever happens in whatever order, the invariants hold after each step.

The invariants carry the numbers of docs/guarantees.md's tests. A start that MySQL granted never doubles another one; a
start without MySQL may, under `at_least_once`: that is the known hole (docs/decisions/0012-protocol-model.md).
`CRONKEEPER_EXAMPLES=500` looks for longer, and elsewhere each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency, Delivery, JobSpec, JobState, JobType, Misfire
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import ACTIVE, Reason, Run, RunState, Trigger
from cronkeeper.errors import ConflictError
from cronkeeper_worker.fences import Fence
from cronkeeper_worker.gate import ON_TIME_MS
from cronkeeper_worker.journal import Entry
from tests.unit.engine_town import MINUTE, TASK, EngineTown, Start, Worker

#: Of all policies together.
EXAMPLES = int(os.environ.get("CRONKEEPER_EXAMPLES", "72"))
NAMES = ("a", "b")
WHO = st.sampled_from(NAMES)
GRACE_S = 600


class EngineMachine(RuleBasedStateMachine):
    """Two workers, one job every minute."""

    def __init__(self, delivery: Delivery, concurrency: Concurrency, misfire: Misfire) -> None:
        super().__init__()
        self.delivery, self.concurrency, self.misfire = delivery, concurrency, misfire

    @initialize(retries=st.sampled_from([0, 1]))
    def begin(self, retries: int) -> None:
        spec = JobSpec(
            "true", "* * * * *", JobType.COMMAND, delivery=self.delivery, concurrency=self.concurrency,
            misfire=self.misfire, grace_s=GRACE_S, retry=Retry(retries, 5, 5),
        )  # fmt: skip
        self.town = EngineTown(spec, *NAMES)
        self.town.on_start = self.on_start
        self.starts: dict[RunKey, list[Start]] = {}
        self.paused_since_ms: int | None = None
        #: Wall clocks were set, and once showed this: lateness means nothing after that.
        self.stepped_ms = 0
        for worker in self.town.workers.values():
            self.watch_decisions(worker)
        self.town.assign("a")
        self.everybody_works()

    # -- the checks at each decision and start

    def watch_decisions(self, worker: Worker) -> None:
        decide = worker.journal.decide

        def watched(entries: Sequence[Entry], cursors: Sequence[tuple[TaskId, int, int | None]]) -> None:
            beside = [entry for entry in entries if entry.run.state is RunState.PENDING]
            for entry in entries:
                if entry.run.reason is Reason.OVERLAP:
                    self.check_overlap(worker, entry.run.key, beside)
            decide(entries, cursors)

        worker.journal.decide = watched  # type: ignore[method-assign]

    def check_overlap(self, worker: Worker, key: RunKey, beside: Sequence[Entry]) -> None:
        """I12: what a fire is said to overlap with is there, waits for its start, or is said to be by MySQL."""
        item = worker.engine.tasks[key.task]
        there = [run for run in item.active if str(run) not in worker.processes.over]
        assert there or item.waiting or item.foreign or beside, f"{key} overlaps with nothing but {list(item.active)}"

    def on_start(self, start: Start, worker: Worker) -> None:
        key, spec = start.key, self.town.spec
        before = self.starts.setdefault(key, [])
        once = spec.delivery is Delivery.AT_MOST_ONCE
        assert all(other.worker != start.worker for other in before), f"I2 {key} twice on {start.worker}"
        assert not (before and once), f"I4 {key}: {before} and {start}"
        by_mysql = [other for other in (*before, start) if other.fence == Fence.MYSQL]
        assert len(by_mysql) < 2, f"I2 {key}: MySQL granted {by_mysql}"
        manual = worker.journal_trigger(key) is Trigger.MANUAL
        assert start.at_ms >= key.fire_ms or self.stepped_ms or manual, f"I6 {start} is early"
        late_ms = start.at_ms - key.fire_ms
        if key.attempt == 1 and not self.stepped_ms and not manual:
            assert late_ms <= GRACE_S * 1000 + ON_TIME_MS, f"I7 {start} is late by {late_ms} ms"
        if key.attempt > 1:
            self.check_attempt(key, worker)
        if spec.concurrency is not Concurrency.ALLOW:
            assert len(worker.processes.live) <= 1, f"I5 {worker.name}: {sorted(worker.processes.live)}"
        before.append(start)

    def check_attempt(self, key: RunKey, worker: Worker) -> None:
        earlier = RunKey(key.task, key.fire_ms, key.attempt - 1)
        row = self.town.store.runs.at(TASK.job_id, key.fire_ms)
        states = {run.key: run.state for run in row}
        own = worker.journal.entry(earlier)
        over = states.get(earlier) not in (None, *ACTIVE) or (own is not None and own.run.state not in ACTIVE)
        assert over, f"I3 {key} starts while {earlier} is {states.get(earlier)}"

    # -- what happens

    @rule(seconds=st.sampled_from([1, 3, 5, 20, 60, 60, 120, 700]), cron=st.booleans())
    def time_passes(self, seconds: int, cron: bool) -> None:
        for _ in range(max(1, seconds // 30)):
            self.town.clock.advance_ms(min(seconds, 30) * 1000)
            for worker in self.up():
                worker.look(Trigger.CRON if cron else Trigger.TIMER)

    @rule(who=WHO)
    def daemon_dies(self, who: str) -> None:
        worker = self.town.workers[who]
        if worker.up:
            worker.crash()

    @rule(who=WHO, heard=st.booleans())
    def daemon_starts(self, who: str, heard: bool) -> None:
        """The first look may come before the runner has told anything."""
        worker = self.town.workers[who]
        if not worker.up:
            worker.boot()
            self.reconnect(worker)
            if heard:
                worker.hear()
            worker.engine.look(Trigger.TIMER)
            worker.hear()

    @rule(who=WHO, how=st.sampled_from(["ok", "failed"]), seconds=st.sampled_from([1, 30, 60]))
    def a_run_ends_while_the_daemon_is_dead(self, who: str, how: str, seconds: int) -> None:
        self.daemon_starts(who, True)
        self.time_passes(60, False)
        self.daemon_dies(who)
        self.runs_end(who, how)
        self.town.clock.advance_ms(seconds * 1000)
        self.daemon_starts(who, False)

    @rule(who=WHO, mysql=st.booleans(), zookeeper=st.booleans())
    def lines_are_cut(self, who: str, mysql: bool, zookeeper: bool) -> None:
        worker = self.town.workers[who]
        worker.line.cut = mysql
        worker.no_zookeeper = zookeeper
        if zookeeper:
            worker.coordinator.cut()
        else:
            self.reconnect(worker)

    @rule(who=WHO, heard=st.booleans(), zookeeper=st.booleans())
    def an_answer_is_lost(self, who: str, heard: bool, zookeeper: bool) -> None:
        worker = self.town.workers[who]
        if zookeeper:
            worker.coordinator.lose_next_answer()
        elif heard:
            worker.line.mute = True
        else:
            worker.line.deaf = True

    @rule(who=WHO)
    def runner_stops(self, who: str) -> None:
        self.town.workers[who].processes.stopped = True

    @rule(who=WHO)
    def runner_goes_on(self, who: str) -> None:
        self.town.workers[who].processes.go_on()

    @rule(who=WHO, how=st.sampled_from(["ok", "ok", "failed", "lost"]))
    def runs_end(self, who: str, how: str) -> None:
        worker = self.town.workers[who]
        for run_id in sorted(worker.processes.live):
            worker.processes.end(run_id, how)
        if worker.up:
            worker.hear()

    @rule(who=WHO)
    def worker_works(self, who: str) -> None:
        self.works(self.town.workers[who])

    @rule(who=WHO)
    def reports(self, who: str) -> None:
        worker = self.town.workers[who]
        if worker.up:
            worker.try_to(worker.reporter.step)

    @rule()
    def is_revoked(self) -> None:
        self.town.revoke()

    @rule(who=WHO)
    def is_assigned(self, who: str) -> None:
        """The leader waits for the observed release, and gives tasks to those that it sees."""
        worker = self.town.workers[who]
        if self.town.home() is None and self.town.owners() == [] and worker.up and worker.coordinator.connected:
            self.town.assign(who)

    @rule(who=WHO)
    def is_lost(self, who: str) -> None:
        """Nobody is declared lost in less than 6 s after its last sign of life."""
        worker = self.town.workers[who]
        if worker.cut_off:
            worker.silent_since_ms = self.town.clock.now_ms()
            self.town.clock.advance_ms(8000)
            for other in self.up():
                other.look()
            self.town.bury(worker)

    @rule(who=WHO, mysql_first=st.booleans())
    def comes_back_unaware(self, who: str, mysql_first: bool) -> None:
        """Isolated, given up, replaced, and back with one store before it has looked: two workers have the task."""
        worker, other = self.town.workers[who], self.town.workers["b" if who == "a" else "a"]
        if not (worker.up and other.up):
            return
        self.lines_are_cut(who, True, True)
        self.is_lost(who)
        if other.coordinator.connected:
            self.is_assigned(other.name)
            self.works(other)
        worker.line.cut, worker.no_zookeeper = not mysql_first, mysql_first
        self.reconnect(worker)
        worker.try_to(worker.lease.step)
        self.time_passes(60, False)

    @rule(who=WHO)
    def is_away_for_minutes(self, who: str) -> None:
        self.daemon_dies(who)
        self.time_passes(120, False)
        self.time_passes(60, False)
        self.daemon_starts(who, True)

    @rule(seconds=st.sampled_from([-300, -30, 30, 300]))
    def clocks_are_set(self, seconds: int) -> None:
        self.stepped_ms = max(self.stepped_ms, self.town.clock.now_ms())
        self.town.clock.set_ms(self.town.clock.now_ms() + seconds * 1000)

    @rule()
    def is_edited(self) -> None:
        self.town.edit(replace(self.town.spec, description="changed"), self.town.state)

    @rule(pause=st.booleans())
    def is_paused(self, pause: bool) -> None:
        self.town.edit(self.town.spec, JobState.PAUSED if pause else JobState.ACTIVE)

    @rule()
    def somebody_wants_a_run(self) -> None:
        key = RunKey(TASK, self.town.clock.now_ms() + 7, 1)
        try:
            self.town.store.runs.request(Run(key, Trigger.MANUAL, RunState.PENDING))
        except ConflictError:
            return

    # -- the checks after each step

    @invariant()
    def mysql_is_no_liar(self) -> None:
        """I12: who is said to have run did run."""
        if not hasattr(self, "starts"):
            return
        for run in self.town.store.runs.history(TASK.job_id, limit=10_000):
            if run.state is RunState.SUCCEEDED:
                assert any(start.worker == run.worker for start in self.starts.get(run.key, [])), f"phantom {run.id}"

    @invariant()
    def nobody_has_a_stale_generation(self) -> None:
        """I8: what a worker fires is never newer than what was saved, and only grows."""
        if not hasattr(self, "starts"):
            return
        for worker in self.town.workers.values():
            for item in worker.engine.tasks.values():
                assert item.generation <= self.town.generation
                assert item.generation >= worker.generation, f"I8 {worker.name} went back"
                worker.generation = item.generation

    def teardown(self) -> None:
        if not hasattr(self, "starts"):
            return
        try:
            self.heal_and_check()
        finally:
            for worker in self.town.workers.values():
                worker.fences.close()
                worker.journal.close()

    def heal_and_check(self) -> None:
        for worker in self.town.workers.values():
            worker.line.cut = worker.line.deaf = worker.line.mute = worker.no_zookeeper = False
            if not worker.up:
                worker.boot()
            self.reconnect(worker)
            worker.processes.go_on()
        if self.town.state is not JobState.ACTIVE:
            self.town.edit(self.town.spec)
        self.everybody_works()
        begun_ms = max(self.town.clock.now_ms(), self.stepped_ms)
        self.town.clock.set_ms(begun_ms + MINUTE)
        self.everybody_works()
        begun_ms = self.town.clock.now_ms()
        for _ in range(3):
            self.town.clock.advance_ms(MINUTE)
            self.everybody_works()
        last_ms = self.town.clock.now_ms()
        for worker in self.up():
            self.works(worker)
        due = self.town.spec.parsed_schedule().latest_fires(begun_ms, last_ms, keep=10)[0]
        for fire_ms in due:
            key = RunKey(TASK, fire_ms, 1)
            queued = any(key in item.waiting for worker in self.up() for item in worker.engine.tasks.values())
            runs = self.town.store.runs.at(TASK.job_id, fire_ms)
            assert runs or queued, f"I11 no decision about {fire_ms} after everything has healed"
        for run in self.town.store.runs.history(TASK.job_id, limit=10_000):
            lives = any(run.id in worker.processes.live for worker in self.town.workers.values())
            assert run.state is not RunState.RUNNING or lives, f"I12 {run.id} runs for ever"

    # -- helpers

    def up(self) -> list[Worker]:
        return [worker for worker in self.town.workers.values() if worker.up]

    def reconnect(self, worker: Worker) -> None:
        if not worker.no_zookeeper and not worker.coordinator.connected:
            worker.coordinator.heal()

    def works(self, worker: Worker) -> None:
        """One turn of every loop of a daemon."""
        if not worker.up:
            return
        worker.look()
        for step in (worker.lease.step, worker.agent.step, worker.reporter.step):
            worker.try_to(step)
        worker.look()

    def everybody_works(self) -> None:
        for _ in range(4):
            for worker in self.up():
                self.works(worker)
                for run_id in sorted(worker.processes.live):
                    worker.processes.end(run_id, "ok")
            if self.town.home() is None and not self.town.owners():
                self.town.assign("a")
            self.town.clock.advance_ms(2000)


@pytest.mark.parametrize("delivery", list(Delivery))
@pytest.mark.parametrize("concurrency", [Concurrency.FORBID, Concurrency.ALLOW, Concurrency.QUEUE])
@pytest.mark.parametrize("misfire", [Misfire.ALL, Misfire.LATEST])
def test_t57_fire_machine(delivery: Delivery, concurrency: Concurrency, misfire: Misfire) -> None:
    """Each policy by itself: left to chance, a few examples have none of the one that jobs have unless told."""
    run_state_machine_as_test(
        cast(type[EngineMachine], lambda: EngineMachine(delivery, concurrency, misfire)),
        settings=settings(
            max_examples=max(1, EXAMPLES // 12),
            stateful_step_count=40,
            derandomize=EXAMPLES < 100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
