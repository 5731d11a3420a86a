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


def test_who_was_stopped_before_its_task_was_revoked_has_decided_nothing_since() -> None:
    """Else an heir without MySQL takes the fires until the Revoke for decided, and nobody ever runs them."""
    rules = Rules(fires=1, crashes=1, cuts=1, pauses=0, lost_answers=0, moves=1, troubles=3)
    assert "I15 a fire without a decision" not in DeepSearch(rules).run().violations
    assert "I15 a fire without a decision" in DeepSearch(replace(rules, hints_are_certain=False)).run().violations


def test_it_says_when_there_are_too_many_states() -> None:
    with pytest.raises(AssertionError, match="more than 100 states"):
        DeepSearch(SMALL).run(most=100)
