"""The protocol's model searched whole for several accidents at once, by the compiled search.

It is held against the Python model first: step by step on random ways, and search by search. Then every interleaving of
two workers within each of BOUNDS is looked at: `python -m pytest tests/soak/test_protocol_deep.py`, minutes of a core.
`CRONKEEPER_EXAMPLES=1000` (or more) adds WIDEST: some minutes more, and 7 GiB.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
from dataclasses import replace

import pytest

from tests.soak.protocol_compiled import FLAGS, search_deep, silence_of, steps_after
from tests.unit.protocol_deep import KINDS, DeepSearch, bounded
from tests.unit.protocol_hole import BOTH_ALONE, DEEPER, HOLE, SECOND_ATTEMPT, SHORTEST, is_hole
from tests.unit.protocol_model import Rules, State, begin
from tests.unit.protocol_search import _silence
from tests.unit.protocol_steps import steps

pytestmark = pytest.mark.timeout(3_600)
WIDE = int(os.environ.get("CRONKEEPER_EXAMPLES", "0")) >= 1000
#: Fires, and then how many of each of KINDS: crashes, cuts, pauses, lost answers, moves.
BOUNDS = [
    (1, 2, 1, 0, 1, 0), (1, 1, 2, 0, 1, 0), (1, 1, 1, 1, 1, 0), (1, 1, 1, 0, 1, 1), (1, 2, 2, 0, 0, 0),
    (2, 2, 1, 0, 1, 0), (3, 1, 1, 0, 1, 0),
]  # fmt: skip
#: Three fires and all of it at once.
WIDEST = [(3, 2, 1, 0, 1, 0)] if WIDE else []
#: Beside the hole. Somebody knows, by its own node's death, that its first attempt is lost, and is not heard by MySQL,
#: where the second attempt was granted to another one meanwhile: ZooKeeper grants it again. And it grants a third time
#: what was claimed there, once the report of that run has taken its znode away.
BEYOND: dict[tuple[int, ...], list[str]] = {
    (1, 2, 2, 0, 1, 0): ["I2 mysql and zookeeper", "I2 zookeeper"],
    (1, 1, 1, 1, 0, 1): ["I2 mysql and zookeeper"],
}


@functools.cache
def whole(rules: Rules) -> dict[str, State]:
    """Search all of it; return a state before each kind of violation."""
    states, found = search_deep(rules, slots_log2=28 if rules.fires == 3 else 24)
    print(f"{states} states, {sorted(found)}: {rules}")
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_compiled_model_is_the_python_model_step_by_step(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(5):
        flags = {flag: chosen.random() > 0.15 for flag in FLAGS} if seed % 2 else {}
        fires, once = chosen.choice([1, 2, 3]), chosen.random() < 0.4
        rules = replace(bounded(fires, 3, 3, 2, 2, 2, at_most_once=once), troubles=chosen.choice([3, 6, 9]), **flags)
        state = begin(rules)
        for _ in range(40):
            after = [(step.state, step.broken) for step in steps(state, rules)]
            assert steps_after(state, rules) == after, f"{rules}: {state}"
            if chosen.random() < 0.1:
                assert silence_of(state, rules) == _silence(state, rules, {}), f"{rules}: {state}"
            sound = [one for one, broken in after if not broken]
            if not sound:
                break
            state = chosen.choice(sound)


@pytest.mark.parametrize(
    ("bounds", "changes"),
    [
        ((1, 1, 1, 0, 1, 0), {}),
        ((2, 1, 1, 0, 0, 0), {}),
        ((1, 1, 1, 0, 1, 1), {"at_most_once": True}),
        ((1, 0, 1, 0, 2, 1), {}),
        *(((1, 1, 1, 0, 0, 1), {flag: False}) for flag in FLAGS),
    ],
    ids=str,
)
def test_both_searches_go_through_the_same_states(bounds: tuple[int, ...], changes: dict[str, bool]) -> None:
    rules = replace(bounded(*bounds), **changes)
    states, found = search_deep(rules)
    slowly = DeepSearch(rules).run()
    assert (states, sorted(found)) == (slowly.states, sorted(slowly.violations))


def test_it_says_when_there_are_too_many_states() -> None:
    with pytest.raises(MemoryError, match="more states than"):
        search_deep(bounded(1, 1, 1, 0, 1, 0), slots_log2=10)


@pytest.mark.parametrize("bounds", [*BOUNDS, *WIDEST, *BEYOND], ids=str)
def test_the_known_hole_is_the_only_one(bounds: tuple[int, ...]) -> None:
    found = whole(bounded(*bounds))
    assert sorted(kind for kind in found if not is_hole(kind)) == BEYOND.get(bounds, []), found
    assert any(map(is_hole, found)), "the hole itself is found"


@pytest.mark.parametrize("bounds", [*BOUNDS, *WIDEST, *BEYOND], ids=str)
def test_under_at_most_once_there_is_none(bounds: tuple[int, ...]) -> None:
    assert whole(bounded(*bounds, at_most_once=True)) == {}


#: With four troubles of one fire: these, or more, let a second attempt be granted by each fence.
SECOND_ATTEMPTS = [
    (1, 0, 1, 1, 1), (1, 0, 2, 1, 0), (1, 1, 1, 0, 1), (1, 1, 2, 0, 0),
    (2, 0, 0, 1, 1), (2, 0, 1, 1, 0), (2, 1, 0, 0, 1), (2, 1, 1, 0, 0),
]  # fmt: skip


def with_troubles(number: int, *, at_most_once: bool = False) -> dict[str, list[tuple[int, ...]]]:
    """Search all bounds of one fire with so many troubles, at most two of a kind; return where each violation shows."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for most in itertools.product(range(3), repeat=len(KINDS)):
        if sum(most) == number:
            for kind in search_deep(bounded(1, *most, at_most_once=at_most_once), slots_log2=20)[1]:
                found.setdefault(kind, []).append(most)
    return found


