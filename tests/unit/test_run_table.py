"""The one transition table is DESIGN's, and nothing leaves an end."""

from __future__ import annotations

import itertools

import pytest

from cronkeeper.domain.run import (
    ACTIVE,
    TERMINAL,
    TRANSITIONS,
    UNSUCCESSFUL,
    RunEvent,
    RunState,
    advance,
    predecessors,
    reachable_from,
)
from cronkeeper.errors import IllegalTransitionError

#: The table as users are shown it: state, then event and the state after it.
PUBLISHED = """
pending  claim     claimed
pending  skip      skipped
pending  cancel    cancelled
claimed  start     running
claimed  release   pending
claimed  lose      lost
running  exit_ok   succeeded
running  exit_error failed
running  time_out  timed_out
running  cancel    cancelled
running  lose      lost
lost     exit_ok   succeeded
lost     exit_error failed
"""
ENDS = {"skipped", "cancelled", "succeeded", "failed", "timed_out"}


def published() -> dict[tuple[str, str], str]:
    rows = [line.split() for line in PUBLISHED.split("\n") if line]
    return {(old, event): new for old, event, new in rows}


def test_the_table_is_the_published_one() -> None:
    assert {(str(old), str(event)): str(new) for (old, event), new in TRANSITIONS.items()} == published()


def test_the_ends_are_the_published_ones() -> None:
    assert {str(state) for state in TERMINAL} == ENDS


@pytest.mark.parametrize(("old", "event"), list(itertools.product(RunState, RunEvent)))
def test_advance_follows_the_table_and_refuses_everything_else(old: RunState, event: RunEvent) -> None:
    expected = published().get((old, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f"{old} -> {event}"):
            advance(old, event)
    else:
        assert advance(old, event) == expected


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_nothing_leaves_an_end(end: RunState) -> None:
    assert reachable_from(end) == frozenset()


@pytest.mark.parametrize("state", sorted(set(RunState) - TERMINAL))
def test_every_other_state_leads_to_an_end(state: RunState) -> None:
    assert reachable_from(state) & TERMINAL


def test_every_state_is_reached_from_pending() -> None:
    assert reachable_from(RunState.PENDING) | {RunState.PENDING} == frozenset(RunState)


def test_a_run_that_runs_is_never_taken_back() -> None:
    assert not reachable_from(RunState.RUNNING) & {RunState.PENDING, RunState.CLAIMED, RunState.SKIPPED}


def test_only_a_claimed_run_starts() -> None:
    assert predecessors(RunState.RUNNING) == {RunState.CLAIMED}


def test_a_worker_can_lose_exactly_its_active_runs() -> None:
    assert predecessors(RunState.LOST) == ACTIVE


def test_the_truth_about_a_lost_run_may_still_arrive() -> None:
    assert reachable_from(RunState.LOST) == {RunState.SUCCEEDED, RunState.FAILED}


def test_an_error_is_an_end_or_a_loss() -> None:
    assert {RunState.FAILED, RunState.TIMED_OUT, RunState.LOST} == UNSUCCESSFUL
