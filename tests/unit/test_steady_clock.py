"""The clock of a worker whose node's clock is set: it does not jump before the database has said that it is right."""

from __future__ import annotations

import pytest

from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper_worker.steady_clock import STEP_MS, SteadyClock, is_right

HOUR_MS = 3_600_000


def heard(steady: SteadyClock, node: FakeClock, database_ms: int) -> None:
    """Beat once: the database's clock is compared with the node's."""
    node_ms, step_ms = steady.node_ms()
    assert node_ms == node.now_ms()
    steady.judge(step_ms, node_ms - database_ms)


@pytest.mark.parametrize("step_ms", [30_000, -30_000, 5 * HOUR_MS, -5 * HOUR_MS])
def test_a_step_away_from_the_database_is_left_out_for_as_long_as_it_lasts(step_ms: int) -> None:
    node = FakeClock()
    steady, right_ms = SteadyClock(node), node.now_ms()
    node.set_ms(right_ms + step_ms)
    for _ in range(5):
        heard(steady, node, right_ms)
        assert steady.now_ms() == right_ms
        assert steady.until_s(right_ms + 250) == 0.25
        node.advance_ms(1000)
        right_ms += 1000
    node.set_ms(right_ms)
    assert steady.node_ms() == (right_ms, 0)
    node.set_ms(right_ms + step_ms)
    assert steady.now_ms() == right_ms


@pytest.mark.parametrize("wrong_ms", [40_000, -40_000, 5 * HOUR_MS])
def test_a_clock_that_is_set_right_is_followed_once_the_database_agrees(wrong_ms: int) -> None:
    node = FakeClock()
    right_ms = node.now_ms() - wrong_ms
    steady = SteadyClock(node)
    heard(steady, node, right_ms)
    assert steady.now_ms() == right_ms + wrong_ms
    node.set_ms(right_ms)
    assert steady.now_ms() == right_ms + wrong_ms
    heard(steady, node, right_ms)
    assert steady.now_ms() == right_ms


def test_what_was_asked_before_a_step_does_not_judge_it() -> None:
    node = FakeClock()
    steady, right_ms = SteadyClock(node), node.now_ms()
    node_ms, step_ms = steady.node_ms()
    node.set_ms(right_ms + HOUR_MS)
    steady.judge(step_ms, node_ms - right_ms)
    assert steady.now_ms() == right_ms


def test_a_clock_that_is_slewed_is_followed_however_far() -> None:
    node = FakeClock()
    steady = SteadyClock(node)
    for _ in range(100):
        node.advance_ms(1000)
        node.set_ms(node.now_ms() + STEP_MS // 2)
        assert steady.now_ms() == node.now_ms()


def test_a_suspended_machine_is_no_step() -> None:
    node = FakeClock()
    steady = SteadyClock(node)
    node.advance_ms(8 * HOUR_MS)
    assert steady.node_ms() == (node.now_ms(), 0)


@pytest.mark.parametrize(
    ("step_ms", "offset_ms", "right"),
    [
        (600_000, 600_000, False),
        (600_000, 0, True),
        (-600_000, 1, True),
        (600_000, 590_000, False),
        (30_000, 15_000, True),
    ],
)
def test_the_clock_that_is_nearer_to_the_database_is_right(step_ms: int, offset_ms: int, right: bool) -> None:
    assert is_right(step_ms, offset_ms) is right
