"""Reading while the tree changes: what is kept is never older than what was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from cronkeeper.coord import paths
from cronkeeper.coord.client import AllPaths
from cronkeeper.coord.coordinator import ZnodeCoordinator
from cronkeeper.coord.reads import KEEP_S, PIECE, Reads
from cronkeeper.coord.requests import Answer, Children, Get, Node, Request
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import RunState
from cronkeeper.errors import UnavailableError
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryEnsemble, MemorySession
from cronkeeper.wire.znodes import ClaimNote, encode_assignment


class MeddledSession(MemorySession):
    """Lets something happen between the server's answer and our hearing it, or instead of asking."""

    def __init__(self, ensemble: MemoryEnsemble, clock: FakeClock) -> None:
        super().__init__(ensemble, clock)
        self.asked = 0
        self.after: list[Callable[[], object]] = []
        self.instead: list[Callable[[], object]] = []

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        self.asked += len(requests)
        if self.instead:
            self.instead.pop(0)()
            raise UnavailableError("the request never arrived")
        try:
            return super().run(requests)
        finally:
            if self.after:
                self.after.pop(0)()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ensemble() -> MemoryEnsemble:
    ensemble = MemoryEnsemble()
    ensemble.make_root()
    return ensemble


@pytest.fixture
def session(ensemble: MemoryEnsemble, clock: FakeClock) -> MeddledSession:
    session = MeddledSession(ensemble, clock)
    session.start(1.0)
    return session


@pytest.fixture
def reads(session: MeddledSession, clock: FakeClock) -> Reads:
    return Reads(session, clock)


def data(reads: Reads, path: str) -> bytes | None:
    node = reads.nodes([path], watch=True)[0]
    return None if node is None else node.data


def test_what_is_known_is_not_asked_again(reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession) -> None:
    ensemble.write("/a", b"1")
    for _ in range(3):
        assert data(reads, "/a") == b"1"
        assert data(reads, "/missing") is None
        assert reads.children(["/", "/missing"], watch=True) == [("a",), None]
    assert session.asked == 2 + 1 + 2 + 1, "each once, and once more for a watch on what is missing"


