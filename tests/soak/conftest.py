"""What the soak's trials share: the fixtures of the short ones, and time enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fixtures import fleet, make_trial, trial

__all__ = ["fleet", "make_trial", "trial"]

_SOAK = Path(__file__).resolve().parent
#: Five minutes of faults, and on a busy machine the recovery and the reading after them; whoever takes longer says so.
ENOUGH_S = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each trial here that has no bound of its own more time than a test elsewhere has."""
    for item in items:
        if item.path.is_relative_to(_SOAK) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(ENOUGH_S))
