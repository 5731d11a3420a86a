"""The checker, tested by mutation: a perfect history is perfect, and one spoilt in one way is spoilt in that way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.faults.checker import Kind, check
from tests.faults.checker.history import ClockSample, Event, Fault, FaultKind, OpKind, OpResult
from tests.faults.checker.report import Report
from tests.faults.checker.timeline import Key
from tests.unit.checker_mutations import MUTATIONS
from tests.unit.checker_worlds import (
    BEGIN_S,
    CHANGE_S,
    READ_S,
    JobPlan,
    make_world,
    moved,
    with_row,
    without,
)

EXAMPLES = settings(max_examples=8, deadline=None)


@st.composite
def job_plans(draw: st.DrawFn, name: str) -> JobPlan:
    """Draw a job: what it fires, how its runs end, what becomes of it, and its policies."""
    change = draw(st.sampled_from([None, None, *(OpKind.REPLACE, OpKind.PAUSE, OpKind.DELETE)]))
    exit_status = draw(st.sampled_from([0, 0, 3]))
    fields = {
        "delivery": draw(st.sampled_from(["at_least_once", "at_most_once"])),
        "misfire": draw(st.sampled_from(["latest", "all", "skip"])),
        "concurrency": draw(st.sampled_from(["forbid", "allow", "queue"])),
        "jitter_s": draw(st.sampled_from([0, 0, 2])),
        "retry": {"limit": draw(st.integers(0, 1)), "backoff_s": 1, "max_backoff_s": 1},
    }
    interval_s = 15 if change is OpKind.REPLACE else draw(st.sampled_from([15, 20, 30]))
    return JobPlan(name, interval_s, draw(st.booleans()), draw(st.integers(1, 2)), exit_status, 1.0, change, fields)


@st.composite
def recipes(draw: st.DrawFn) -> tuple[list[JobPlan], FaultKind | None, int]:
    """Draw what a world is made from: a few jobs on three nodes, a fault of one of them or none, and a seed."""
    jobs = [draw(job_plans(f"job-{number}")) for number in range(draw(st.integers(1, 4)))]
    return jobs, draw(st.sampled_from([None, FaultKind.NODE_KILLED])), draw(st.integers(0, 2**32))


@settings(max_examples=30, deadline=None)
@given(recipes())
def test_a_perfect_history_is_perfect(recipe: tuple[list[JobPlan], FaultKind | None, int]) -> None:
    report = check(make_world(*recipe).history())
    assert report.ok, report.text()
    assert report.overall.count > 0


@pytest.mark.parametrize("name", MUTATIONS)
def test_one_mutation_is_found_as_what_it_is(name: str) -> None:
    tried = 0

    @EXAMPLES
    @given(recipes())
    def find(recipe: tuple[list[JobPlan], FaultKind | None, int]) -> None:
        nonlocal tried
        world = make_world(*recipe)
        spoilt = MUTATIONS[name](world, world.history())
        assume(spoilt is not None)
        assert spoilt is not None
        tried += 1
        history, kind = spoilt
        report = check(history)
        assert {violation.kind for violation in report.violations} == {kind}, report.text()

    find()
    assert tried


# --------------------------------------------------------------------------------------- what a fault excuses


def test_a_double_of_a_cut_off_node_is_allowed_when_it_is_told() -> None:
    for delivery, told, expected in (
        ("at_least_once", True, set()),
        ("at_least_once", False, {Kind.UNREPORTED_DUPLICATE}),
        ("at_most_once", True, {Kind.AT_MOST_ONCE}),
    ):
        # The first task of job 1 is on w2, which is cut off.
        world = make_world([JobPlan("job", fields={"delivery": delivery})], FaultKind.CUT_ALL, 1)
        start = world.hurt[0]
        again = replace(start, token="again", node="w3", worker="w3", wall_s=start.wall_s + 0.3)
        world.starts.append(again)
        world.ends.append(replace(next(end for end in world.ends if end.token == start.token), token="again"))
        event = Event(int(READ_S * 1000), "run.double", start.run, "also started by w3")
        history = replace(world.history(), events=(event,) if told else ())
        assert {violation.kind for violation in check(history).violations} == expected


def test_a_double_of_a_lost_node_is_allowed_where_mysql_alone_knew_of_the_first_start_and_is_away() -> None:
    def kinds(*faults: FaultKind, told: bool = True, delivery: str = "at_least_once") -> set[Kind]:
        world = make_world([JobPlan("job", fields={"delivery": delivery})], FaultKind.NODE_KILLED, 1)
        start = world.hurt[0]
        again = replace(start, token="again", node="w3", worker="w3", wall_s=start.wall_s + 2.0)
        world.starts.append(again)
        world.ends.append(replace(next(end for end in world.ends if end.token == start.token), token="again"))
        history = world.history()
        (killed,) = history.faults
        assert killed.targets == ("w2",)
        everywhere = [replace(killed, kind=kind, targets=("mysql",)) for kind in faults if kind is FaultKind.MYSQL_DOWN]
        of_nodes = [replace(killed, kind=kind) for kind in faults if kind is not FaultKind.MYSQL_DOWN]
        event = Event(int(READ_S * 1000), "run.double", start.run, "also started by w3")
        history = replace(history, faults=(*everywhere, *of_nodes), events=(event,) if told else ())
        return {violation.kind for violation in check(history).violations}

    assert kinds(FaultKind.NODE_KILLED, FaultKind.MYSQL_DOWN) == set()
    assert kinds(FaultKind.NODE_KILLED, FaultKind.MYSQL_DOWN, told=False) == {Kind.UNREPORTED_DUPLICATE}
    assert kinds(FaultKind.NODE_KILLED, FaultKind.MYSQL_DOWN, delivery="at_most_once") == {Kind.AT_MOST_ONCE}
    assert kinds(FaultKind.NODE_KILLED) == {Kind.DUPLICATE}
    # Cut off is the first node, not the one that asked.
    assert kinds(FaultKind.NODE_KILLED, FaultKind.CUT_MYSQL) == {Kind.DUPLICATE}
    # Nobody was lost: whoever lets go of its task tells what it had decided.
    assert kinds(FaultKind.MYSQL_DOWN) == {Kind.DUPLICATE}


def test_the_row_of_a_double_says_how_its_own_worker_s_start_ended_and_nothing_of_the_other() -> None:
    def kinds(worker: str, *, killed: bool) -> set[Kind]:
        # w2 is cut off and its run never ends; w3 has started the same fire, and ended it.
        world = make_world([JobPlan("job")], FaultKind.CUT_ALL, 1)
        start = world.hurt[0]
        world.starts.append(replace(start, token="again", node="w3", worker="w3", wall_s=start.wall_s + 0.3))
        world.ends = [replace(end, token="again") if end.token == start.token else end for end in world.ends]
        history = with_row(world.history(), start, worker=worker)
        (cut,) = history.faults
        faults = (cut, replace(cut, kind=FaultKind.NODE_KILLED)) if killed else (cut,)
        event = Event(int(READ_S * 1000), "run.double", start.run, "also started by w3")
        report = check(replace(history, faults=faults, events=(event,)))
        return {violation.kind for violation in report.violations}

    assert kinds("w3", killed=True) == set()
    assert kinds("w3", killed=False) == {Kind.INCOMPLETE}
    assert kinds("w2", killed=True) == {Kind.WRONG_END}


def test_a_lost_run_may_run_again_but_not_begin_after_its_next_attempt() -> None:
    def kinds(fault: FaultKind, late_s: float) -> set[Kind]:
        # Attempt 1 is on w2, which is hurt, and began four seconds late.
        world = make_world([JobPlan("job")], fault, 1)
        fire_s = world.hurt[0].fire_ms / 1000
        world.run(1, 0, fire_s, attempt=2, late_s=late_s, node="w3")
        return {violation.kind for violation in check(world.history()).violations}

    assert kinds(FaultKind.WORKER_PAUSED, 6.0) == set()
    assert kinds(FaultKind.WORKER_PAUSED, 2.0) == {Kind.ATTEMPT_ORDER}
    assert kinds(FaultKind.CUT_ALL, 2.0) == {Kind.UNREPORTED_DUPLICATE}


def test_a_fault_excuses_only_what_it_can_cause() -> None:
    def kinds(kind: FaultKind, reason: str, **fields: object) -> set[Kind]:
        world = make_world([JobPlan("job", fields={"grace_s": 60, **fields})], kind, 1)
        gone = without(world.history(), world.hurt[0], row=False)
        history = with_row(gone, world.hurt[0], state="skipped", reason=reason, exit_code=None)
        # The other fires were late, which not all of these faults excuse.
        return {violation.kind for violation in check(history).violations} - {Kind.LATE}

    assert kinds(FaultKind.NODE_KILLED, "superseded") == set()
    assert kinds(FaultKind.NODE_KILLED, "superseded", misfire="all") == {Kind.MISSED}
    assert kinds(FaultKind.NODE_KILLED, "superseded", misfire="all", grace_s=5) == set()
    assert kinds(FaultKind.LEADER_KILLED, "superseded") == {Kind.MISSED}
    assert kinds(FaultKind.CUT_ALL, "isolated") == {Kind.MISSED}
    assert kinds(FaultKind.CUT_ALL, "isolated", delivery="at_most_once", grace_s=30) == set()


def hindered(*faults: Fault, **fields: object) -> set[Kind]:
    """Return what is held against the system when a fire of w2 did not run under these faults."""
    key, report = not_run(*faults, **fields)
    return {violation.kind for violation in report.violations if violation.key == key}


def not_run(
    *faults: Fault, reason: object = "isolated", state: object = "skipped", **fields: object
) -> tuple[Key, Report]:
    """Return a fire of w2 that did not run under these faults, and the report."""
    wanted = {"grace_s": 40, "delivery": "at_most_once", "misfire": "all", **fields}
    world = make_world([JobPlan("job", shards=2, fields=wanted)], FaultKind.NODE_KILLED, 1)
    start = next(start for start in world.hurt if start.fire_ms == (BEGIN_S + 60) * 1000)
    history = with_row(without(world.history(), start, row=False), start, state=state, reason=reason, exit_code=None)
    return (start.name, start.shard, start.fire_ms), check(replace(history, faults=faults))


def fault(kind: FaultKind, from_s: float, until_s: float, node: str = "w2") -> Fault:
    """Return a fault by seconds after the fire; what it did is recovered from 20 s after its end."""
    return Fault(kind, (node,), BEGIN_S + 60 + from_s, BEGIN_S + 60 + until_s, BEGIN_S + 60 + until_s)


def test_a_fire_that_waits_for_mysql_is_skipped_only_if_mysql_was_away_for_all_of_its_grace() -> None:
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 21)) == set()
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 19)) == {Kind.MISSED}
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 19), grace_s=5) == set()
    assert hindered(fault(FaultKind.CUT_MYSQL, 10, 60)) == {Kind.MISSED}
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 21), delivery="at_least_once") == {Kind.MISSED}


def test_one_fault_after_another_excuses_what_both_together_kept_from_running() -> None:
    """Seed 16 of the random schedules: dead when the fire was due, and without MySQL once it was back."""
    killed, cut = fault(FaultKind.WORKER_KILLED, -5, 7), fault(FaultKind.CUT_MYSQL, 16, 45)
    assert hindered(killed, cut) == set()
    assert hindered(killed) == hindered(cut) == {Kind.MISSED}
    # 27 s after the fire all is well again; what comes 3 s later is too late to be to blame.
    assert hindered(killed, fault(FaultKind.CUT_MYSQL, 31, 45)) == {Kind.MISSED}
    assert hindered(killed, fault(FaultKind.CUT_MYSQL, 16, 45, node="w3")) == {Kind.MISSED}
    # Nobody was ever without MySQL.
    assert hindered(killed, fault(FaultKind.WORKER_PAUSED, 16, 45)) == {Kind.MISSED}
    assert hindered(killed, fault(FaultKind.WORKER_PAUSED, 16, 45), reason="late", delivery="at_least_once") == set()
    assert hindered(killed, reason="superseded", delivery="at_least_once") == {Kind.MISSED}
    assert hindered(fault(FaultKind.WORKER_KILLED, -5, 30), fault(FaultKind.CUT_MYSQL, 1, 45, "w3")) == {Kind.MISSED}
    # What may run twice rather than never waits for MySQL only where somebody has been lost.
    cut = fault(FaultKind.CUT_MYSQL, -2, 45)
    assert hindered(cut, reason="late") == set()
    assert hindered(cut, reason="late", delivery="at_least_once") == {Kind.MISSED}
    assert hindered(fault(FaultKind.WORKER_KILLED, -2, 1), cut, reason="late", delivery="at_least_once") == set()
    # No fire waits for ZooKeeper, or for another node's MySQL.
    first = fault(FaultKind.CUT_MYSQL, -2, 5)
    assert hindered(first, fault(FaultKind.CUT_MYSQL, 20, 45)) == set()
    assert hindered(first, fault(FaultKind.CUT_ZOOKEEPER, 20, 45)) == {Kind.MISSED}
    assert hindered(first, fault(FaultKind.CUT_MYSQL, 20, 45, "w3")) == {Kind.MISSED}


def test_a_promised_fire_that_faults_outlasted_is_shown_to_people() -> None:
    """Seed 6 of the random schedules lost five fires by a mistake, and faults in a row excused it."""
    killed, paused = fault(FaultKind.WORKER_KILLED, -5, 7), fault(FaultKind.WORKER_PAUSED, 16, 45)
    _, report = not_run(killed, paused, reason="late", delivery="at_least_once")
    ((row, *_),) = report.outlasted
    assert row.startswith("ledger")
    assert "outlasted their grace: 1\n" in report.text()
    assert f"fault  {killed}" in report.text()
    # Nobody promised this one, and that one is held against the system.
    assert not not_run(killed, paused, reason="superseded", delivery="at_least_once", misfire="latest")[1].outlasted
    assert not not_run(killed, reason="late", delivery="at_least_once")[1].outlasted
    assert not check(make_world([JobPlan("job")], None, 1).history()).outlasted


def test_a_fire_whose_task_left_while_it_waited_need_not_wait_for_its_grace() -> None:
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 5), state="lost") == set()
    assert hindered(fault(FaultKind.WORKER_KILLED, -2, 5), state="lost") == {Kind.MISSED}
    assert hindered(fault(FaultKind.CUT_MYSQL, -2, 5), state="lost", delivery="at_least_once") == {Kind.MISSED}


def test_a_skip_is_excused_by_the_fault_of_the_node_that_decided_it() -> None:
    # w3 has the task; w2, whose clock was fast, had it when it decided.
    world = make_world([JobPlan("job", shards=2)], FaultKind.CLOCK_SKEWED, 1)
    fire_ms = world.hurt[0].fire_ms
    other = next(start for start in world.starts if (start.fire_ms, start.shard) == (fire_ms, 1))
    gone = without(world.history(), other, row=False)
    for worker, wanted in (("w2", set()), ("w3", {Kind.MISSED})):
        history = with_row(gone, other, state="skipped", reason="superseded", exit_code=None, worker=worker)
        assert {violation.kind for violation in check(history).violations} == wanted


def test_late_is_excused_where_the_fault_was_and_nowhere_else() -> None:
    # Shards 0 and 1 are on w2 and w3; w2 is hurt.
    world = make_world([JobPlan("job", shards=2)], FaultKind.NODE_KILLED, 1)
    history = world.history()
    assert check(history).ok
    hurt = world.hurt[0]
    other = next(start for start in world.starts if start.fire_ms == hurt.fire_ms and start.shard == 1)
    report = check(moved(history, other, hurt.wall_s - other.wall_s))
    assert {violation.kind for violation in report.violations} == {Kind.LATE}
    unhurt = replace(history, faults=())
    assert {violation.kind for violation in check(unhurt).violations} == {Kind.LATE}


def test_a_job_whose_creation_got_no_answer_may_run_or_not() -> None:
    world = make_world([JobPlan("job")], None, 1)
    history = world.history()
    unknown = tuple(replace(op, result=OpResult.UNKNOWN, status=None) for op in history.ops)
    assert check(replace(history, ops=unknown)).ok
    assert check(replace(history, ops=unknown, starts=(), ends=(), ledger=(), jobs=(), owners=())).ok
    refused = tuple(replace(op, result=OpResult.FAIL, status=422) for op in history.ops)
    assert {violation.kind for violation in check(replace(history, ops=refused)).violations} == {Kind.UNEXPECTED}


def test_a_run_on_demand_is_wanted() -> None:
    world = make_world([JobPlan("job")], None, 1)
    at_s = CHANGE_S + 7.0
    world.op(1, OpKind.RUN, at_s)
    world.run(1, 0, at_s + 0.02, trigger="manual")
    assert check(world.history()).ok
    unasked = replace(world.history(), ops=world.history().ops[:1])
    assert {violation.kind for violation in check(unasked).violations} == {Kind.UNEXPECTED}


def test_a_skewed_node_is_judged_by_the_reference_clock() -> None:
    world = make_world([JobPlan("job")], None, 1)
    skewed = replace(
        world.history(),
        starts=tuple(replace(start, wall_s=start.wall_s + 600) for start in world.starts),
        ends=tuple(replace(end, wall_s=end.wall_s + 600) for end in world.ends),
    )
    assert not check(skewed).ok
    first = world.starts[0]
    sample = ClockSample(first.node, first.wall_s + 600, first.boot_s, first.wall_s)
    assert check(replace(skewed, clocks=(sample,))).ok


def test_fires_within_the_grace_at_the_end_are_not_judged_after_a_fault() -> None:
    world = make_world([JobPlan("job", fields={"grace_s": 3600})], FaultKind.NODE_KILLED, 1)
    assert check(without(world.history(), world.hurt[0])).ok
    assert not check(without(world.history(), world.clean[0])).ok