def test_without_a_watch_the_server_is_always_asked(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    ensemble.write("/a", b"1")
    for _ in range(3):
        reads.nodes(["/a"])
    assert session.asked == 3


def test_a_change_is_seen_whatever_was_known(reads: Reads, ensemble: MemoryEnsemble) -> None:
    for value in (b"1", b"2", b"3"):
        ensemble.write("/a", value)
        assert data(reads, "/a") == value
    ensemble.remove("/a")
    assert data(reads, "/a") is None
    assert reads.children(["/"], watch=True) == [()]
    ensemble.write("/a", b"4")
    assert data(reads, "/a") == b"4"
    assert reads.children(["/"], watch=True) == [("a",)]


def test_an_answer_that_was_overtaken_by_its_change_is_not_kept(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    ensemble.write("/a", b"old")
    session.after = [lambda: ensemble.write("/a", b"new")]
    assert data(reads, "/a") == b"old"
    assert data(reads, "/a") == b"new"


def test_a_znode_that_appears_while_we_look_is_found(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    session.after = [lambda: ensemble.write("/a", b"1")]
    assert data(reads, "/a") == b"1"
    ensemble.write("/a", b"2")
    assert data(reads, "/a") == b"2"


def test_a_znode_that_comes_and_goes_for_ever_is_given_up(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    session.after = [lambda: ensemble.write("/a", b"1"), lambda: ensemble.remove("/a")] * 20
    with pytest.raises(UnavailableError, match="comes and goes"):
        data(reads, "/a")


def test_after_a_broken_connection_nothing_is_known(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    ensemble.write("/a", b"1")
    assert data(reads, "/a") == b"1"
    session.cut()
    ensemble.write("/a", b"2")
    with pytest.raises(UnavailableError):
        data(reads, "/a")
    session.heal()
    assert data(reads, "/a") == b"2"


def test_a_lost_watch_is_made_good_after_a_minute(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession, clock: FakeClock
) -> None:
    ensemble.write("/a", b"1")
    assert data(reads, "/a") == b"1"
    ensemble.forget_watches(session)
    ensemble.write("/a", b"2")
    assert data(reads, "/a") == b"1"
    clock.advance_ms(int(KEEP_S * 1000) + 1)
    assert data(reads, "/a") == b"2"


def test_every_change_of_what_was_watched_wakes(reads: Reads, ensemble: MemoryEnsemble) -> None:
    rings: list[int] = []
    reads.on_change(lambda: rings.append(1))
    data(reads, "/a")
    changes: list[Callable[[], None]] = [
        lambda: ensemble.write("/a", b"1"),
        lambda: ensemble.write("/a", b"2"),
        lambda: ensemble.remove("/a"),
    ]
    for change in changes:
        before = len(rings)
        change()
        assert len(rings) > before
        data(reads, "/a")


def test_a_claim_is_not_repeated_with_another_session(
    ensemble: MemoryEnsemble, session: MeddledSession, clock: FakeClock
) -> None:
    process = ZnodeCoordinator(session, clock=clock)
    process.ensure_layout()
    key = RunKey(TaskId(1, 0), 1, 1)
    before = ensemble.snapshot()
    session.instead = [session.expire]
    with pytest.raises(UnavailableError):
        process.claim(key, ClaimNote("n1", "w1", RunState.CLAIMED))
    assert ensemble.snapshot() == before


def test_a_claim_that_never_arrived_is_repeated_with_the_same_session(
    ensemble: MemoryEnsemble, session: MeddledSession, clock: FakeClock
) -> None:
    process = ZnodeCoordinator(session, clock=clock)
    process.ensure_layout()
    session.instead = [lambda: None]
    assert process.claim(RunKey(TaskId(1, 0), 1, 1), ClaimNote("n1", "w1", RunState.CLAIMED))


def test_a_lost_claim_is_recognised_with_another_session(
    ensemble: MemoryEnsemble, session: MeddledSession, clock: FakeClock
) -> None:
    process = ZnodeCoordinator(session, clock=clock)
    process.ensure_layout()
    before = session.session_id
    session.after = [session.expire]
    session.lose_next_answer()
    assert process.claim(RunKey(TaskId(1, 0), 1, 1), ClaimNote("n1", "w1", RunState.CLAIMED))
    assert session.session_id != before


class Maker:
    """Makes text of what is read, and counts how often."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def __call__(self, key: int, node: Node) -> str | None:
        self.made.append(node.data)
        return None if node.data == b"bad" else f"{key}={node.data.decode()}"


def test_something_is_made_of_a_znode_once_for_each_change(reads: Reads, ensemble: MemoryEnsemble) -> None:
    make, wanted = Maker(), {"/a": 1, "/b": 2, "/missing": 3, "/bad": 4}
    ensemble.write("/a", b"x")
    ensemble.write("/b", b"y")
    ensemble.write("/bad", b"bad")
    for _ in range(3):
        assert reads.made("v", Get, wanted, make) == {1: "1=x", 2: "2=y"}
    assert sorted(make.made) == [b"bad", b"x", b"y"]
    ensemble.write("/a", b"z")
    ensemble.write("/missing", b"there")
    assert reads.made("v", Get, wanted, make) == {1: "1=z", 2: "2=y", 3: "3=there"}
    ensemble.remove("/b")
    assert reads.made("v", Get, wanted, make) == {1: "1=z", 3: "3=there"}
    ensemble.write("/b", b"again")
    assert reads.made("v", Get, wanted, make) == {1: "1=z", 2: "2=again", 3: "3=there"}


def test_after_a_minute_all_is_read_and_only_what_has_changed_is_made(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession, clock: FakeClock
) -> None:
    make, wanted = Maker(), {"/a": 1, "/b": 2}
    ensemble.write("/a", b"x")
    ensemble.write("/b", b"y")
    reads.made("v", Get, wanted, make)
    ensemble.forget_watches(session)
    ensemble.write("/b", b"new")
    asked = session.asked
    clock.advance_ms(int(KEEP_S * 1000) + 1)
    assert reads.made("v", Get, wanted, make) == {1: "1=x", 2: "2=new"}
    assert session.asked == asked + 2, "both are read: a watch may have been lost"
    assert make.made == [b"x", b"y", b"new"]


def test_after_a_broken_connection_everything_is_made_anew(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    """The servers may have lost their data, and count their changes from the beginning again."""
    make = Maker()
    ensemble.write("/a", b"x")
    reads.made("v", Get, {"/a": 1}, make)
    session.cut()
    session.heal()
    assert reads.made("v", Get, {"/a": 1}, make) == {1: "1=x"}
    assert make.made == [b"x", b"x"]


def test_what_was_made_of_something_overtaken_is_not_kept(
    reads: Reads, ensemble: MemoryEnsemble, session: MeddledSession
) -> None:
    ensemble.write("/a", b"old")
    session.after = [lambda: ensemble.write("/a", b"new")]
    reads.made("v", Get, {"/a": 1}, Maker())
    assert reads.made("v", Get, {"/a": 1}, Maker()) == {1: "1=new"}


def test_what_could_not_be_made_is_made_the_next_time_with_all_that_was_asked_for(
    reads: Reads, ensemble: MemoryEnsemble, clock: FakeClock
) -> None:
    wanted = {"/a": 1, "/b": 2}
    for path in wanted:
        ensemble.write(path, b"old")
    assert reads.made("v", Get, wanted, Maker()) == {1: "1=old", 2: "2=old"}

    def fail_at_b(key: int, node: Node) -> str:
        if key == 2:
            raise KeyError("once")
        return f"{key}={node.data.decode()}"

    for path in wanted:
        ensemble.write(path, b"new")
    clock.advance_ms(int(KEEP_S * 1000) + 1)
    with pytest.raises(KeyError):
        reads.made("v", Get, wanted, fail_at_b)
    assert reads.made("v", Get, wanted, Maker()) == {1: "1=new", 2: "2=new"}
    clock.advance_ms(int(KEEP_S * 1000) + 1)
    assert reads.made("v", Get, wanted, Maker()) == {1: "1=new", 2: "2=new"}


def test_a_make_that_fails_at_the_first_reading_is_no_answer(reads: Reads, ensemble: MemoryEnsemble) -> None:
    wanted = {"/a": 1, "/b": 2}
    for path in wanted:
        ensemble.write(path, b"x")

    def fail_at_b(key: int, _: Node) -> str:
        if key == 2:
            raise KeyError("once")
        return "lost"

    with pytest.raises(KeyError):
        reads.made("v", Get, wanted, fail_at_b)
    assert reads.made("v", Get, wanted, Maker()) == {1: "1=x", 2: "2=x"}


def test_views_are_kept_apart_and_pieces_together(reads: Reads, ensemble: MemoryEnsemble) -> None:
    count = 2 * PIECE + 1
    for number in range(count):
        ensemble.write(f"/{number}", str(number).encode())
    wanted = {f"/{number}": number for number in range(count)}
    assert reads.made("v", Get, wanted, Maker()) == {number: f"{number}={number}" for number in range(count)}
    assert reads.made("length", Get, {"/10": 10}, lambda _, node: len(node.data)) == {10: 2}
    assert data(reads, "/10") == b"10"
    assert reads.made("names", Children, {"/": 0}, lambda _, names: len(names)) == {0: count}


def test_kazoos_stand_in_calls_whoever_watches_on_this_connection() -> None:
    watched = AllPaths()
    assert list(watched.pop("/a", [])) == []
    watched["/a"].add(print)
    watched["/b"].add(print)
    assert list(watched.pop("/a", [])) == [print]
    assert list(watched.pop("/b", [])) == [print], "whatever was called before"
    assert [list(some) for some in watched.values()] == [[print]], "once, however many paths are watched"


def test_a_worker_with_many_tasks_has_all_of_them(session: MeddledSession, clock: FakeClock) -> None:
    process = ZnodeCoordinator(session, clock=clock)
    process.ensure_layout()
    given = {
        task: Assignment(task, "w1", 1, number + 7, MoveReason.NEW, 1_700_000_000_000, number)
        for number, task in enumerate(TaskId(n + 1, 0) for n in range(3 * PIECE))
    }
    for task, item in given.items():
        process._tree.change({paths.assigned("w1", task): encode_assignment(item)})
    assert process.assigned("w1", watch=True) == given
    asked = session.asked
    assert process.assigned("w1", watch=True) == given
    assert session.asked == asked
    assert process.assigned("w1") == given
    changed = Assignment(TaskId(5, 0), "w1", 2, 99, MoveReason.REBALANCE, 1, 2)
    process._tree.change({paths.assigned("w1", changed.task): encode_assignment(changed)})
    assert process.assigned("w1", watch=True) == {**given, changed.task: changed}
