"""What only the double can show on command: a write that was done but never answered, and a connection that is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, NodeInfo, Ownership, WorkerInfo
from cronkeeper.domain.run import RunState
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Leadership
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun

TASK = TaskId(1, 0)
KEY = RunKey(TASK, 1_700_000_000_000, 1)
NOTE = ClaimNote("n1", "w1", RunState.CLAIMED)
LEADER = LeaderNote("m1", "", 1)
INFO = WorkerInfo("w1", "node-1")


def started(ensemble: MemoryEnsemble, name: str = "one") -> MemoryCoordinator:
    process = MemoryCoordinator(ensemble, name)
    process.start(1.0)
    process.ensure_layout()
    return process


def lead(process: MemoryCoordinator) -> Leadership:
    process.campaign(LEADER)
    leadership = process.leadership()
    assert leadership is not None
    return leadership


Call = Callable[[MemoryCoordinator, Leadership], object]

WRITES: dict[str, Call] = {
    "announce": lambda process, _: process.announce(INFO),
    "save_node": lambda process, _: process.save_node(NodeInfo("w1", draining=True)),
    "put_tasks": lambda process, _: process.put_tasks({TASK: b"x"}),
    "own": lambda process, _: process.own([Ownership(TASK, "w1", 1, "e1")]),
    "move": lambda process, lead_: process.move([Assignment(TASK, "w1", 1, 1, MoveReason.NEW, 1)], [], lead_),
    "mark_ready": lambda process, lead_: process.mark_ready(lead_),
    "enqueue": lambda process, _: process.enqueue(QueuedRun(KEY, "ann")),
    "update_claim": lambda process, _: process.update_claim(KEY, NOTE),
}
REMOVALS: dict[str, tuple[Call, Call]] = {
    "drop_node": (WRITES["save_node"], lambda process, _: process.drop_node("w1")),
    "drop_tasks": (WRITES["put_tasks"], lambda process, _: process.drop_tasks([TASK])),
    "disown": (WRITES["own"], lambda process, _: process.disown("w1", [TASK])),
    "clear_worker": (WRITES["move"], lambda process, lead_: process.clear_worker("w1", lead_)),
    "drop_claim": (WRITES["update_claim"], lambda process, _: process.drop_claim(KEY)),
    "consume": (WRITES["enqueue"], lambda process, _: process.consume(KEY)),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_whose_answer_was_lost_may_be_repeated(name: str) -> None:
    plain, lossy = MemoryEnsemble(), MemoryEnsemble()
    process = started(plain)
    WRITES[name](process, lead(process))
    process = started(lossy)
    leadership = lead(process)
    process.lose_next_answer()
    with pytest.raises(UnavailableError):
        WRITES[name](process, leadership)
    WRITES[name](process, leadership)
    assert contents(lossy) == contents(plain)


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_whose_answer_was_lost_may_be_repeated(name: str) -> None:
    ensemble = MemoryEnsemble()
    process = started(ensemble)
    leadership = lead(process)
    write, remove = REMOVALS[name]
    process.own([Ownership(TASK, "w0", 1, "e1")])
    before = contents(ensemble)
    write(process, leadership)
    assert contents(ensemble) != before
    process.lose_next_answer()
    with pytest.raises(UnavailableError):
        remove(process, leadership)
    remove(process, leadership)
    left = {path for path in contents(ensemble) if path not in before}
    assert left <= {"/owned/w1", f"/owned/w1/{TASK.bucket}"}, "folders may stay"


def test_a_claim_whose_answer_was_lost_is_ours() -> None:
    ensemble = MemoryEnsemble()
    process, other = started(ensemble), started(ensemble, "two")
    process.lose_next_answer()
    assert process.claim(KEY, NOTE)
    assert not other.claim(KEY, ClaimNote("n2", "w2", RunState.CLAIMED))


def test_a_candidacy_whose_answer_was_lost_is_taken_up_again() -> None:
    ensemble = MemoryEnsemble()
    process = started(ensemble)
    process.lose_next_answer()
    with pytest.raises(UnavailableError):
        process.campaign(LEADER)
    assert process.leadership() is None
    process.campaign(LEADER)
    assert process.leadership() is not None
    assert len([path for path in ensemble.snapshot() if path.startswith("/leader/")]) == 1


def test_who_is_cut_off_is_told_and_its_session_lives() -> None:
    ensemble = MemoryEnsemble()
    process, other = started(ensemble), started(ensemble, "two")
    process.announce(INFO)
    leadership = lead(process)
    process.cut()
    assert not process.connected
    for write in WRITES.values():
        with pytest.raises(UnavailableError):
            write(process, leadership)
    with pytest.raises(UnavailableError):
        process.workers(watch=True)
    with pytest.raises(UnavailableError):
        process.claim(KEY, NOTE)
    assert set(other.workers()) == {"w1"}
    process.heal()
    assert process.leadership() == leadership


def test_who_expires_while_cut_off_comes_back_as_somebody_new() -> None:
    ensemble = MemoryEnsemble()
    process, other = started(ensemble), started(ensemble, "two")
    process.announce(INFO)
    lead(process)
    before = process.session_id
    process.cut()
    process.expire()
    assert other.workers() == {}
    assert other.leader() is None
    process.heal()
    assert process.session_id not in (0, before)
    assert process.leadership() is None


def test_assignments_that_vanish_are_believed_to_be_gone_after_a_while() -> None:
    ensemble, clock = MemoryEnsemble(), FakeClock()
    process, worker = started(ensemble), MemoryCoordinator(ensemble, "w", clock=clock)
    worker.start(1.0)
    leadership = lead(process)
    process.mark_ready(leadership)
    process.move([Assignment(TASK, "w1", 1, 1, MoveReason.NEW, 1)], [], leadership)
    assert set(worker.assigned("w1", watch=True)) == {TASK}
    process.clear_worker("w1", leadership)
    assert process.assigned("w1", watch=True) == {}, "who removed them knows"
    for _ in range(2):
        with pytest.raises(UnavailableError):
            worker.assigned("w1", watch=True)
    clock.advance_ms(11_000)
    assert worker.assigned("w1", watch=True) == {}


def test_after_a_wipe_vanished_assignments_are_never_believed() -> None:
    ensemble, clock = MemoryEnsemble(), FakeClock()
    process, worker = started(ensemble), MemoryCoordinator(ensemble, "w", clock=clock)
    worker.start(1.0)
    leadership = lead(process)
    process.mark_ready(leadership)
    process.move([Assignment(TASK, "w1", 1, 1, MoveReason.NEW, 1)], [], leadership)
    assert set(worker.assigned("w1", watch=True)) == {TASK}
    ensemble.wipe()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            worker.assigned("w1", watch=True)
        clock.advance_ms(11_000)


def test_a_failed_multi_changes_nothing_and_wakes_nobody() -> None:
    ensemble = MemoryEnsemble()
    process, watcher = started(ensemble), started(ensemble, "two")
    leadership = lead(process)
    process.expire()
    before, rings = ensemble.snapshot(), []
    watcher.assigned("w1", watch=True)
    watcher.on_change(lambda: rings.append(1))
    with pytest.raises(Exception, match="somebody else leads"):
        process.move([Assignment(TASK, "w1", 1, 1, MoveReason.NEW, 1)], [], leadership)
    assert ensemble.snapshot() == before
    assert rings == []


def contents(ensemble: MemoryEnsemble) -> dict[str, bytes]:
    """Return the tree without what differs from run to run: the candidate's random name, the marker's numbers."""
    return {
        path: b"" if path == "/ready" else data
        for path, data in ensemble.snapshot().items()
        if not path.startswith("/leader/")
    }
