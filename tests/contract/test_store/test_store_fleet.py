"""Leases, terms, assignments and move requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.errors import FencedError
from cronkeeper.ports import Cordon, MoveRequest, Store

LONG_MS = 3_600_000


def worker(epoch: str, name: str = "w1") -> WorkerInfo:
    return WorkerInfo(name, f"{name}.example", {"zone": "eu"}, 500, "1.2.3", epoch, 42, 1_700_000_000_000)


def beat(store: Store, info: WorkerInfo, *, ahead_ms: int = 0) -> bool:
    return store.leases.beat(info, local_ms=time.time_ns() // 1_000_000 + ahead_ms).lost


def test_a_beat_renews_the_lease(store: Store) -> None:
    assert store.leases.leases() == []
    info = worker("e1")
    for _ in range(2):
        assert not beat(store, info)
    (lease,) = store.leases.leases()
    assert (lease.worker, lease.incarnation, lease.lost, lease.info) == ("w1", "e1", False, info)
    assert 0 <= lease.age_ms < LONG_MS


def test_the_clocks_difference_is_measured(store: Store) -> None:
    local_ms = time.time_ns() // 1_000_000 + 7_200_000
    found = store.leases.beat(worker("e1"), local_ms=local_ms)
    # The database is on this machine. A noisy one may take its time, but not minutes.
    assert 7_140_000 < found.clock_offset_ms < 7_260_000
    (lease,) = store.leases.leases()
    assert lease.clock_offset_ms == found.clock_offset_ms


def test_a_worker_that_is_wrong_about_the_time_does_not_look_old_or_young(store: Store) -> None:
    beat(store, worker("e1"), ahead_ms=-10 * LONG_MS)
    beat(store, worker("e2", "w2"), ahead_ms=10 * LONG_MS)
    assert all(0 <= lease.age_ms < LONG_MS for lease in store.leases.leases())


def test_a_new_start_takes_the_row_over(store: Store) -> None:
    beat(store, worker("e1"))
    assert not beat(store, worker("e2"))
    (lease,) = store.leases.leases()
    assert lease.incarnation == "e2"


def test_only_a_stale_lease_can_be_declared_lost(store: Store) -> None:
    term = store.terms.take("m1")
    beat(store, worker("e1"))
    assert not store.leases.declare_lost("w1", incarnation="e1", stale_ms=LONG_MS, term=term)
    assert not store.leases.declare_lost("w1", incarnation="e0", stale_ms=0, term=term)
    assert not store.leases.declare_lost("w9", incarnation="e1", stale_ms=0, term=term)
    assert not beat(store, worker("e1"))
    assert store.leases.declare_lost("w1", incarnation="e1", stale_ms=0, term=term)
    assert store.leases.declare_lost("w1", incarnation="e1", stale_ms=LONG_MS, term=term), "it is lost already"


def test_a_lost_incarnation_is_told_and_does_not_come_back(store: Store) -> None:
    term = store.terms.take("m1")
    beat(store, worker("e1"))
    store.leases.declare_lost("w1", incarnation="e1", stale_ms=0, term=term)
    assert beat(store, worker("e1"))
    assert [lease.lost for lease in store.leases.leases()] == [True]
    assert not beat(store, worker("e2"))
    assert [lease.lost for lease in store.leases.leases()] == [False]
    assert beat(store, worker("e1")), "a start that was given up stays so, even after its successor's beat"
    assert [lease.incarnation for lease in store.leases.leases()] == ["e2"]


def test_a_goodbye_ends_the_lease_at_once(store: Store) -> None:
    term = store.terms.take("m1")
    beat(store, worker("e1"))
    store.leases.release("w1", incarnation="e0")
    assert not store.leases.declare_lost("w1", incarnation="e1", stale_ms=LONG_MS, term=term)
    for _ in range(2):
        store.leases.release("w1", incarnation="e1")
    (lease,) = store.leases.leases()
    assert lease.age_ms > LONG_MS
    assert store.leases.declare_lost("w1", incarnation="e1", stale_ms=LONG_MS, term=term)


def test_an_old_leader_declares_nobody_lost(store: Store) -> None:
    old = store.terms.take("m1")
    store.terms.take("m2")
    beat(store, worker("e1"))
    with pytest.raises(FencedError):
        store.leases.declare_lost("w1", incarnation="e1", stale_ms=0, term=old)
    assert not beat(store, worker("e1"))


def test_a_term_is_higher_than_any_before(store: Store) -> None:
    assert [store.terms.take(name) for name in ("m1", "m2", "m1")] == [1, 2, 3]
    store.terms.hold(3)
    store.terms.hold(3)
    for over in (0, 1, 2, 4):
        with pytest.raises(FencedError):
            store.terms.hold(over)


def test_leaders_racing_for_a_term_get_different_ones(store: Store) -> None:
    start = threading.Barrier(4)

    def race(name: str) -> list[int]:
        start.wait()
        return [store.terms.take(name) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        terms = [term for taken in pool.map(race, ["m1", "m2", "m3", "m4"]) for term in taken]
    assert sorted(terms) == list(range(1, 41))


def assignment(job_id: int, name: str, *, shard: int = 0, epoch: int = 1) -> Assignment:
    return Assignment(TaskId(job_id, shard), name, 3, epoch, MoveReason.NEW, 1000, 900)


def test_assignments_come_back_as_they_were_saved(store: Store) -> None:
    term = store.terms.take("m1")
    first = [assignment(job_id, f"w{job_id % 3}") for job_id in range(1, 1101)]
    store.assignments.save(first, term=term)
    moved = assignment(1, "w9", epoch=2)
    revoked = assignment(2, "", epoch=2)
    store.assignments.save([moved, revoked], term=term)
    loaded = store.assignments.load()
    assert len(loaded) == 1100
    assert [loaded[TaskId(job_id, 0)] for job_id in (1, 2, 3)] == [moved, revoked, first[2]]


def test_workers_of_a_job_are_those_that_have_its_tasks(store: Store) -> None:
    given = [("w2", 0), ("w1", 1), ("w2", 2), ("", 3)]
    items = [assignment(1, name, shard=shard) for name, shard in given]
    store.assignments.save([*items, assignment(2, ""), assignment(3, "w3")], term=store.terms.take("m1"))
    assert store.assignments.workers_of([1, 2, 4]) == {1: ["w1", "w2"]}
    assert store.assignments.workers_of([]) == {}


def test_assignments_of_removed_jobs_are_forgotten(store: Store) -> None:
    term = store.terms.take("m1")
    items = [assignment(1, "w1"), assignment(1, "w1", shard=1), assignment(2, "w1")]
    store.assignments.save(items, term=term)
    for _ in range(2):
        store.assignments.forget([1, 7], term=term)
    assert store.assignments.load() == {items[2].task: items[2]}


def test_an_old_leader_assigns_and_forgets_nothing(store: Store) -> None:
    old = store.terms.take("m1")
    store.assignments.save([assignment(1, "w1")], term=old)
    store.terms.take("m2")
    with pytest.raises(FencedError):
        store.assignments.save([assignment(1, "w2"), assignment(2, "w2")], term=old)
    with pytest.raises(FencedError):
        store.assignments.forget([1], term=old)
    assert store.assignments.load() == {TaskId(1, 0): assignment(1, "w1")}


def test_a_wish_to_move_is_kept_until_it_is_dropped(store: Store) -> None:
    first, second = MoveRequest(TaskId(1, 0), "w1", 5), MoveRequest(TaskId(1, 1), "w1", 5)
    store.move_requests.add([first, second])
    later = MoveRequest(TaskId(1, 0), "w2", 6)
    store.move_requests.add([later])
    assert store.move_requests.all() == {later.task: later, second.task: second}
    old = store.terms.take("m1")
    term = store.terms.take("m2")
    with pytest.raises(FencedError):
        store.move_requests.drop([later.task], term=old)
    for _ in range(2):
        store.move_requests.drop([later.task, TaskId(9, 9)], term=term)
    assert store.move_requests.all() == {second.task: second}


def test_a_cordon_is_kept_until_it_is_lifted(store: Store) -> None:
    assert store.cordons.all() == {}
    store.cordons.save(Cordon("w1", True, False, 5))
    store.cordons.save(Cordon("w2", False, True, 6))
    assert store.cordons.all() == {"w1": Cordon("w1", True, False, 5), "w2": Cordon("w2", False, True, 6)}
    for _ in range(2):
        store.cordons.save(Cordon("w1", False, False, 7))
    assert store.cordons.all()["w1"] == Cordon("w1", False, False, 7)
