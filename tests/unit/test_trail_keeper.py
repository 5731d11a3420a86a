"""The leader and the audit trail: it is chained within a turn, anchored within a minute, and watched."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.ports import TrailQuery
from cronkeeper.wire.trail import ORIGIN, Actor, Anchor, Entry, Link, check, encode_anchor, link_all
from cronkeeper_manager.service.trail import Trail
from tests.unit.manager_town import Manager, Town

DAY_S = 86_400
_numbers = itertools.count(1)


def entry(town: Town, action: str = "job.created") -> Entry:
    nonce = f"{next(_numbers):032x}"
    return Entry(nonce, town.clock.now_ms(), Actor("1", "anna", "admin"), action, "job", "1")


def record(town: Town, count: int = 1) -> list[Entry]:
    entries = [entry(town) for _ in range(count)]
    town.store.trail.record(entries)
    return entries


def links(town: Town) -> list[Link]:
    return town.store.trail.page(TrailQuery())


def anchor(town: Town) -> Anchor:
    found = town.eyes.trail_anchor()
    assert found is not None
    return found


def rewrite(town: Town, number: int, **changes: Any) -> None:
    """Change a link as somebody with all rights in the database may."""
    rows = town.store._memory.trail
    rows[number - 1] = replace(rows[number - 1], entry=replace(rows[number - 1].entry, **changes))


def make_anew(town: Town, count: int) -> None:
    """Chain the first entries anew, with all hashes right."""
    town.store._memory.trail = link_all([replace(item.entry, new="{}") for item in links(town)[:count]], None)


@pytest.fixture
def town() -> Town:
    """A town whose leader has linked and anchored five entries."""
    town = Town("a")
    town.run(5)
    record(town, 5)
    town.run(70)
    assert anchor(town).seq == 5
    return town


def next_leader(town: Town) -> None:
    """The leader dies; another one has its term."""
    town.managers.append(Manager(town, "m2"))
    town.run(2)
    town.managers.pop(0).die()
    town.run(10)
    assert town.managers[0].leads


def verify(town: Town) -> str:
    found = Trail(town.store.trail, town.eyes).check(after=0, limit=100)
    return "" if found.fault is None else f"{found.fault.seq}: {found.fault.why}"


def test_what_was_done_is_chained_within_a_turn() -> None:
    town = Town("a")
    town.run(5)
    entries = record(town, 3)
    town.run(1)
    entries += record(town, 2)
    town.run(1)
    assert [item.entry for item in links(town)] == entries
    assert check(links(town), seq=1, prev_hash=ORIGIN) is None
    assert town.store.trail.waiting(limit=10) == []


def test_many_at_once_are_chained_in_order() -> None:
    town = Town("a")
    town.run(5)
    entries = record(town, 1700)
    town.run(1)
    assert [item.entry for item in town.store.trail.page(TrailQuery(limit=5000))] == entries


def test_an_entry_that_comes_twice_is_chained_once(town: Town) -> None:
    town.store.trail.record([links(town)[2].entry])
    [new] = record(town)
    town.run(1)
    assert [item.entry for item in links(town)[5:]] == [new]
    assert town.store.trail.waiting(limit=10) == []


@pytest.mark.parametrize("landed", [False, True])
def test_a_lost_answer_is_no_alarm(town: Town, landed: bool) -> None:
    for _ in range(3):
        record(town)
        town.store.fail_next("trail.link", landed=landed)
        town.run(3)
    town.run(70)
    assert [item.seq for item in links(town)] == list(range(1, 9))
    assert town.events("trail.broken") == []
    assert verify(town) == ""


def test_the_anchor_follows_the_chain(town: Town) -> None:
    before = anchor(town)
    assert (before.seq, before.hash, before.floor) == (5, links(town)[4].hash, 1)
    record(town)
    town.run(70)
    assert (anchor(town).seq, anchor(town).hash) == (6, links(town)[5].hash)
    assert verify(town) == ""


def test_a_new_leader_goes_on_where_the_last_one_was(town: Town) -> None:
    next_leader(town)
    record(town, 2)
    town.run(70)
    assert anchor(town).seq == 7
    assert town.events("trail.broken") == []
    assert verify(town) == ""


def test_an_anchor_that_is_gone_is_written_again(town: Town) -> None:
    before = anchor(town)
    town.ensemble.remove("/trail")
    town.run(70)
    assert anchor(town) == before
    assert town.events("trail.broken") == []


def test_a_new_leader_tells_of_a_trail_without_an_anchor(town: Town) -> None:
    town.ensemble.remove("/trail")
    next_leader(town)
    assert town.events("trail.unanchored") == ["trail"]
    assert anchor(town).seq == 5
    assert verify(town) == ""


def test_an_anchor_that_cannot_be_read_is_told_of_by_a_new_leader(town: Town) -> None:
    town.ensemble.write("/trail", b"junk")
    next_leader(town)
    assert town.events("trail.broken") == ["trail"]


def test_a_changed_entry_is_found_without_being_asked_for(town: Town) -> None:
    rewrite(town, 3, action="job.paused")
    town.run(70)
    assert town.events("trail.broken") == ["trail"]
    assert verify(town).startswith("3: its content")


def test_a_changed_newest_entry_is_found_when_the_next_is_chained(town: Town) -> None:
    rows = town.store._memory.trail
    rows[4] = link_all([replace(rows[4].entry, new="{}")], rows[3])[0]
    record(town)
    town.run(2)
    assert town.events("trail.broken") == ["trail"]
    # What was done since is told all the same.
    assert len(links(town)) == 6
    assert verify(town).startswith("5: ")


@pytest.mark.parametrize("left", [0, 3])
def test_a_chain_that_was_cut_short_is_found(town: Town, left: int) -> None:
    del town.store._memory.trail[left:]
    town.run(70)
    assert set(town.events("trail.broken")) == {"trail"}
    assert verify(town) == f"{left + 1}: the chain ends at {left}, and it was 5 long"


def test_a_chain_that_was_made_anew_is_found_by_the_next_leader(town: Town) -> None:
    make_anew(town, 5)
    next_leader(town)
    assert town.events("trail.broken") == ["trail"]
    assert verify(town).startswith("5: it is not the one that was anchored")


def test_the_evidence_is_kept(town: Town) -> None:
    before = anchor(town)
    make_anew(town, 4)
    town.run(5)
    record(town, 3)
    town.run(200)
    assert anchor(town) == before
    assert verify(town).startswith("5: it is not the one that was anchored")


def test_an_altered_anchor_is_found_and_put_right(town: Town) -> None:
    before = anchor(town)
    for forged in (encode_anchor(replace(before, seq=4)), b"junk"):
        town.ensemble.write("/trail", forged)
        town.run(70)
        assert anchor(town) == before
    assert set(town.events("trail.broken")) == {"trail"}


def test_a_forged_entry_in_the_leader_s_name_is_marked(town: Town) -> None:
    town.store.trail.record([entry(town, "trail.cut")])
    town.run(1)
    assert links(town)[-1].entry.action == "forged.trail.cut"


def test_what_is_too_old_is_cut_and_the_rest_still_holds(town: Town) -> None:
    town.clock.advance_ms(300 * DAY_S * 1000)
    record(town, 3)
    town.run(70)
    town.clock.advance_ms(150 * DAY_S * 1000)
    town.run(120)
    left = links(town)
    assert [item.seq for item in left] == [6, 7, 8, 9]
    assert left[-1].entry.action == "trail.cut"
    assert anchor(town).floor == 6
    assert verify(town) == ""
    assert town.events("trail.broken") == []
    # Also when ZooKeeper has forgotten what was cut.
    town.ensemble.remove("/trail")
    assert verify(town) == ""
    next_leader(town)
    assert anchor(town).floor == 6
    assert verify(town) == ""
    assert town.events("trail.broken") == []


def test_a_cut_that_nobody_announced_is_a_theft(town: Town) -> None:
    del town.store._memory.trail[:2]
    assert verify(town).startswith("1: the chain begins at 3")
    town.ensemble.remove("/trail")
    assert verify(town).startswith("1: the chain begins at 3")
    next_leader(town)
    assert town.events("trail.broken") == ["trail"]


def test_the_newest_link_is_never_cut(town: Town) -> None:
    town.clock.advance_ms(1000 * DAY_S * 1000)
    town.run(120)
    assert [item.entry.action for item in links(town)][-1] == "trail.cut"
    assert verify(town) == ""
