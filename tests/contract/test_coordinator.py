"""The coordinator's contract, over the shipped double and over a real ZooKeeper."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, NodeInfo, Ownership, WorkerInfo
from cronkeeper.domain.run import RunState
from cronkeeper.errors import ConflictError, FencedError, UnavailableError, WireFormatError
from cronkeeper.ports import Coordinator, Leadership
from cronkeeper.wire.trail import Anchor
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun
from tests.contract.coordinators import Bell, Fleet, MemoryFleet, RealFleet, eventually

TASKS = [TaskId(n, 0) for n in range(1, 41)]
FIRE_MS = 1_700_000_000_000


@pytest.fixture(params=["memory", "zookeeper"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "memory":
        yield MemoryFleet()
        return
    real = RealFleet(request.getfixturevalue("zookeeper_chroot"))
    yield real
    real.stop()


@pytest.fixture
def process(fleet: Fleet) -> Coordinator:
    """One process in a complete tree."""
    process = fleet.process("one")
    process.ensure_layout()
    return process


def lead(process: Coordinator, name: str = "m1") -> Leadership:
    process.campaign(LeaderNote(name, "127.0.0.1:1", 1))
    leadership = process.leadership()
    assert leadership is not None
    return leadership


def assignment(task: TaskId, worker: str = "w1", *, generation: int = 1) -> Assignment:
    return Assignment(task, worker, generation, 7, MoveReason.NEW, 1_000, 2_000)


def note(worker: str, state: RunState = RunState.CLAIMED) -> ClaimNote:
    return ClaimNote(uuid.uuid4().hex, worker, state)


def info(worker: str = "w1", *, host: str = "node-1", epoch: str = "e1", **labels: str) -> WorkerInfo:
    return WorkerInfo(worker, host, labels, 500, "1.0", epoch, 42, 1_000)


# -- the session


def test_a_started_process_is_connected_and_has_heard_from_the_server(process: Coordinator) -> None:
    assert process.connected
    assert process.session_id != 0
    assert process.silence_s() < 6.0


def test_a_stopped_process_is_gone_at_once(fleet: Fleet, process: Coordinator) -> None:
    other = fleet.process("two")
    other.announce(info())
    other.stop()
    other.stop()
    assert not other.connected
    assert process.workers() == {}


def test_the_layout_can_be_ensured_again_and_again(fleet: Fleet, process: Coordinator) -> None:
    process.put_tasks({TASKS[0]: b"x"})
    process.ensure_layout()
    fleet.process("two").ensure_layout()
    assert process.task_names() == {TASKS[0]}


def test_a_worker_that_is_first_makes_what_it_needs(fleet: Fleet) -> None:
    process = fleet.process("one")
    assert process.workers() == {}
    assert process.assigned("w1", watch=True) == {}
    assert not process.is_ready(watch=True)
    process.announce(info())
    process.own([Ownership(TASKS[0], "w1", 1, "e1")])
    process.put_tasks({TASKS[0]: b"x"})
    assert process.workers() == {"w1": info()}
    assert process.all_owned() == {"w1": {TASKS[0]}}
    assert process.task_names() == {TASKS[0]}


# -- the audit trail

ANCHOR = Anchor(7, "a" * 64, 1000, 3, "b" * 64)


def test_what_a_leader_says_of_the_trail_is_read_by_all(fleet: Fleet, process: Coordinator) -> None:
    reader, leadership = fleet.process("reader"), lead(process)
    assert reader.trail_anchor() is None
    process.anchor_trail(ANCHOR, leadership)
    eventually(lambda: reader.trail_anchor() == ANCHOR, "the anchor is read")
    process.anchor_trail(replace(ANCHOR, seq=8), leadership)
    eventually(lambda: reader.trail_anchor() == replace(ANCHOR, seq=8), "the newer one is read")


@pytest.mark.parametrize("junk", [b"", b"{}", b"[" * 5000, b'{"v": 1, "seq": "x"}', b"\xff"])
def test_an_anchor_that_cannot_be_read_is_no_missing_one(fleet: Fleet, process: Coordinator, junk: bytes) -> None:
    process.ensure_layout()
    fleet.write("/trail", junk)
    with pytest.raises(WireFormatError):
        process.trail_anchor()


# -- readiness


def test_the_tree_is_ready_once_a_leader_has_said_so(fleet: Fleet, process: Coordinator) -> None:
    worker = fleet.process("worker")
    assert not worker.is_ready(watch=True)
    bell, leadership = Bell(worker), lead(process)
    assert bell.rings_after(lambda: process.mark_ready(leadership))
    eventually(lambda: worker.is_ready(watch=True), "ready")
    process.mark_ready(leadership)
    assert worker.is_ready()


@pytest.mark.parametrize("what", ["/", "/assign", "/tasks"])
def test_after_a_wipe_the_tree_is_not_ready_and_can_be_rebuilt(fleet: Fleet, process: Coordinator, what: str) -> None:
    leadership = lead(process)
    process.put_tasks(dict.fromkeys(TASKS, b"x"))
    process.move([assignment(task) for task in TASKS], [], leadership)
    process.mark_ready(leadership)
    assert process.is_ready(watch=True)
    fleet.wipe(what)
    eventually(lambda: not process.is_ready(watch=True), "the wipe is seen")
    process.ensure_layout()
    assert not process.is_ready()
    eventually(lambda: process.leadership() is None or what != "/", "the candidate's end is seen")
    leadership = lead(process)
    process.put_tasks(dict.fromkeys(TASKS, b"y"))
    process.move([assignment(task) for task in TASKS], [], leadership)
    process.mark_ready(leadership)
    assert process.is_ready()
    assert set(process.read_tasks(TASKS).values()) == {b"y"}
    assert set(process.assigned("w1")) == set(TASKS)


# -- workers and nodes


def test_a_worker_is_seen_with_all_it_says_of_itself(fleet: Fleet, process: Coordinator) -> None:
    fleet.process("w").announce(info(zone="a"))
    assert process.workers() == {"w1": info(zone="a")}


def test_announcing_again_changes_what_has_changed(fleet: Fleet, process: Coordinator) -> None:
    process.announce(info())
    process.announce(info())
    process.announce(info(zone="b"))
    process.announce(info(zone="c"))
    assert fleet.process("two").workers() == {"w1": info(zone="c")}


def test_an_expired_worker_is_gone_until_it_announces_itself_again(fleet: Fleet, process: Coordinator) -> None:
    worker = fleet.process("w")
    worker.announce(info())
    before = worker.session_id
    fleet.expire(worker)
    assert worker.session_id != before
    eventually(lambda: process.workers() == {}, "the ephemeral znode is gone")
    worker.announce(info())
    assert process.workers() == {"w1": info()}


def test_a_worker_whose_znode_was_removed_announces_itself_again(fleet: Fleet, process: Coordinator) -> None:
    process.announce(info())
    fleet.wipe("/workers")

    def back() -> bool:
        process.announce(info())
        return "w1" in process.workers()

    eventually(back, "the worker is back")


def test_a_restarted_worker_replaces_its_own_stale_znode(fleet: Fleet, process: Coordinator) -> None:
    process.announce(info(epoch="before"))
    again = fleet.process("again")
    again.announce(info(epoch="after"))
    assert again.workers()["w1"].epoch == "after"
    process.stop()
    assert again.workers()["w1"].epoch == "after"


def test_a_namesake_on_another_host_is_refused(fleet: Fleet, process: Coordinator) -> None:
    process.announce(info(host="node-1"))
    with pytest.raises(ConflictError, match="node-1"):
        fleet.process("two").announce(info(host="node-2"))
    assert process.workers()["w1"].host == "node-1"


def test_nodes_outlive_their_workers(fleet: Fleet, process: Coordinator) -> None:
    node = NodeInfo("w1", cordoned=True, last=info())
    worker = fleet.process("w")
    worker.save_node(NodeInfo("w1"))
    worker.save_node(node)
    worker.stop()
    assert process.nodes() == {"w1": node}
    process.drop_node("w1")
    process.drop_node("w1")
    assert process.nodes() == {}


# -- tasks


def test_tasks_are_created_overwritten_and_dropped(process: Coordinator) -> None:
    process.put_tasks(dict.fromkeys(TASKS[:30], b"old"))
    process.put_tasks(dict.fromkeys(TASKS[20:], b"new"))
    process.put_tasks({TASKS[0]: b"newest"})
    assert process.task_names() == set(TASKS)
    found = process.read_tasks([*TASKS, TaskId(999, 0), TASKS[0]])
    assert found == {**dict.fromkeys(TASKS[:20], b"old"), **dict.fromkeys(TASKS[20:], b"new"), TASKS[0]: b"newest"}
    process.drop_tasks(TASKS[:2])
    process.drop_tasks(TASKS[:39])
    process.drop_tasks(TASKS[:39])
    assert process.task_names() == {TASKS[39]}


def test_shards_of_one_job_are_tasks_of_their_own(process: Coordinator) -> None:
    process.put_tasks({TaskId(1, 0): b"a", TaskId(1, 1): b"b"})
    assert process.read_tasks([TaskId(1, 1)]) == {TaskId(1, 1): b"b"}


def test_a_thousand_tasks_take_few_operations_and_arrive_whole(process: Coordinator) -> None:
    tasks = {TaskId(n, 0): str(n).encode() * 100 for n in range(1, 1001)}
    process.put_tasks(tasks)
    assert process.read_tasks(tasks) == tasks


@pytest.mark.parametrize("there", [[0], [249], [120, 130], range(250)])
def test_many_tasks_are_put_whichever_of_them_are_there(process: Coordinator, there: Sequence[int]) -> None:
    tasks = {TaskId(n, 0): str(n).encode() for n in range(1, 251)}
    process.put_tasks({task: b"old" for index, task in enumerate(tasks) if index in there})
    process.put_tasks(tasks)
    assert process.read_tasks(tasks) == tasks


def test_large_payloads_are_spread_over_several_operations(process: Coordinator) -> None:
    tasks = dict.fromkeys(TASKS, b"x" * 100000)
    process.put_tasks(tasks)
    assert process.read_tasks(TASKS) == tasks


@pytest.mark.parametrize("size", [300_000, 1_100_000])
def test_t26_zk_node_limit(process: Coordinator, size: int) -> None:
    """A payload beyond a megabyte would have the server break the connection, and each repetition would again."""
    session_id = process.session_id
    with pytest.raises(WireFormatError):
        process.put_tasks({TASKS[0]: b"x" * size})
    assert process.connected
    assert process.task_names() == set()
    assert process.session_id == session_id


def test_t26_zk_node_limit_of_a_multi(process: Coordinator) -> None:
    """1.2 MB in payloads that are each fine go in several operations; one too large among them, and nothing goes."""
    session_id = process.session_id
    tasks = dict.fromkeys(TASKS[:6], b"x" * 200_000)
    process.put_tasks(tasks)
    assert process.read_tasks(TASKS) == tasks
    with pytest.raises(WireFormatError):
        process.put_tasks({**dict.fromkeys(TASKS[6:12], b"x" * 200_000), TASKS[12]: b"x" * 1_100_000})
    assert process.task_names() == set(tasks)
    assert process.connected
    assert process.session_id == session_id


def test_foreign_names_and_payloads_do_not_hide_the_others(fleet: Fleet, process: Coordinator) -> None:
    leadership = lead(process)
    process.announce(info())
    process.save_node(NodeInfo("w1"))
    process.put_tasks({TASKS[0]: b"x"})
    process.move([assignment(TASKS[0]), assignment(TASKS[1])], [], leadership)
    process.enqueue(QueuedRun(RunKey(TASKS[0], FIRE_MS, 1), "ann"))
    process.claim(RunKey(TASKS[0], FIRE_MS, 1), note("w1"))
    bucket = TASKS[0].bucket
    for path, data in [
        ("/workers/garbage", b"{"),
        ("/workers/im personator", b""),
        ("/nodes/garbage", b"\xff"),
        (f"/tasks/{bucket}/what is this", b""),
        ("/assign/not a worker!", b""),
        (f"/assign/w1/{TASKS[1].bucket}/{TASKS[1].znode}", b'{"v":99}'),
        (f"/queue/{bucket}/garbage", b""),
        (f"/claims/{bucket}/garbage", b""),
        (f"/claims/{bucket}/5.0@17", b"garbage"),
        ("/leader/garbage", b""),
    ]:
        fleet.write(path, data)
    for _ in range(2):
        assert set(process.workers()) == {"w1"}
        assert set(process.nodes()) == {"w1"}
        assert process.task_names() == {TASKS[0]}
        assert set(process.assigned("w1")) == {TASKS[0]}
        assert set(process.all_assigned()) == {"w1"}
        assert len(process.queued()) == 1
        assert len(process.claims("w1")) == 1
        assert process.leader() is not None


# -- assignment


def test_moves_assign_reassign_and_revoke(process: Coordinator) -> None:
    leadership = lead(process)
    process.move([assignment(task) for task in TASKS], [], leadership)
    process.move([assignment(TASKS[0], generation=2)], [("w1", task) for task in TASKS[1:]], leadership)
    process.move([assignment(TASKS[1], "w2")], [("w1", TASKS[2]), ("nobody", TASKS[3])], leadership)
    assert process.assigned("w1") == {TASKS[0]: assignment(TASKS[0], generation=2)}
    assert process.all_assigned() == {"w1": {TASKS[0]}, "w2": {TASKS[1]}}


def test_moving_again_changes_nothing(process: Coordinator) -> None:
    leadership = lead(process)
    for _ in range(2):
        process.move([assignment(task) for task in TASKS[:20]], [("w1", task) for task in TASKS[20:]], leadership)
    assert process.assigned("w1") == {task: assignment(task) for task in TASKS[:20]}


def test_a_worker_says_yes_and_takes_it_back(process: Coordinator) -> None:
    process.own([Ownership(task, "w1", 3, "e1") for task in TASKS])
    process.own([Ownership(TASKS[0], "w1", 4, "e1")])
    process.disown("w1", TASKS[1:])
    process.disown("w1", TASKS[1:3])
    assert process.owned("w1") == {TASKS[0]: Ownership(TASKS[0], "w1", 4, "e1")}
    assert process.all_owned() == {"w1": {TASKS[0]}}
    assert process.owned("w2") == {}


def test_a_lost_worker_is_cleared_and_nobody_else(process: Coordinator) -> None:
    leadership = lead(process)
    for worker in ("w1", "w2"):
        process.move([assignment(task, worker) for task in TASKS], [], leadership)
        process.own([Ownership(task, worker, 1, "e1") for task in TASKS])
    process.clear_worker("w1", leadership)
    process.clear_worker("w1", leadership)
    assert process.all_assigned() == {"w2": set(TASKS)}
    assert process.all_owned() == {"w2": set(TASKS)}


@pytest.mark.parametrize("torn", ["/assign/w1", "/assign/w1/{bucket}", "/assign/w1/{bucket}/{znode}"])
def test_a_worker_does_not_take_a_wipe_for_revocations(fleet: Fleet, process: Coordinator, torn: str) -> None:
    leadership = lead(process)
    worker = fleet.process("w")
    assert worker.assigned("w1", watch=True) == {}
    process.move([assignment(task) for task in TASKS[:30]], [], leadership)
    process.move([assignment(TASKS[30])], [("w1", task) for task in TASKS[:5]], leadership)
    left = {task: assignment(task) for task in TASKS[5:31]}
    eventually(lambda: worker.assigned("w1", watch=True) == left, "the assignments are seen")
    fleet.wipe(torn.format(bucket=TASKS[9].bucket, znode=TASKS[9].znode))
    eventually(lambda: len(worker.assigned("w1")) < len(left), "the wipe is seen")
    with pytest.raises(UnavailableError):
        worker.assigned("w1", watch=True)
    process.move([assignment(task) for task in left], [], leadership)
    eventually(lambda: worker.assigned("w1", watch=True) == left, "the assignments are whole again")
    process.move([], [("w1", task) for task in left], leadership)
    eventually(lambda: worker.assigned("w1", watch=True) == {}, "the revocations are believed")


def test_what_has_lost_its_leadership_writes_nothing_any_more(fleet: Fleet, process: Coordinator) -> None:
    old = lead(process, "m1")
    fleet.expire(process)
    new = lead(fleet.process("two"), "m2")
    assert process.leadership() is None
    writes: list[Callable[[], None]] = [
        lambda: process.move([assignment(TASKS[0])], [], old),
        lambda: process.move([], [("w1", TASKS[0])], old),
        lambda: process.move([], [], old),
        lambda: process.clear_worker("w1", old),
        lambda: process.mark_ready(old),
        lambda: process.anchor_trail(ANCHOR, old),
    ]
    for write in writes:
        with pytest.raises(FencedError):
            write()
    assert process.all_assigned() == {}
    assert not process.is_ready()
    assert process.trail_anchor() is None
    process.move([assignment(TASKS[0])], [], new)
    assert process.all_assigned() == {"w1": {TASKS[0]}}


# -- election


def test_the_first_candidate_leads_and_the_second_follows(fleet: Fleet, process: Coordinator) -> None:
    second = fleet.process("two")
    assert process.leadership() is None
    assert process.leader() is None
    first = lead(process, "m1")
    second.campaign(LeaderNote("m2", "127.0.0.1:2", 1))
    assert second.leadership() is None
    assert second.leader() == LeaderNote("m1", "127.0.0.1:1", 1)
    bell = Bell(second)
    assert bell.rings_after(process.resign)
    eventually(lambda: second.leadership() is not None, "the second leads")
    taken = second.leadership()
    assert taken is not None
    assert taken.epoch > first.epoch
    assert process.leadership() is None
    assert second.leader() == LeaderNote("m2", "127.0.0.1:2", 1)


def test_standing_again_keeps_the_place_and_changes_the_note(fleet: Fleet, process: Coordinator) -> None:
    first = lead(process, "m1")
    fleet.process("two").campaign(LeaderNote("m2", "", 1))
    process.campaign(LeaderNote("m1", "127.0.0.1:1", 1))
    process.campaign(LeaderNote("m1", "127.0.0.1:1", 5))
    assert process.leadership() == first
    assert process.leader() == LeaderNote("m1", "127.0.0.1:1", 5)


def test_candidates_tell_the_others_whether_they_reach_mysql(fleet: Fleet, process: Coordinator) -> None:
    second, third = fleet.process("two"), fleet.process("three")
    assert process.rivals() == []
    first = lead(process, "m1")
    second.campaign(LeaderNote("m2", "", 1, reaches_mysql=True))
    third.campaign(LeaderNote("m3", "", 1, reaches_mysql=False))
    eventually(lambda: [note.id for note in process.rivals()] == ["m2", "m3"], "the others are seen, in their order")
    assert [note.reaches_mysql for note in process.rivals()] == [True, False]
    assert [note.id for note in second.rivals()] == ["m1", "m3"]
    second.campaign(LeaderNote("m2", "", 1, reaches_mysql=False))
    eventually(lambda: not any(note.reaches_mysql for note in process.rivals()), "the change is seen")
    assert [note.id for note in process.rivals()] == ["m2", "m3"], "who tells something new keeps the place"
    assert process.leadership() == first
    second.resign()
    eventually(lambda: [note.id for note in process.rivals()] == ["m3"], "who resigns is gone")


def test_a_candidate_that_cannot_be_read_is_no_rival(fleet: Fleet, process: Coordinator) -> None:
    lead(process, "m1")
    fleet.write(f"/leader/{uuid.uuid4().hex}-candidate-0000000999", b"[")
    assert process.rivals() == []


def test_an_expired_leader_is_none_and_stands_at_the_end(fleet: Fleet, process: Coordinator) -> None:
    second = fleet.process("two")
    lead(process, "m1")
    second.campaign(LeaderNote("m2", "", 1))
    fleet.expire(process)
    assert process.leadership() is None
    process.campaign(LeaderNote("m1", "", 2))
    eventually(lambda: second.leadership() is not None, "the second leads")
    assert process.leadership() is None
    second.stop()
    eventually(lambda: process.leadership() is not None, "the first leads again")


# -- the second fence


def test_a_claim_is_granted_once(fleet: Fleet, process: Coordinator) -> None:
    other = fleet.process("two")
    key, mine, theirs = RunKey(TASKS[0], FIRE_MS, 1), note("w1"), note("w2")
    assert process.claim(key, mine)
    assert process.claim(key, mine), "asked again with the same nonce it is still ours"
    assert not other.claim(key, theirs)
    assert not other.claim(key, note("w1")), "another start on the same worker is another claimant"
    assert other.claim(RunKey(TASKS[0], FIRE_MS, 2), theirs), "another attempt is another claim"
    assert other.claim(RunKey(TASKS[0], FIRE_MS + 1, 1), theirs)


def test_claims_are_carried_home_and_removed(fleet: Fleet, process: Coordinator) -> None:
    keys = [RunKey(task, FIRE_MS, attempt) for task in TASKS[:5] for attempt in (1, 2)]
    notes = {key: note("w1") for key in keys}
    for key, mine in notes.items():
        assert process.claim(key, mine)
    fleet.process("two").claim(RunKey(TASKS[9], FIRE_MS, 1), note("w2"))
    assert process.claims("w1") == notes
    assert set(process.claims(tasks=[TASKS[0], TASKS[9]])) == {*keys[:2], RunKey(TASKS[9], FIRE_MS, 1)}
    assert set(process.claims("w1", tasks=[TASKS[0], TASKS[9]])) == set(keys[:2])
    ended = ClaimNote(notes[keys[0]].nonce, "w1", RunState.SUCCEEDED)
    process.update_claim(keys[0], ended)
    assert process.claims("w1")[keys[0]] == ended
    for key in keys[1:]:
        process.drop_claim(key)
        process.drop_claim(key)
    assert set(process.claims("w1")) == {keys[0]}
    assert len(process.claims("w2")) == 1


def test_a_claim_of_another_start_cannot_be_updated(process: Coordinator) -> None:
    key, mine = RunKey(TASKS[0], FIRE_MS, 1), note("w1")
    process.claim(key, mine)
    with pytest.raises(FencedError):
        process.update_claim(key, note("w2", RunState.RUNNING))
    assert process.claims("w1") == {key: mine}


def test_an_update_restores_a_claim_that_was_wiped(fleet: Fleet, process: Coordinator) -> None:
    key, mine = RunKey(TASKS[0], FIRE_MS, 1), note("w1")
    process.claim(key, mine)
    fleet.wipe("/claims")
    process.update_claim(key, mine)
    assert not fleet.process("two").claim(key, note("w2"))


def test_two_processes_that_race_for_a_hundred_claims_never_both_win(fleet: Fleet, process: Coordinator) -> None:
    keys = [RunKey(TaskId(n, 0), FIRE_MS, 1) for n in range(1, 101)]
    racers = {"w1": process, "w2": fleet.process("two")}
    won: dict[str, set[RunKey]] = {name: set() for name in racers}
    start = threading.Barrier(len(racers))

    def race(name: str) -> None:
        start.wait()
        for key in keys:
            if racers[name].claim(key, note(name)):
                won[name].add(key)

    threads = [threading.Thread(target=race, args=(name,)) for name in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert won["w1"] | won["w2"] == set(keys)
    assert not won["w1"] & won["w2"]
    for name in racers:
        assert set(process.claims(name)) == won[name]


# -- runs on demand


def test_queued_runs_wait_until_they_are_consumed(fleet: Fleet, process: Coordinator) -> None:
    items = [QueuedRun(RunKey(task, FIRE_MS - n, 1), "ann") for n, task in enumerate(TASKS[:5])]
    for item in items:
        process.enqueue(item)
        process.enqueue(item)
    worker = fleet.process("w")
    assert worker.queued() == items[::-1], "the earliest first"
    assert worker.queued(TASKS[:2]) == items[1::-1]
    assert worker.queued([]) == []
    worker.consume(items[0].key)
    worker.consume(items[0].key)
    assert process.queued([TASKS[0]]) == []


# -- watches


def test_a_worker_is_woken_by_whatever_concerns_it(fleet: Fleet, process: Coordinator) -> None:
    worker = fleet.process("w")
    leadership = lead(process)
    bell = Bell(worker)
    task, key = TASKS[0], RunKey(TASKS[0], FIRE_MS, 1)

    def look() -> tuple[set[TaskId], dict[TaskId, bytes], int]:
        assigned = worker.assigned("w1", watch=True)
        tasks = worker.read_tasks([task], watch=True)
        return set(assigned), tasks, len(worker.queued([task], watch=True))

    assert look() == (set(), {}, 0)
    assert bell.rings_after(lambda: process.move([assignment(task)], [], leadership))
    eventually(lambda: look() == ({task}, {}, 0), "the assignment is seen")
    assert bell.rings_after(lambda: process.put_tasks({task: b"1"}))
    eventually(lambda: look() == ({task}, {task: b"1"}, 0), "the task is seen")
    assert bell.rings_after(lambda: process.put_tasks({task: b"2"}))
    eventually(lambda: look() == ({task}, {task: b"2"}, 0), "the edit is seen")
    assert bell.rings_after(lambda: process.move([assignment(task, generation=2)], [], leadership))
    eventually(lambda: worker.assigned("w1", watch=True)[task].generation == 2, "the new generation is seen")
    assert bell.rings_after(lambda: process.enqueue(QueuedRun(key, "ann")))
    eventually(lambda: look() == ({task}, {task: b"2"}, 1), "the queued run is seen")
    look()
    assert bell.rings_after(lambda: process.move([], [("w1", task)], leadership))
    eventually(lambda: look() == (set(), {task: b"2"}, 1), "the revocation is seen")


def test_a_leader_is_woken_by_whatever_concerns_it(fleet: Fleet, process: Coordinator) -> None:
    worker = fleet.process("w")
    bell = Bell(process)

    def look() -> tuple[set[str], set[str], dict[str, set[TaskId]], set[TaskId]]:
        return (
            set(process.workers(watch=True)),
            set(process.nodes(watch=True)),
            process.all_owned(watch=True),
            process.task_names(watch=True),
        )

    assert look() == (set(), set(), {}, set())
    assert bell.rings_after(lambda: worker.announce(info()))
    eventually(lambda: look() == ({"w1"}, set(), {}, set()), "the worker is seen")
    assert bell.rings_after(lambda: worker.save_node(NodeInfo("w1")))
    eventually(lambda: look() == ({"w1"}, {"w1"}, {}, set()), "the node is seen")
    assert bell.rings_after(lambda: worker.own([Ownership(TASKS[0], "w1", 1, "e1")]))
    eventually(lambda: look() == ({"w1"}, {"w1"}, {"w1": {TASKS[0]}}, set()), "the yes is seen")
    assert bell.rings_after(lambda: worker.put_tasks({TASKS[1]: b"x"}))
    eventually(lambda: look() == ({"w1"}, {"w1"}, {"w1": {TASKS[0]}}, {TASKS[1]}), "the task is seen")
    assert bell.rings_after(worker.stop)
    eventually(lambda: look() == (set(), {"w1"}, {"w1": {TASKS[0]}}, {TASKS[1]}), "the end is seen")


def test_a_process_sees_its_own_writes_at_once(process: Coordinator) -> None:
    leadership = lead(process)
    for generation in range(1, 30):
        process.move([assignment(TASKS[0], generation=generation)], [], leadership)
        assert process.assigned("w1", watch=True)[TASKS[0]].generation == generation
        process.put_tasks({TASKS[0]: str(generation).encode()})
        assert process.read_tasks([TASKS[0]], watch=True) == {TASKS[0]: str(generation).encode()}
        key = RunKey(TASKS[0], FIRE_MS, generation)
        process.enqueue(QueuedRun(key, "ann"))
        assert [item.key for item in process.queued(watch=True)] == [key]
        process.consume(key)
        assert process.queued(watch=True) == []
