"""A hundred thousand texts for the parser of schedules; `CRONKEEPER_FUZZ_CASES` says another number."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.golden import fuzz

CASES = int(os.environ.get("CRONKEEPER_FUZZ_CASES", "100000"))


@pytest.mark.timeout(6 * 3600)
@settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(text=fuzz.TEXTS)
def test_noise(text: str) -> None:
    fuzz.check(text)
