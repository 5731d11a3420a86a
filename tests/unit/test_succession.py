"""Who leads when MySQL does not answer everybody: who reaches it, and the present leader if nobody does."""

from __future__ import annotations

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.errors import FencedError, UnavailableError
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_manager.reach import FRESH_S, STEADY_S, Reach
from cronkeeper_manager.succession import GIVE_WAY_S, gives_way
from tests.unit.manager_town import Manager, Town

REACHES = LeaderNote("m2", "", 0, reaches_mysql=True)
CUT = LeaderNote("m3", "", 0, reaches_mysql=False)


@pytest.mark.parametrize(
    ("case", "leads", "silent_s", "rivals", "resigns"),
    [
        ("silent for long, and another is answered", True, GIVE_WAY_S, [CUT, REACHES], True),
        ("silent for a moment", True, GIVE_WAY_S - 0.1, [REACHES], False),
        ("silent for everybody", True, 1000.0, [CUT, CUT], False),
        ("alone", True, 1000.0, [], False),
        ("just elected, and another is answered", False, 0.0, [CUT, REACHES], True),
        ("just elected, and nobody is answered", False, 0.0, [CUT], False),
        ("just elected, alone", False, 0.0, [], False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_leader_gives_way_only_to_who_reaches_mysql(
    case: str, leads: bool, silent_s: float, rivals: list[LeaderNote], resigns: bool
) -> None:
    assert gives_way(leads=leads, silent_s=silent_s, rivals=rivals) is resigns, case


# -- what a candidate tells


class Asker:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.reach = Reach(self.store, self.clock, background=False)

    def ask_for(self, seconds: float) -> list[bool]:
        answers = []
        for _ in range(round(seconds)):
            self.clock.advance_ms(1000)
            answers.append(self.reach.steady())
        return answers


def test_mysql_answers_steadily_after_some_seconds_without_a_break() -> None:
    asker = Asker()
    assert asker.reach.steady() is False
    assert asker.ask_for(STEADY_S) == [False] * (round(STEADY_S) - 1) + [True]
    asker.store.fail_next("ping")
    assert asker.ask_for(STEADY_S + 2) == [False] * (round(STEADY_S) + 1) + [True]


def test_who_was_not_asked_for_a_while_is_not_known_to_answer() -> None:
    asker = Asker()
    asker.ask_for(STEADY_S + 1)
    asker.clock.advance_ms(round(FRESH_S * 1000) + 1)
    assert asker.reach.steady() is False, "in between there may have been a break"


def test_a_store_that_answers_nobody_is_not_reached() -> None:
    asker = Asker()
    asker.store.set_available(False)
    assert not any(asker.ask_for(20))


# -- managers in a town


def _town(*managers: str) -> Town:
    town = Town("a", "b")
    town.managers += [Manager(town, name) for name in managers]
    town.run(STEADY_S + 3)
    assert [manager.leads for manager in town.managers] == [True] + [False] * len(managers)
    return town


def _run_until_somebody_begins_afresh(town: Town, seconds: float) -> Manager:
    """Return the manager whose leadership ends, and replace it by a new one of its name, as its process does."""
    for _ in range(round(seconds * 2)):
        town.clock.advance_ms(500)
        for node in town.nodes.values():
            node.beat()
            node.step()
        for index, manager in enumerate(town.managers):
            try:
                manager.step()
            except FencedError:
                assert manager.coordinator.leadership() is None, "it has resigned, and waits for no session to end"
                manager.coordinator.stop()
                town.managers[index] = Manager(town, f"m{index + 1}")
                town.managers[index].reaches_mysql = manager.reaches_mysql
                return manager
    raise AssertionError("nobody began afresh")


def test_a_leader_that_alone_is_cut_from_mysql_gives_way_and_new_jobs_are_placed() -> None:
    town = _town("m2")
    old = town.create()
    town.run(2)
    before = town.homes()
    assert TaskId(old.id, 0) in before
    first = town.managers[0]
    first.reaches_mysql = False
    assert _run_until_somebody_begins_afresh(town, GIVE_WAY_S + 2) is first
    job = town.create()
    town.run(3)
    assert [manager.leads for manager in town.managers] == [False, True]
    assert town.homes().keys() == {TaskId(old.id, 0), TaskId(job.id, 0)}
    assert {task: town.homes()[task] for task in before} == before, "nothing has moved"
    first.reaches_mysql = True
    town.run(60)
    assert [manager.leads for manager in town.managers] == [False, True], "it comes back as a follower"


def test_a_leader_waits_before_it_gives_way() -> None:
    town = _town("m2")
    town.managers[0].reaches_mysql = False
    town.run(GIVE_WAY_S - 2)
    town.managers[0].reaches_mysql = True
    town.run(GIVE_WAY_S)
    assert town.managers[0].leads


def test_while_mysql_answers_nobody_the_leader_goes_on() -> None:
    town = _town("m2", "m3")
    town.set_mysql(False)
    for _ in range(120):
        town.clock.advance_ms(500)
        town.step()
    assert [manager.leads for manager in town.managers] == [True, False, False]
    town.set_mysql(True)
    town.run(60)
    assert [manager.leads for manager in town.managers] == [True, False, False]
    town.create()
    town.run(2)
    assert len(town.homes()) == 1


def test_a_follower_without_mysql_that_is_elected_lets_the_next_one_lead() -> None:
    town = _town("m2", "m3")
    town.managers[1].reaches_mysql = False
    town.run(3)
    town.managers.pop(0).die()
    for _ in range(6):
        town.clock.advance_ms(500)
        town.step()
    assert [manager.leads for manager in town.managers] == [False, True]


def test_somebody_who_is_elected_without_mysql_and_without_rivals_waits_for_it() -> None:
    town = _town("m2")
    town.set_mysql(False)
    town.run(5)
    town.managers.pop(0).die()
    last = town.managers[0]
    for _ in range(10):
        town.clock.advance_ms(500)
        with pytest.raises(UnavailableError):
            last.step()
    town.set_mysql(True)
    town.run(2)
    assert last.leads


def test_what_a_candidate_tells_is_written_only_when_it_changes() -> None:
    town = _town("m2")
    follower = town.managers[1]
    before = town.ensemble.writes
    town.run(30)
    assert town.ensemble.writes == before
    assert [note.reaches_mysql for note in town.managers[0].coordinator.rivals()] == [True]
    follower.reaches_mysql = False
    town.run(2)
    assert town.ensemble.writes == before + 1
    assert [note.reaches_mysql for note in town.managers[0].coordinator.rivals()] == [False]
