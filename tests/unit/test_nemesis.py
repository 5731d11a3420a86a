"""What the fault trials draw from a seed: schedules of faults, groups of hosts to part, and the standard load."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.checker.history import FaultKind
from tests.faults.nemesis import bridge, majority_ring, random_half
from tests.faults.random_schedule import ALONE, MENU, Names, Step, draw_schedule
from tests.faults.trial import outcome
from tests.faults.workload import plan_std
from tests.harness.cluster import Answer

NAMES = Names(("w1", "w2", "w3"), ("m1", "m2"), ("api-1",), ("zookeeper-1", "zookeeper-2", "zookeeper-3"))
SEEDS = st.integers(min_value=0, max_value=2**32)
HOSTS = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=5, max_size=15, unique=True)
CUTS = {"cut_zookeeper", "cut_mysql", "cut_all", "cut_replies", "partition"}


def overlapping(steps: list[Step]) -> list[tuple[Step, Step]]:
    return [(a, b) for a, b in combinations(steps, 2) if a.start_s < b.end_s and b.start_s < a.end_s]


@given(SEEDS, st.floats(min_value=30, max_value=600))
@settings(max_examples=150)
def test_a_schedule_stays_in_its_time_and_its_fleet_and_never_stops_a_part_twice(seed: int, duration_s: float) -> None:
    steps = draw_schedule(seed, duration_s, NAMES)
    assert steps == draw_schedule(seed, duration_s, NAMES)
    assert [step.start_s for step in steps] == sorted(step.start_s for step in steps)
    known = {*NAMES.everybody, "s3"}
    for step in steps:
        assert 0 < step.start_s < step.end_s <= round(duration_s, 1)
        assert step.targets
        assert set(step.targets) <= known
    for one, other in overlapping(steps):
        assert not {one.kind, other.kind} & ALONE
        if not {one.kind, other.kind} & CUTS:
            assert not set(one.targets) & set(other.targets)


def test_every_kind_on_the_menu_turns_up_and_schedules_differ() -> None:
    schedules = [draw_schedule(seed, 300, NAMES) for seed in range(60)]
    assert {step.kind for steps in schedules for step in steps} == {kind for kind, _, _ in MENU}
    assert len({tuple(steps) for steps in schedules}) == 60
    counts = [len(steps) for steps in schedules]
    assert min(counts) >= 5
    assert any(overlapping(steps) for steps in schedules)


@given(HOSTS, SEEDS)
def test_halves_have_the_same_size(hosts: list[str], seed: int) -> None:
    half = random_half(hosts, random.Random(seed))
    assert set(half) <= set(hosts)
    assert len(half) == len(hosts) // 2


@given(HOSTS, SEEDS)
def test_in_a_majority_ring_each_sees_a_majority_and_somebody_is_out_of_sight(hosts: list[str], seed: int) -> None:
    cut = {frozenset(pair) for pair in majority_ring(hosts, random.Random(seed))}
    seen = {host: {other for other in hosts if frozenset({host, other}) not in cut} for host in hosts}
    for host in hosts:
        assert len(seen[host]) > len(hosts) / 2
        assert seen[host] != set(hosts)
    assert len({frozenset(group) for group in seen.values()}) == len(hosts)


@given(HOSTS, SEEDS)
def test_a_bridge_leaves_one_host_that_sees_all(hosts: list[str], seed: int) -> None:
    cut = {frozenset(pair) for pair in bridge(hosts, random.Random(seed))}
    whole = [host for host in hosts if not any(host in pair for pair in cut)]
    assert len(whole) == 1
    rest = [host for host in hosts if host not in whole]
    left = {host for host in rest if frozenset({host, rest[0]}) not in cut}
    assert cut == {frozenset({a, b}) for a in left for b in rest if b not in left}
    assert 0 < len(left) < len(rest)


def test_the_standard_load_has_its_shares() -> None:
    planned = plan_std(40, 7)
    assert planned == plan_std(40, 7)
    assert planned != plan_std(40, 8)
    assert len({one.name for one in planned}) == 40
    assert sum(one.sleep_s > 0 for one in planned) == 4
    assert sum(one.exit_status > 0 for one in planned) == 4
    assert sum(one.fields.get("delivery") == "at_most_once" for one in planned) == 4
    assert sum(one.fields.get("shards", 1) > 1 for one in planned) == 4
    assert sum("timezone" in one.fields for one in planned) == 4
    assert sum(str(one.fields["schedule"]).startswith("@every") for one in planned) == 4


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "unknown"),
        (Answer(201, {}, b"{}"), "ok"),
        (Answer(404, {}, b"{}"), "fail"),
        (Answer(503, {}, b'{"type": "/problems/unavailable"}'), "fail"),
        (Answer(503, {}, b'{"type": "/problems/busy"}'), "unknown"),
        (Answer(502, {}, b'{"type": "/problems/no-answer"}'), "unknown"),
        (Answer(504, {}, b"not JSON"), "unknown"),
        (Answer(500, {}, b"[]"), "unknown"),
    ],
)
def test_what_an_answer_says_of_what_was_asked(answer: Answer | None, expected: str) -> None:
    assert outcome(answer) == expected


def test_every_kind_of_fault_can_be_done() -> None:
    from tests.faults.nemesis import STRIKES

    assert set(STRIKES) == set(FaultKind)
