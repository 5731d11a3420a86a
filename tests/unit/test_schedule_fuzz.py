"""Noise for the parser: it neither crashes nor searches without an end, and names a position whenever it refuses.

A hundred thousand cases: tests/soak/test_schedule_fuzz.py.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from cronkeeper.domain.schedule import MAX_SCHEDULE_LENGTH
from tests.golden import fuzz


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=fuzz.TEXTS)
def test_noise(text: str) -> None:
    fuzz.check(text)


@pytest.mark.parametrize("accepted", [True, False])
def test_the_noise_holds_accepted_schedules_and_refused_ones(accepted: bool) -> None:
    unshrunk = settings(max_examples=200, phases=[Phase.generate], database=None, deadline=None)
    assert fuzz.check(find(fuzz.TEXTS, lambda text: fuzz.check(text) is accepted, settings=unshrunk)) is accepted


@pytest.mark.parametrize(
    "text",
    [
        "*," * 127 + "* * * * *",
        "0-59/1," * 31 + "* * * * *",
        "* * * * *; " * 200,
        "9" * 5000 + " * * * *",
        "*" * 5000,
        " " * 5000,
        "((((" * 60,
        "H(" * 100,
        "@every " + "9" * 5000,
        "0 0 29 2 1#5",
        "0 0 31W 2 *",
        "59 59 23 L-30 2 *",
        "0 0 30 2 6#5",
        "@at 9999-12-31T23:59:59Z",
    ],
)
def test_what_would_keep_a_bad_parser_busy(text: str) -> None:
    fuzz.check(text[: 3 * MAX_SCHEDULE_LENGTH])