def test_each_kind_of_the_hole_takes_as_many_troubles_as_its_way_has() -> None:
    by_troubles = {2: set(SHORTEST)}
    for kind, way in DEEPER.items():
        by_troubles.setdefault(sum(way.troubles), set()).add(kind)
    assert with_troubles(1) == {}
    assert with_troubles(2).keys() == by_troubles[2]
    assert with_troubles(3).keys() == by_troubles[2] | by_troubles[3]
    four = with_troubles(4)
    assert four.keys() - BOTH_ALONE - {SECOND_ATTEMPT} == HOLE
    assert {tuple(four[kind]) for kind in BOTH_ALONE} == {((0, 2, 0, 2, 0),)}
    assert four[SECOND_ATTEMPT] == SECOND_ATTEMPTS


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_under_at_most_once_no_troubles_make_one(number: int) -> None:
    assert with_troubles(number, at_most_once=True) == {}


#: Bounds within which the absence of each rule shows, and as what.
NEEDED: dict[str, tuple[tuple[int, ...], str]] = {
    "reads_back": ((1, 2, 1, 0, 1, 0), "I11 a fire that nobody runs"),
    "refuses_lost": ((1, 2, 1, 0, 1, 0), "Z outdated_mysql"),
    "waits_for_release": ((1, 1, 1, 0, 1, 1), "I2 mysql and zookeeper"),
    "catches_up": ((1, 2, 1, 0, 1, 0), "I15 a fire without a decision"),
    "asks_zookeeper": ((1, 2, 1, 0, 1, 0), "I2 autonomous"),
    "orders_expire": ((1, 1, 1, 1, 1, 0), "Z mysql"),
    "carries_home": ((2, 2, 1, 0, 1, 0), "I2 mysql and zookeeper"),
    "looks_for_lost": ((1, 2, 1, 0, 1, 0), "I11 a fire that nobody runs"),
    "hints_are_certain": ((1, 1, 1, 0, 1, 1), "I15 a fire without a decision"),
    "hints_by_ledger": ((1, 1, 1, 0, 1, 1), "I2 mysql and zookeeper"),
    "tells_unstarted": ((1, 1, 1, 0, 1, 1), "I11 a fire that nobody runs"),
    "gives_up_doubtful": ((1, 1, 2, 0, 1, 0), "I11 a fire that nobody runs"),
}


@pytest.mark.parametrize("rule", NEEDED)
def test_the_oracle_sees_each_rule_that_is_taken_away(rule: str) -> None:
    bounds, breaks = NEEDED[rule]
    assert not is_hole(breaks)
    assert breaks in whole(replace(bounded(*bounds), **{rule: False}))
