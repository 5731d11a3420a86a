"""Random faults for five minutes each, on a fleet of its own each: nothing lost, nothing doubled, nothing in silence.

CRONKEEPER_SOAK_SCHEDULES says how many (20), CRONKEEPER_SOAK_DURATION_S how long each (300), CRONKEEPER_SEED the first
seed; the others follow it. One schedule alone: python -m tests.faults.nemesis --seed S --duration 300.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.random_schedule import run_schedule
from tests.faults.trial import seed_from_environment

_SCHEDULES = int(os.environ.get("CRONKEEPER_SOAK_SCHEDULES", "20"))
_DURATION_S = float(os.environ.get("CRONKEEPER_SOAK_DURATION_S", "300"))
_FIRST = seed_from_environment()


@pytest.mark.timeout(_DURATION_S + 900)
@pytest.mark.parametrize("number", range(_SCHEDULES))
def test_random_nemesis(number: int, tmp_path: Path) -> None:
    with Fleet() as fleet:
        run_schedule(fleet, tmp_path / "history", seed=_FIRST + number, duration_s=_DURATION_S)
