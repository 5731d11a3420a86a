"""The deep search finds what the plain one finds: of the protocol as it should be, and of each rule's absence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.protocol_deep import DeepSearch
from tests.unit.protocol_model import Rules
from tests.unit.protocol_search import search

SMALL = Rules(fires=1, troubles=2)
BROKEN = [
    "reads_back",
    "waits_for_release",
    "tells_unstarted",
]


@pytest.mark.parametrize(
    "rules",
    [
        SMALL,
        Rules(fires=2, troubles=1),
        replace(SMALL, at_most_once=True),
        replace(SMALL, at_most_once=True, trusts_ledger=False),
        Rules(fires=2, troubles=2, crashes=0, pauses=0, lost_answers=0, cuts=1, carries_home=False),
        *(replace(SMALL, **{rule: False}) for rule in BROKEN),
    ],
    ids=str,
)
def test_both_searches_find_the_same_kinds_of_violations(rules: Rules) -> None:
    plain, deep = search(rules), DeepSearch(rules).run()
    assert sorted(deep.violations) == sorted(plain.violations)
    assert 0 < deep.states < plain.states, "mirror images and needless repetitions are left out"


def test_a_claim_that_mysql_may_have_granted_is_given_up_by_whom_zookeeper_refused() -> None:
    """Else neither starts it: who has the znode may die before the start, and MySQL's row is the other's."""
    rules = Rules(fires=1, crashes=1, cuts=2, pauses=0, lost_answers=1, moves=0, troubles=4)
    assert "I11 a fire that nobody runs" not in DeepSearch(rules).run().violations
    assert "I11 a fire that nobody runs" in DeepSearch(replace(rules, gives_up_doubtful=False)).run().violations


def test_it_says_when_there_are_too_many_states() -> None:
    with pytest.raises(AssertionError, match="more than 100 states"):
        DeepSearch(SMALL).run(most=100)
