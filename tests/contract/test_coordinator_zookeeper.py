"""What only a real ZooKeeper can show: rights, dead and silent servers, lost answers, forks."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from kazoo.exceptions import NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from cronkeeper.coord import connect
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.domain.run import RunState
from cronkeeper.errors import ConfigError, CronkeeperError, UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun
from tests.contract.coordinators import AUTH, RealFleet, eventually
from tests.harness.link import Link
from tests.harness.zookeeper import ZooKeeper

TASK = TaskId(1, 0)
KEY = RunKey(TASK, 1_700_000_000_000, 1)


@pytest.fixture
def fleet(zookeeper_chroot: str) -> Iterator[RealFleet]:
    fleet = RealFleet(zookeeper_chroot)
    yield fleet
    fleet.stop()


@pytest.fixture
def links(zookeeper_server: ZooKeeper) -> Iterator[list[Link]]:
    """Two ways to the one server."""
    links = [Link(zookeeper_server.members[0].client_port).start() for _ in range(2)]
    yield links
    for link in links:
        link.stop()


@pytest.fixture
def behind(links: list[Link], zookeeper_chroot: str) -> Iterator[Callable[[int], Coordinator]]:
    """Return a function that starts a process behind the first N links."""
    root = zookeeper_chroot.partition("/")[2]
    started: list[Coordinator] = []

    def start(count: int) -> Coordinator:
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in links[:count])
        process = connect(f"{hosts}/{root}", auth=AUTH, session_timeout_s=6.0, name="behind")
        started.append(process)
        process.start(15.0)
        return process

    yield start
    for link in links:
        link.heal()
    for process in started:
        process.stop()


def claim_note(worker: str = "w1") -> ClaimNote:
    return ClaimNote(uuid.uuid4().hex, worker, RunState.CLAIMED)


def use_everything(process: Coordinator) -> None:
    process.ensure_layout()
    process.campaign(LeaderNote("m1", "", 1))
    leadership = process.leadership()
    assert leadership is not None
    process.mark_ready(leadership)
    process.announce(WorkerInfo("w1", "node-1"))
    process.put_tasks({TASK: b"x"})
    process.move([Assignment(TASK, "w1", 1, 1, MoveReason.NEW, 1)], [], leadership)
    assert process.claim(KEY, claim_note())
    process.enqueue(QueuedRun(KEY, "ann"))


# -- rights


def test_nothing_in_the_tree_is_open_to_anybody_else(fleet: RealFleet) -> None:
    use_everything(fleet.process("one"))
    with fleet.admin() as admin, fleet.admin(auth="") as stranger:
        found = list(admin.walk())
        assert len(found) > 768
        for path in found:
            acls, _ = admin.client.get_acls(path)
            assert {acl.id.scheme for acl in acls} == {"digest"}, path
        for path in [*found[:20], *found[-20:]]:
            with pytest.raises(NoAuthError):
                stranger.client.get(path)
            with pytest.raises(NoAuthError):
                stranger.client.create(f"{path}/intruder")


@pytest.mark.parametrize("auth", ["cronkeeper:wrong", "other:s3cret", ""])
def test_who_has_no_right_is_told_at_the_start(fleet: RealFleet, auth: str) -> None:
    use_everything(fleet.process("one"))
    intruder = connect(fleet.hosts, auth=auth, name="intruder")
    with pytest.raises(ConfigError, match="password"):
        intruder.start(10.0)
    assert not intruder.connected


def test_a_wrong_password_is_told_even_if_the_chroot_is_open_again(fleet: RealFleet) -> None:
    use_everything(fleet.process("one"))
    with fleet.admin() as admin:
        admin.client.set_acls(admin.root, OPEN_ACL_UNSAFE)
    intruder = connect(fleet.hosts, auth="cronkeeper:wrong", name="intruder")
    with pytest.raises(ConfigError, match="password"):
        intruder.start(10.0)


def test_a_missing_chroot_is_made_and_closed(zookeeper_server: ZooKeeper) -> None:
    fleet = RealFleet(f"{zookeeper_server.hosts}/deep-{uuid.uuid4().hex}/er")
    try:
        use_everything(fleet.process("one"))
        with fleet.admin() as admin:
            for path in (admin.root, admin.root.rpartition("/")[0]):
                acls, _ = admin.client.get_acls(path)
                assert {acl.id.scheme for acl in acls} == {"digest"}, path
    finally:
        fleet.stop()


def test_closing_the_chroot_keeps_whom_an_administrator_has_named(fleet: RealFleet) -> None:
    backup = make_digest_acl("backup", "b4ckup", read=True)
    with fleet.admin() as admin:
        admin.client.set_acls(admin.root, [*OPEN_ACL_UNSAFE, backup])
        fleet.process("one")
        acls, _ = admin.client.get_acls(admin.root)
        assert backup in acls
        assert {acl.id.scheme for acl in acls} == {"digest"}
        assert len(acls) == 2


def test_without_a_password_it_works_too(zookeeper_chroot: str) -> None:
    fleet = RealFleet(zookeeper_chroot, auth="")
    try:
        use_everything(fleet.process("one"))
    finally:
        fleet.stop()


@pytest.mark.parametrize("hosts", ["", "/root", "h:1/../x", "h:port"])
def test_hosts_that_cannot_be_are_refused(hosts: str) -> None:
    with pytest.raises(ConfigError, match="zookeeper hosts"):
        connect(hosts, name="x")


@pytest.mark.parametrize("auth", ["user", ":x", "user:"])
def test_an_auth_that_cannot_be_is_refused(auth: str) -> None:
    with pytest.raises(ConfigError, match="zookeeper auth"):
        connect("127.0.0.1:1", auth=auth, name="x")


def test_the_password_and_the_payloads_are_never_logged(fleet: RealFleet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        process = fleet.process("one")
        process.put_tasks({TASK: b"payload-of-a-task"})
        process.read_tasks([TASK])
        process.stop()
    assert "s3cret" not in caplog.text
    assert "payload-of-a-task" not in caplog.text


# -- servers that are away


def test_who_starts_before_the_servers_comes_in_later(links: list[Link], zookeeper_chroot: str) -> None:
    links[0].refuse()
    process = connect(f"127.0.0.1:{links[0].port}/{zookeeper_chroot.partition('/')[2]}", auth=AUTH, name="early")
    try:
        with pytest.raises(UnavailableError):
            process.start(1.0)
        assert not process.connected
        assert process.session_id == 0
        with pytest.raises(UnavailableError):
            process.workers()
        links[0].heal()
        eventually(lambda: process.connected, "connected")
        use_everything(process)
        eventually(lambda: process.silence_s() < 6.0, "heard")
    finally:
        process.stop()


def test_a_session_survives_the_servers_restart(fleet: RealFleet, zookeeper_server: ZooKeeper) -> None:
    process = fleet.process("one")
    use_everything(process)
    session_id, leadership = process.session_id, process.leadership()
    woken = threading.Event()
    process.on_change(woken.set)
    zookeeper_server.kill_member(0)
    eventually(lambda: not process.connected, "the loss is seen")
    for call in (process.workers, process.ensure_layout, lambda: process.assigned("w1", watch=True)):
        with pytest.raises(UnavailableError):
            call()
    assert woken.is_set()
    zookeeper_server.start_member(0)
    eventually(lambda: process.connected, "connected")
    assert process.session_id == session_id
    assert set(process.workers()) == {"w1"}
    eventually(lambda: process.silence_s() < 2.0, "heard")
    assert process.leadership() == leadership


def test_servers_that_have_lost_their_data_are_gone_back_to() -> None:
    """They refuse whoever has seen a later transaction than they have; after a while it does not insist on that."""
    with ZooKeeper() as server:
        fleet = RealFleet(server.create_chroot())
        try:
            process = fleet.process("one")
            use_everything(process)
            session_id = process.session_id
            server.kill_member(0)
            server.forget()
            server.start_member(0)
            eventually(lambda: process.connected and process.session_id not in (0, session_id), "a new session", 60)
            eventually(lambda: process.silence_s() < 2.0, "heard")
            process.ensure_layout()
            process.announce(WorkerInfo("w1", "node-1"))
            assert set(process.workers()) == {"w1"}
        finally:
            fleet.stop()


def test_a_silent_server_is_left_for_another_with_the_same_session(
    behind: Callable[[int], Coordinator], links: list[Link]
) -> None:
    process = behind(2)
    use_everything(process)
    session_id = process.session_id
    # One after the other, so that the link in use is cut at least once.
    for link in links:
        link.cut()
        time.sleep(7.0)
        eventually(lambda: process.silence_s() < 2.5, "heard again")
        link.heal()
    assert process.session_id == session_id
    assert set(process.workers()) == {"w1"}


def test_the_ensembles_leader_may_die_or_fall_silent(zookeeper_ensemble: ZooKeeper) -> None:
    ensemble = zookeeper_ensemble
    fleet = RealFleet(ensemble.create_chroot())
    try:
        process = fleet.process("one")
        use_everything(process)
        session_id, leadership = process.session_id, process.leadership()
        for hurt, mend in (
            (ensemble.kill_member, ensemble.start_member),
            (ensemble.pause_member, ensemble.resume_member),
        ):
            number = ensemble.leader()
            hurt(number)
            try:
                eventually(lambda: can_write(process), "writable again", timeout_s=60.0)
            finally:
                mend(number)
            ensemble.wait_healthy()
            eventually(lambda: process.silence_s() < 2.5, "heard again")
        assert set(process.workers()) == {"w1"}
        assert process.session_id == session_id
        assert process.leadership() == leadership
    finally:
        fleet.stop()


def can_write(process: Coordinator) -> bool:
    process.put_tasks({TASK: uuid.uuid4().bytes})
    return process.silence_s() < 2.5


def test_in_silence_nobody_leads_and_no_call_takes_long(
    behind: Callable[[int], Coordinator], links: list[Link]
) -> None:
    process = behind(1)
    use_everything(process)
    assert process.is_ready(watch=True)
    links[0].cut()
    began = time.monotonic()
    eventually(lambda: process.silence_s() > 4.0, "silent")
    assert process.leadership() is None
    for call in (
        process.workers,
        lambda: process.is_ready(watch=True),
        lambda: process.put_tasks({TASK: b"y"}),
        lambda: process.claim(RunKey(TASK, 1, 1), claim_note()),
    ):
        with pytest.raises(UnavailableError):
            call()
    assert time.monotonic() - began < 60.0


def test_stopping_is_bounded_when_nobody_answers(behind: Callable[[int], Coordinator], links: list[Link]) -> None:
    process = behind(1)
    links[0].cut()
    began = time.monotonic()
    process.stop()
    assert time.monotonic() - began < 20.0
    assert not process.connected


def test_stopping_leaves_no_thread_and_no_file_behind(fleet: RealFleet) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    fleet.process("warm").stop()
    threads, files = threading.active_count(), open_files()
    fleet.process("one").stop()
    eventually(lambda: threading.active_count() <= threads, "its threads are gone")
    eventually(lambda: open_files() <= files, "its files are closed")


# -- answers that are lost


def claim_while_answers_are_lost(process: Coordinator, link: Link, note: ClaimNote) -> list[bool | CronkeeperError]:
    result: list[bool | CronkeeperError] = []

    def claim() -> None:
        try:
            result.append(process.claim(KEY, note))
        except CronkeeperError as exc:
            result.append(exc)

    link.cut(requests=False)
    thread = threading.Thread(target=claim)
    thread.start()
    time.sleep(0.3)
    link.drop()
    link.heal()
    thread.join(30.0)
    return result


def test_a_claim_whose_answer_was_lost_is_still_ours(
    fleet: RealFleet, behind: Callable[[int], Coordinator], links: list[Link]
) -> None:
    process, note = behind(1), claim_note()
    process.ensure_layout()
    assert claim_while_answers_are_lost(process, links[0], note) == [True]
    assert fleet.process("other").claims("w1") == {KEY: note}


def test_a_refusal_that_was_lost_is_still_a_refusal(
    fleet: RealFleet, behind: Callable[[int], Coordinator], links: list[Link]
) -> None:
    process, other, theirs = behind(1), fleet.process("other"), claim_note("w2")
    process.ensure_layout()
    assert other.claim(KEY, theirs)
    assert claim_while_answers_are_lost(process, links[0], claim_note()) == [False]
    assert other.claims("w2") == {KEY: theirs}


# -- processes


def test_a_coordinator_does_not_survive_a_fork(fleet: RealFleet) -> None:
    process = fleet.process("one")
    child = os.fork()
    if child == 0:
        try:
            process.workers()
        except CronkeeperError as exc:
            os._exit(7 if "fork" in str(exc) else 8)
        os._exit(9)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert process.workers() == {}


def test_many_threads_share_one_session(fleet: RealFleet) -> None:
    process = fleet.process("one")
    process.ensure_layout()
    tasks = [TaskId(n, 0) for n in range(1, 401)]
    failures: list[Exception] = []

    def work(part: int) -> None:
        try:
            for task in tasks[part::8]:
                process.put_tasks({task: str(task).encode()})
                assert process.read_tasks([task], watch=True) == {task: str(task).encode()}
        except Exception as exc:  # noqa: BLE001  # whatever it is, the main thread must show it
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert failures == []
    assert process.task_names() == set(tasks)
