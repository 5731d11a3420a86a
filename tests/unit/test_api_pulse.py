"""What health checks are told while one of them is asking the store."""

from __future__ import annotations

from collections.abc import Callable

from cronkeeper.errors import UnavailableError
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper_api.services import Pulse


class Asked:
    """A pulse whose store does, while it is asked, whatever the test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.meanwhile: Callable[[], None] = lambda: None
        self.pings = 0
        self.pulse = Pulse(self._ping, self.clock)

    def _ping(self) -> None:
        self.pings += 1
        self.meanwhile()


def test_a_store_is_asked_once_a_second() -> None:
    asked = Asked()
    assert [asked.pulse.beats() for _ in range(3)] == [True] * 3
    assert asked.pings == 1
    asked.clock.advance_ms(1000)
    assert asked.pulse.beats()
    assert asked.pings == 2


def test_checks_that_come_rarely_and_together_are_all_told_yes() -> None:
    asked, told = Asked(), list[bool]()
    assert asked.pulse.beats()
    asked.clock.advance_ms(60_000)
    asked.meanwhile = lambda: told.append(asked.pulse.beats())
    assert asked.pulse.beats()
    assert told == [True]
    assert asked.pings == 2


def test_while_an_answer_is_overdue_the_others_are_told_no() -> None:
    asked, told = Asked(), list[bool]()
    assert asked.pulse.beats()

    def hang() -> None:
        asked.clock.advance_ms(2900)
        told.append(asked.pulse.beats())
        asked.clock.advance_ms(200)
        told.append(asked.pulse.beats())

    asked.clock.advance_ms(1000)
    asked.meanwhile = hang
    assert asked.pulse.beats()
    assert told == [True, False]


def test_a_store_that_is_away_has_no_pulse_until_it_answers() -> None:
    asked = Asked()

    def refuse() -> None:
        raise UnavailableError("away")

    asked.meanwhile = refuse
    assert not asked.pulse.beats()
    asked.meanwhile = lambda: None
    assert not asked.pulse.beats()
    asked.clock.advance_ms(1000)
    assert asked.pulse.beats()
