"""`@reboot` on a node: once for each of its starts, whoever looks first, and never for an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from cronkeeper.domain.ids import FIRST_NODE_SHARD, RunKey, TaskId, node_shard
from cronkeeper.domain.job import Delivery, JobSpec, JobState, Misfire
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.task import Task, Verifier
from cronkeeper_worker import node_start
from cronkeeper_worker.crontab_file import SystemCrontab
from cronkeeper_worker.crontab_keeper import CrontabKeeper
from cronkeeper_worker.journal import TaskRow
from cronkeeper_worker.node_start import NodeStart, settled
from cronkeeper_worker.tasks import BadTaskError, Here, install
from tests.unit import test_agent
from tests.unit.test_engine import MINUTE, SIGNER, World, spec

HOUR = 60 * MINUTE
VERIFIER = Verifier([SIGNER.public_bytes])


def node(folder: Path, name: str = "w1", store: MemoryStore | None = None, clock: FakeClock | None = None) -> World:
    """A node that was started an hour ago, of which nobody has noticed anything yet."""
    clock = clock or FakeClock()
    found = World(folder, store or MemoryStore(clock), clock, MemoryEnsemble(), name)
    found.here = Here(name, clock.now_ms() - HOUR)
    return found


def own(world: World) -> TaskId:
    return TaskId(17, node_shard(world.name))


def give(world: World, job: JobSpec, *, generation: int = 1, state: JobState = JobState.ACTIVE) -> None:
    """Have the node's task of the job assigned, saved just now."""
    now_ms = world.clock.now_ms()
    row = TaskRow(own(world), generation, 7, SIGNER.seal(Task(17, generation, state, now_ms, job)), 0)
    world.journal.save_tasks([row])
    world.engine.install([install(row, VERIFIER, world.here)])


def start_node(world: World, *, after_min: float = 1) -> str:
    """Have the node started again; its daemon comes up 20 s later. Returns the id of the run that is due."""
    world.clock.advance_ms(round(after_min * MINUTE) // 1000 * 1000)
    started_ms = world.clock.now_ms()
    world.clock.advance_ms(20_000)
    world.here = Here(world.name, started_ms)
    world.journal.close()
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: False, lambda _key: None)
    world.engine.look(Trigger.TIMER)
    return str(RunKey(own(world), started_ms, 1))


def restart_daemon(world: World) -> None:
    world.journal.close()
    world.boot()
    world.install_again()
    world.engine.resume(world.journal.open_entries(), lambda key: str(key) in world.ordered(), lambda _key: None)
    world.engine.look(Trigger.TIMER)


REBOOT = spec(schedule="@reboot")


def test_each_start_of_the_node_is_one_run_and_a_restart_of_the_daemon_is_none(tmp_path: Path) -> None:
    world = node(tmp_path)
    give(world, REBOOT)
    first = start_node(world)
    assert world.ordered() == [first]
    world.begin(first)
    world.end(first)
    restart_daemon(world)
    world.pass_minutes(90)
    assert world.ordered() == [first]
    second = start_node(world)
    assert world.ordered() == [first, second]
    world.report()
    assert [run.state for run in world.store.runs.history(17, limit=9)] == ["claimed", "succeeded"]


def test_nodes_that_start_in_the_same_second_run_it_each(tmp_path: Path) -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    worlds = [node(tmp_path, name, store, clock) for name in ("w1", "w2")]
    for world in worlds:
        give(world, REBOOT)
    clock.advance_ms(MINUTE)
    started_ms = clock.now_ms()
    for world in worlds:
        world.here = Here(world.name, started_ms)
        restart_daemon(world)
    runs = store.runs.history(17, limit=9)
    assert {(run.key.fire_ms, run.worker) for run in runs} == {(started_ms, "w1"), (started_ms, "w2")}
    assert all(len(world.ordered()) == 1 for world in worlds)


