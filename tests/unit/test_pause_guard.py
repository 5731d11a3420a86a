"""A process that was paused decides nothing before it has looked again."""

from __future__ import annotations

import pytest

from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper_worker.pause_guard import HOLD_S, LOOK_AGAIN_S, PAUSE_S, PauseGuard


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.heard_s = self.clock.boot_s()
        self.looks = 0
        self.guard = PauseGuard(self.clock, lambda: self.heard_s)
        self.step = self.guard.around(self._look)

    def _look(self) -> float:
        self.looks += 1
        return 10.0

    def run(self, seconds: float) -> None:
        """Let time pass while the process runs."""
        for _ in range(round(seconds * 2)):
            self.clock.advance_ms(500)
            self.guard.beat()


@pytest.fixture
def world() -> World:
    made = World()
    made.run(5)
    return made


def test_a_process_that_runs_holds_nothing(world: World) -> None:
    assert not world.guard.holds()
    assert world.step() == 10.0


@pytest.mark.parametrize(("seconds", "held"), [(3.9, False), (PAUSE_S, False), (4.6, True), (3600.0, True)])
def test_a_pause_holds_whoever_finds_it_first(world: World, seconds: float, held: bool) -> None:
    world.clock.advance_ms(round(seconds * 1000))
    assert world.guard.holds() is held


def test_a_pause_wakes_who_looks(world: World) -> None:
    woken = []
    world.guard.on_pause = lambda: woken.append(1)
    world.clock.advance_ms(30_000)
    world.guard.beat()
    assert woken == [1]
    assert world.guard.holds()
    assert woken == [1]


def test_a_look_over_an_old_connection_does_not_count(world: World) -> None:
    world.clock.advance_ms(30_000)
    assert world.guard.holds()
    assert world.step() == LOOK_AGAIN_S
    assert world.guard.holds()
    world.run(0.5)
    world.heard_s = world.clock.boot_s()
    assert world.step() == 10.0
    assert not world.guard.holds()


def test_what_was_sent_before_the_pause_was_found_says_nothing(world: World) -> None:
    world.clock.advance_ms(30_000)
    world.heard_s = world.clock.boot_s()
    assert world.guard.holds()
    assert world.step() == LOOK_AGAIN_S
    assert world.guard.holds()


def test_what_is_heard_during_a_look_is_for_the_next_look(world: World) -> None:
    def look() -> float:
        # It has read our tasks already when the connection turns out to live.
        world.heard_s = world.clock.boot_s()
        return 10.0

    world.clock.advance_ms(30_000)
    assert world.guard.holds()
    world.run(0.5)
    assert world.guard.around(look)() == LOOK_AGAIN_S
    assert world.guard.holds()


def test_a_pause_in_the_middle_of_a_look_is_not_ended_by_it(world: World) -> None:
    def look() -> float:
        world.clock.advance_ms(30_000)
        world.guard.beat()
        return 10.0

    world.clock.advance_ms(30_000)
    assert world.guard.holds()
    world.run(0.5)
    world.heard_s = world.clock.boot_s()
    assert world.guard.around(look)() == LOOK_AGAIN_S
    assert world.guard.holds()


def test_a_look_that_fails_does_not_count(world: World) -> None:
    def fail() -> float:
        raise OSError("ZooKeeper is away")

    world.clock.advance_ms(30_000)
    world.guard.beat()
    world.run(0.5)
    world.heard_s = world.clock.boot_s()
    with pytest.raises(OSError, match="away"):
        world.guard.around(fail)()
    assert world.guard.holds()


def test_without_zookeeper_the_node_goes_on_by_itself(world: World) -> None:
    world.clock.advance_ms(30_000)
    assert world.guard.holds()
    world.run(HOLD_S)
    assert world.guard.holds()
    world.run(1)
    assert not world.guard.holds()
