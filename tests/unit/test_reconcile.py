"""The leader on the doubles that we ship: placing, losses, leaders that come and go, and MySQL away."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import MoveReason, NodeInfo
from cronkeeper.domain.run import Reason, RunState
from cronkeeper.errors import FencedError, UnavailableError
from cronkeeper.wire.znodes import ClaimNote
from tests.unit.manager_town import NOON_MS, Manager, QuickLeases, Town


def settled_town(*workers: str, jobs: int = 6) -> Town:
    town = Town(*workers)
    for _ in range(jobs):
        town.create()
    town.run(12)
    return town


# ------------------------------------------------------------------------------------------------ the ordinary way


def test_new_job_is_given_to_a_worker_that_owns_it() -> None:
    town = Town("a", "b")
    job = town.create()
    town.run(2)
    task = TaskId(job.id, 0)

    assert town.eyes.is_ready()
    assert town.eyes.read_tasks([task]) == {task: job.envelope}
    assert town.owners() == town.homes()
    assert set(town.homes()) == {task}
    given = town.assignment(job)
    assert (given.reason, given.since_ms, given.generation) == (MoveReason.NEW, job.effective_from_ms, 1)
    assert town.store.assignments.load()[task] == given


def test_every_shard_is_a_task() -> None:
    town = Town("a", "b")
    job = town.create(shards=3)
    town.run(2)

    assert set(town.homes()) == {TaskId(job.id, shard) for shard in range(3)}


def test_fleet_at_rest_is_left_alone() -> None:
    town = settled_town("a", "b")
    before = town.ensemble.snapshot()
    saves = town.store.calls("assignments.save")
    town.run(130)

    assert town.ensemble.snapshot() == before
    assert town.store.calls("assignments.save") == saves


def test_worker_remembers_nothing_but_the_manager_remembers_the_worker() -> None:
    town = settled_town("a")

    assert town.eyes.nodes()["a"].last == town.nodes["a"].info


# ----------------------------------------------------------------------------------------------------------- losses


def test_lost_workers_tasks_move_and_its_runs_are_lost() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    job_id = next(task.job_id for task, worker in before.items() if worker == "a")
    job = town.store.jobs.get(job_id)
    old = town.assignment(job)
    run = town.start_run(job, "a", NOON_MS)
    town.nodes["a"].die()
    died_ms = town.clock.now_ms()
    town.run(10)
    new = town.assignment(job)

    assert set(town.homes().values()) == {"b"}
    assert {task for task in before if before[task] == "b"} == {t for t in before if town.homes()[t] == before[t]}
    assert (new.worker, new.reason) == ("b", MoveReason.WORKER_LOST)
    assert new.epoch > old.epoch
    assert died_ms - 6000 <= new.since_ms <= died_ms
    assert town.store.runs.get(run.key).state is RunState.LOST
    assert town.events("worker.lost") == ["a"]
    assert town.store.leases.leases()[0].lost


def test_heirs_are_told_what_the_lost_were_granted_last() -> None:
    town = settled_town("a", "b")
    job = town.store.jobs.get(next(task.job_id for task, worker in town.homes().items() if worker == "a"))
    # Granted after the last beat, and right before the end.
    fire_ms = town.clock.now_ms() + 500
    town.start_run(job, "a", fire_ms)
    town.nodes["a"].die()
    town.run(10)

    assert town.assignment(job).worker == "b"
    assert town.assignment(job).since_ms == fire_ms


def test_who_inherits_from_a_drained_worker_is_told_what_that_one_was_granted_last() -> None:
    """By the instant of the Revoke alone, a fire that falls due before the release would be granted again."""
    town = settled_town("a", "b")
    jobs = [town.store.jobs.get(task.job_id) for task, worker in town.homes().items() if worker == "a"]
    keeps_answering, town.nodes["a"].answers = town.nodes["a"].answers, False
    town.fleet.drain("a")
    town.run(2)
    fire_ms = town.clock.now_ms()
    town.start_run(jobs[0], "a", fire_ms)
    in_zookeeper = RunKey(TaskId(jobs[1].id, 0), fire_ms, 1)
    town.nodes["a"].coordinator.claim(in_zookeeper, ClaimNote("n", "a", RunState.CLAIMED))
    town.run(0.5)
    town.nodes["a"].answers = keeps_answering
    town.run(5)

    for job in jobs[:2]:
        assert (town.assignment(job).worker, town.assignment(job).since_ms) == ("b", fire_ms)
    assert town.store.runs.get(in_zookeeper).worker == "a"


def test_who_inherits_from_a_worker_that_was_stopped_before_the_revoke_looks_at_what_that_one_missed() -> None:
    town = settled_town("a", "b")
    job = town.store.jobs.get(next(task.job_id for task, worker in town.homes().items() if worker == "a"))
    # Stopped: it decides nothing more, and its session lives for some seconds.
    town.nodes["a"].alive = False
    stopped_ms = town.clock.now_ms()
    town.run(2)
    town.fleet.drain("a")
    town.run(4)
    town.nodes["a"].die()
    town.run(10)

    assert town.assignment(job).worker == "b"
    assert town.assignment(job).since_ms <= stopped_ms


def test_what_zookeeper_alone_granted_is_lost_with_its_worker() -> None:
    town = Town("a", "b")
    job = town.create()
    town.run(12)
    owner = town.homes()[TaskId(job.id, 0)]
    key = RunKey(TaskId(job.id, 0), NOON_MS, 1)
    town.nodes[owner].coordinator.claim(key, ClaimNote("n", owner, RunState.CLAIMED))
    town.nodes[owner].die()
    town.run(20)
    run = town.store.runs.get(key)
    assert (run.worker, run.state, run.reason) == (owner, RunState.LOST, Reason.WORKER_LOST)


def test_lost_worker_is_replaced_within_ten_seconds() -> None:
    town = settled_town("a", "b")
    # The session ends 6 s after the node's death; the lease is as old as that, then.
    town.nodes["a"].alive = False
    town.run(6)
    town.nodes["a"].die()
    town.run(3)

    assert set(town.homes().values()) == {"b"}


def test_worker_that_comes_back_in_time_keeps_its_tasks() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.nodes["a"].die()
    town.run(1.5)
    town.nodes["a"].revive()
    town.run(20)

    assert town.homes() == before
    assert town.events("worker.lost") == []


def test_worker_without_a_session_but_with_a_lease_keeps_its_tasks() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.nodes["a"].coordinator.cut()
    town.nodes["a"].coordinator.expire()
    town.nodes["a"].step = lambda: None  # type: ignore[method-assign]  # it cannot reach ZooKeeper, but MySQL it can
    town.run(60)

    assert town.homes() == before


def test_lease_renewed_at_the_last_moment_spares_the_worker() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    leases = QuickLeases(town.store.leases, town.nodes["a"])
    town.store.leases = leases
    town.nodes["a"].die()
    town.run(20)

    assert leases.refused > 0
    assert town.homes() == before
    assert town.events("worker.lost") == []


def test_mass_loss_pauses_failover_and_tells_a_person() -> None:
    town = settled_town("a", "b", "c", "d", "e", jobs=10)
    before = town.homes()
    for name in "abc":
        town.nodes[name].die()
    town.run(30)

    assert town.homes() == before
    assert town.events("failover.paused") == ["fleet"]

    town.run(130)
    assert set(town.homes().values()) == {"d", "e"}


def test_returning_worker_takes_nothing_back() -> None:
    town = settled_town("a", "b")
    town.nodes["a"].die()
    town.run(10)
    town.nodes["a"].revive()
    town.run(20)

    assert set(town.homes().values()) == {"b"}


# ---------------------------------------------------------------------------------------------------------- leaders


def test_next_leader_moves_nothing() -> None:
    town = settled_town("a", "b")
    before, written = town.homes(), {task: town.store.assignments.load()[task].epoch for task in town.homes()}
    town.managers.append(Manager(town, "m2"))
    town.run(1)
    town.managers[0].die()
    second = town.managers.pop()
    town.managers = [second]
    town.run(20)

    assert second.leads
    assert town.homes() == before
    assert {task: town.store.assignments.load()[task].epoch for task in before} == written
    assert town.events("leader.elected") == ["m2", "m1"]


def test_fenced_leader_changes_nothing() -> None:
    town = settled_town("a", "b")
    zombie = town.managers[0]
    zombie.coordinator.cut()
    zombie.coordinator.expire()
    town.managers = [Manager(town, "m2")]
    town.run(2)
    town.create()
    before, copies = town.ensemble.snapshot(), town.store.assignments.load()
    zombie.coordinator.heal()

    with pytest.raises(FencedError):
        zombie.step()
    assert town.ensemble.snapshot() == before
    assert town.store.assignments.load() == copies


def test_leader_whose_candidacy_is_gone_stops_even_if_it_has_nothing_to_do() -> None:
    town = settled_town("a")
    town.ensemble.remove("/leader")
    town.clock.advance_ms(1000)

    with pytest.raises(FencedError):
        town.managers[0].step()


def test_leader_that_is_fenced_in_mysql_alone_writes_nothing_there() -> None:
    town = settled_town("a", "b")
    town.store.terms.take("m2")
    town.create()
    copies = town.store.assignments.load()

    with pytest.raises(FencedError):
        town.managers[0].step()
    assert town.store.assignments.load() == copies


def test_follower_goes_on_following() -> None:
    town = settled_town("a")
    follower = Manager(town, "m2")
    town.managers.append(follower)
    town.run(30)

    assert not follower.leads


def test_move_whose_copy_was_saved_but_not_told_is_told_by_the_next_leader() -> None:
    town = Town("a", "b")
    town.run(2)
    job = town.create()
    town.store.fail_next("assignments.save", landed=True)
    task = TaskId(job.id, 0)
    with pytest.raises(UnavailableError):
        town.managers[0].step()
    saved = town.store.assignments.load()[task].worker
    assert town.homes() == {}
    town.managers[0].die()
    town.managers = [Manager(town, "m2")]
    town.run(3)

    assert town.homes() == {task: saved}


# ------------------------------------------------------------------------------------------------------ MySQL is away


def test_without_mysql_a_lost_worker_is_replaced_after_its_silence() -> None:
    town = settled_town("a", "b")
    town.set_mysql(False)
    town.nodes["a"].die()
    for _ in range(20):
        town.clock.advance_ms(500)
        town.step()
    assert set(town.homes().values()) == {"a", "b"}

    town.run(8)
    assert set(town.homes().values()) == {"b"}


def test_without_mysql_nobody_who_lives_moves() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.set_mysql(False)
    town.run(300)

    assert town.homes() == before


def test_without_mysql_a_wish_waits_until_its_copy_may_be_late() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.set_mysql(False)
    town.eyes.save_node(NodeInfo("a", draining=True))
    town.run(14)
    assert town.homes() == before

    town.run(5)
    assert set(town.homes().values()) == {"b"}
    assert town.managers[0].leads


def test_what_was_moved_without_mysql_is_brought_home() -> None:
    town = settled_town("a", "b")
    job_id = next(task.job_id for task, worker in town.homes().items() if worker == "a")
    run = town.start_run(town.store.jobs.get(job_id), "a", NOON_MS)
    town.set_mysql(False)
    town.nodes["a"].die()
    town.run(20)
    town.set_mysql(True)
    town.run(3)

    assert {item.worker for item in town.store.assignments.load().values()} == {"b"}
    assert town.store.runs.get(run.key).state is RunState.LOST
    assert town.events("worker.lost") == ["a"]


def test_fresh_leader_without_mysql_waits_and_gives_way() -> None:
    town = settled_town("a", "b")
    before = town.homes()
    town.managers[0].die()
    second, third = Manager(town, "m2"), Manager(town, "m3")
    third.coordinator.ensure_layout()
    town.managers = []
    town.set_mysql(False)
    for _ in range(50):
        town.clock.advance_ms(500)
        for manager in (second, third):
            try:
                manager.step()
            except UnavailableError:
                continue
    assert not second.leads
    assert not third.leads
    assert town.homes() == before

    town.set_mysql(True)
    town.managers = [second, third]
    town.run(3)
    assert sorted([second.leads, third.leads]) == [False, True]
    assert town.homes() == before