def test_a_job_saved_or_edited_after_the_start_waits_for_the_next_one(tmp_path: Path) -> None:
    world = node(tmp_path)
    give(world, REBOOT)
    world.pass_minutes(5)
    assert world.ordered() == []
    first = start_node(world)
    world.end(first)
    give(world, REBOOT.evolve(executable="false"), generation=2)
    world.pass_minutes(5)
    assert world.ordered() == [first]


def test_a_paused_job_does_not_run_at_the_start_nor_when_it_is_resumed(tmp_path: Path) -> None:
    world = node(tmp_path)
    give(world, REBOOT, state=JobState.PAUSED)
    start_node(world)
    give(world, REBOOT, generation=2)
    world.pass_minutes(5)
    assert world.ordered() == []


@pytest.mark.parametrize("misfire", list(Misfire))
def test_a_node_may_take_its_time_to_start_but_not_longer_than_the_grace(tmp_path: Path, misfire: Misfire) -> None:
    world = node(tmp_path)
    give(world, REBOOT.evolve(misfire=misfire, grace_s=600))
    for late_s, runs in ((599, 1), (601, 1)):
        world.clock.advance_ms(HOUR)
        world.here = Here("w1", world.clock.now_ms() // 1000 * 1000)
        world.clock.advance_ms(late_s * 1000)
        restart_daemon(world)
        for run_id in world.ordered():
            world.end(run_id)
        assert len(world.ordered()) == runs
    world.report()
    skipped = world.store.runs.history(17, limit=1)[0]
    assert (skipped.state, skipped.reason) == ("skipped", "late")


@pytest.mark.parametrize(("delivery", "runs"), [(Delivery.AT_LEAST_ONCE, 1), (Delivery.AT_MOST_ONCE, 0)])
def test_it_runs_from_the_journal_with_the_platform_away(tmp_path: Path, delivery: Delivery, runs: int) -> None:
    world = node(tmp_path)
    give(world, REBOOT.evolve(delivery=delivery))
    world.store.set_available(False)
    world.coordinator.cut()
    start_node(world)
    assert len(world.ordered()) == runs
    world.store.set_available(True)
    world.fences.mysql_ok = True
    world.pass_minutes(1)
    assert len(world.ordered()) == 1


def test_what_failed_is_tried_again_until_the_node_is_started_again(tmp_path: Path) -> None:
    """A start ends whatever ran; the work is then that of the new start."""
    world = node(tmp_path)
    give(world, REBOOT.evolve(retry=Retry(3, 1, 1)))
    first = start_node(world)
    world.begin(first)
    world.end(first, 1)
    world.pass_minutes(1)
    again = first.removesuffix("1") + "2"
    assert world.ordered() == [first, again]
    world.begin(again)
    second = start_node(world)
    world.end(again, None, lost=True)
    world.pass_minutes(1)
    assert world.ordered() == [first, again, second]


@pytest.mark.parametrize(("ago_ms", "reruns"), [(0, 1), (60_000, 0)])
def test_a_lost_run_is_run_again_only_if_it_is_of_the_present_start(tmp_path: Path, ago_ms: int, reruns: int) -> None:
    world = test_agent.World(tmp_path)
    task = TaskId(1, node_shard("w1"))
    world.put(task, schedule="@reboot")
    lost = RunKey(task, world.clock.now_ms() - ago_ms, 1)
    world.store.runs.record([Run(lost, Trigger.TIMER, RunState.RUNNING, "w1", "n")])
    world.store.runs.lose("w1", term=world.store.terms.take("m1"), reason="worker_lost")
    world.assign(task)
    world.ready()
    world.agent.step()
    assert len(world.demands) == reruns


def test_a_node_runs_its_own_task_only(tmp_path: Path) -> None:
    foreign = TaskRow(TaskId(17, node_shard("w2")), 1, 7, SIGNER.seal(Task(17, 1, JobState.ACTIVE, 0, REBOOT)), 0)
    with pytest.raises(BadTaskError):
        install(foreign, VERIFIER, Here("w1", 5000))
    world = test_agent.World(tmp_path)
    own, others = TaskId(1, node_shard("w1")), TaskId(1, node_shard("w2"))
    for task in (own, others):
        world.put(task, schedule="@reboot")
    world.assign(own, others)
    world.ready()
    world.agent.step()
    assert set(world.installed) == {own}


def test_a_task_given_anew_is_not_due_for_a_start_that_the_ledger_has(tmp_path: Path) -> None:
    """After a drain, or with a journal that is lost, the ledger says what was decided."""
    world = test_agent.World(tmp_path)
    started_ms = world.clock.now_ms()
    task = TaskId(1, node_shard("w1"))
    world.put(task, schedule="@reboot")
    world.assign(task)
    world.ready()
    world.agent.step()
    assert world.installed[task].next_ms == started_ms
    world.store.runs.record([Run(RunKey(task, started_ms, 1), Trigger.TIMER, RunState.SUCCEEDED)])
    world.leader.move([], [("w1", task)], world.leadership())
    world.agent.step()
    given = Assignment(task, "w1", 1, 6, MoveReason.NEW, assigned_ms=world.clock.now_ms() + 1)
    world.leader.move([given], [], world.leadership())
    world.agent.step()
    assert world.installed[task].next_ms is None


def test_the_crontab_calls_each_minute_for_it_so_that_a_start_is_found_without_the_daemon(tmp_path: Path) -> None:
    world = node(tmp_path)
    give(world, REBOOT)
    keeper = CrontabKeeper(SystemCrontab(tmp_path), Path("/opt/fire"), "UTC", world.clock)
    assert keeper.install(world.engine.tasks.values())
    text = "".join(path.read_text() for path in tmp_path.glob("cronkeeper*"))
    assert f"# tasks {own(world)}\n* * * * * root /opt/fire " in text


# ---------------------------------------------------------------------------------------------- the start of a node


@pytest.mark.parametrize(
    ("case", "known", "present", "kernels_ms", "noted_ms"),
    [
        ("the first start ever", None, "b1", 7000, 7000),
        ("the same start, with the clock set since", NodeStart("b1", 7000), "b1", 9000, 7000),
        ("the next start", NodeStart("b1", 7000), "b2", 90_000, 90_000),
        ("the next start, by a clock without a battery", NodeStart("b1", 7000), "b2", 0, 8000),
        ("the next start, by a clock that stood still", NodeStart("b1", 7000), "b2", 7000, 8000),
    ],
)
def test_a_start_is_noted_once_and_later_than_the_one_before(
    case: str, known: NodeStart | None, present: str, kernels_ms: int, noted_ms: int
) -> None:
    assert settled(known, present, kernels_ms) == NodeStart(present, noted_ms)


def test_the_note_stays_as_long_as_the_node_is_up(tmp_path: Path) -> None:
    assert node_start.is_new(tmp_path)
    first = node_start.note(tmp_path)
    assert first % 1000 == 0
    assert (node_start.note(tmp_path), node_start.is_new(tmp_path)) == (first, False)
    file = tmp_path / "node-start.json"
    file.write_text(file.read_text().replace('"boot_id": "', '"boot_id": "x'))
    assert node_start.is_new(tmp_path)
    assert node_start.note(tmp_path) >= first + 1000
    file.write_text("torn")
    assert node_start.is_new(tmp_path)


def test_a_nodes_shard_is_the_same_for_ever_and_no_job_has_it() -> None:
    assert (node_shard("w1"), node_shard("node-a1b2c3")) == (755_921_320, 352_815_427)
    shards = {node_shard(f"w{number}") for number in range(1000)}
    assert len(shards) == 1000
    assert all(FIRST_NODE_SHARD <= shard < 2**31 for shard in shards)
    task = TaskId(17, max(shards))
    assert TaskId.parse(str(task)) == TaskId.parse(task.znode) == task
    assert RunKey.parse(str(RunKey(task, 5, 1))) == RunKey(task, 5, 1)
    for text in ("17/2147483648", "17/9999999999"):
        with pytest.raises(ValueError, match="shard"):
            TaskId.parse(text)
