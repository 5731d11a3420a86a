"""The protocol, exhaustively: all interleavings within bounds, the one hole it has, and that no rule can be left out.

Bounds here are small enough for every day. `CRONKEEPER_EXAMPLES=1000` (or more) widens them: minutes, and a GiB or two.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.unit.protocol_deep import bounded
from tests.unit.protocol_hole import (
    BOTH_ALONE,
    DEEPER,
    HOLE,
    SECOND_ATTEMPT,
    SECOND_ATTEMPT_WAY,
    SHORTEST,
    is_hole,
)
from tests.unit.protocol_model import Grant, Rules, begin
from tests.unit.protocol_search import Found, search
from tests.unit.protocol_steps import steps

WIDE = int(os.environ.get("CRONKEEPER_EXAMPLES", "0")) >= 1000
#: One fire with every pair of troubles; two and three fires with every single one.
SMALL = [Rules(fires=1, troubles=2), Rules(fires=2, troubles=1)]
LARGE = [Rules(fires=1, troubles=3), Rules(fires=2, troubles=2), Rules(fires=3, troubles=1)] if WIDE else []


#: Bounds that are searched in a second or less.
QUICK = [(0, 0, 1, 2, 0), (0, 0, 2, 1, 0), (0, 2, 0, 1, 0), (0, 2, 0, 2, 0)]


@functools.cache
def explore(rules: Rules) -> Found:
    found = search(rules)
    print(found.words())
    return found


@pytest.mark.parametrize("rules", SMALL + LARGE, ids=lambda rules: f"{rules.fires}-fires-{rules.troubles}-troubles")
def test_t59_at_least_once_has_the_known_hole_and_no_other(rules: Rules) -> None:
    found = explore(rules)
    assert [kind for kind in found.violations if not is_hole(kind)] == [], found.words()


def test_the_hole_is_just_this() -> None:
    found = explore(Rules(fires=1, troubles=2))
    assert {kind: list(trace) for kind, trace in found.violations.items()} == SHORTEST
    # It takes two troubles: with a single one, no fire is started twice, whatever the interleaving.
    assert explore(Rules(fires=1, troubles=1)).violations == {}


def follow(rules: Rules, names: Sequence[str]) -> tuple[str, int]:
    """Go a way, step by step; return what its last step breaks, and how many troubles are left then."""
    state, broken = begin(rules), ""
    for name in names:
        assert broken == "", "nothing is broken on the way"
        (step,) = (step for step in steps(state, rules) if step.name == name)
        state, broken = step.state, step.broken
    return broken, state.troubles


WAYS = [(kind, Rules(fires=1, troubles=2), names) for kind, names in SHORTEST.items()]
WAYS += [(kind, bounded(1, *way.troubles), way.steps) for kind, way in DEEPER.items()]


@pytest.mark.parametrize(("kind", "rules", "names"), WAYS, ids=[kind for kind, _, _ in WAYS])
def test_each_kind_of_the_hole_has_its_way(kind: str, rules: Rules, names: Sequence[str]) -> None:
    assert follow(rules, names) == (kind, 0)


@pytest.mark.parametrize("kind", [kind for kind, way in DEEPER.items() if WIDE or way.troubles in QUICK])
def test_no_way_is_shorter(kind: str) -> None:
    way = DEEPER[kind]
    assert explore(bounded(1, *way.troubles)).violations[kind] == way.steps


def test_a_second_attempt_that_each_fence_grants_is_no_part_of_the_hole() -> None:
    """Only with four troubles, beyond the bounds: each of the two starts was rightfully granted."""
    assert follow(bounded(1, *SECOND_ATTEMPT_WAY.troubles), SECOND_ATTEMPT_WAY.steps) == (SECOND_ATTEMPT, 0)
    assert not is_hole(SECOND_ATTEMPT)


def test_no_kind_of_the_hole_has_two_rightful_starts_or_two_by_mysql() -> None:
    beside = {Grant.AUTONOMOUS, Grant.OUTDATED_AUTONOMOUS, Grant.OUTDATED_ZOOKEEPER, Grant.OUTDATED_MYSQL}
    for kind in HOLE:
        invariant, _, rest = kind.partition(" ")
        grants = [Grant[name.upper()] for name in rest.split(" and ")]
        assert invariant in ("I2", "Z")
        assert beside.intersection(grants), kind
        # Where both starts were granted in the same way, the kind names that once.
        by_mysql = [grant for grant in grants if grant in (Grant.MYSQL, Grant.OUTDATED_MYSQL)]
        assert len(by_mysql) <= (1 if len(grants) == 2 else 0), kind
    assert not DEEPER.keys() & SHORTEST.keys()
    assert not HOLE & {*BOTH_ALONE, SECOND_ATTEMPT}


@pytest.mark.parametrize("kind", [
    "I2 mysql", "I2 zookeeper", "I2 mysql and zookeeper", "I2 mysql and outdated_mysql", "I2 outdated_mysql",
    "I2 autonomous",    "Z mysql", "Z outdated_mysql", "Z autonomous", "I3", "I4", "I11 a fire that nobody runs",
    "I12 a claim on which nobody acts", "I13 not one owner", "I15 a fire without a decision",
])  # fmt: skip
def test_everything_else_is_a_fault(kind: str) -> None:
    assert not is_hole(kind)


@pytest.mark.parametrize("rules", SMALL + LARGE, ids=lambda rules: f"{rules.fires}-fires-{rules.troubles}-troubles")
def test_t59_at_most_once_has_no_hole(rules: Rules) -> None:
    found = explore(replace(rules, at_most_once=True))
    assert found.violations == {}, found.words()


def without(rule: str, **bounds: int) -> set[str]:
    """Return what leaving out a rule brings about that was not there before."""
    rules = replace(Rules(fires=1, troubles=2), **bounds)  # type: ignore[arg-type]
    return set(explore(replace(rules, **{rule: False})).violations) - set(explore(rules).violations)


@pytest.mark.parametrize(
    ("rule", "breaks"),
    [
        ("reads_back", "I11 a fire that nobody runs"),
        ("refuses_lost", "Z outdated_mysql"),
        ("waits_for_release", "I2 mysql and zookeeper"),
        ("catches_up", "I15 a fire without a decision"),
        ("asks_zookeeper", "I2 autonomous and outdated_mysql"),
        ("orders_expire", "Z mysql"),
        ("looks_for_lost", "I11 a fire that nobody runs"),
        ("hints_by_ledger", "I2 mysql and zookeeper"),
        ("tells_unstarted", "I11 a fire that nobody runs"),
    ],
)
def test_no_rule_can_be_left_out(rule: str, breaks: str) -> None:
    assert breaks in without(rule)


def test_a_claim_in_zookeeper_that_is_not_carried_home_is_run_again_by_the_next_owner() -> None:
    a_cut_and_a_move = {"fires": 2, "crashes": 0, "pauses": 0, "lost_answers": 0, "cuts": 1}
    assert "I2 mysql and zookeeper" in without("carries_home", **a_cut_and_a_move)


def test_a_fire_that_waited_for_mysql_is_not_forgotten_with_its_worker() -> None:
    assert "I15 a fire without a decision" in without("trusts_ledger", at_most_once=True)


def test_a_claim_that_was_never_heard_does_not_stay_when_its_task_has_gone() -> None:
    assert "I12 a claim on which nobody acts" in without("gives_up_doubtful", at_most_once=True)


def test_under_at_most_once_it_is_mysql_alone_that_counts() -> None:
    rules = Rules(fires=1, troubles=2, at_most_once=True)
    for less in (replace(rules, asks_zookeeper=False), replace(rules, carries_home=False)):
        assert explore(less).violations == {}


def test_the_model_begins_with_one_owner_and_nothing_due() -> None:
    rules = Rules()
    first = begin(rules)
    assert [worker.has_task for worker in first.workers] == [True, False]
    names = [step.name for step in steps(first, rules)]
    assert "fire 1 falls due" in names
    assert len(names) == len(set(names))
