"""The protocol's model, searched deeper than in the unit tests: several accidents of several kinds in one history.

`CRONKEEPER_EXAMPLES=1000` (or more) adds two fires under `at_most_once`: minutes of a core.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.unit.protocol_deep import KINDS, DeepSearch
from tests.unit.protocol_model import Rules
from tests.unit.test_protocol_model import is_hole

WIDE = int(os.environ.get("CRONKEEPER_EXAMPLES", "0")) >= 1000
#: Fires, and then how many of each of KINDS.
BOUNDS = [(1, 2, 1, 0, 1, 0), (1, 1, 2, 0, 1, 0), (1, 1, 1, 1, 1, 0), (1, 1, 1, 0, 1, 1), (1, 2, 2, 0, 0, 0)]
WIDEST = [(2, 2, 1, 0, 1, 0)] if WIDE else []
#: Beside the hole, at five troubles: who has the task again finds that its own first attempt was lost with its
#: node, and is not heard by MySQL, where the other one was granted the second attempt: ZooKeeper grants it again.
BEYOND: dict[tuple[int, ...], list[str]] = {(1, 2, 2, 0, 1, 0): ["I2 mysql and zookeeper"]}


def bounded(fires: int, *most: int, at_most_once: bool) -> Rules:
    limits = dict(zip(KINDS, most, strict=True))
    return replace(Rules(fires=fires, troubles=sum(most), at_most_once=at_most_once), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [*BOUNDS, *BEYOND], ids=str)
def test_the_known_hole_is_the_only_one(bounds: tuple[int, ...]) -> None:
    found = DeepSearch(bounded(*bounds, at_most_once=False)).run(most=60_000_000)
    assert sorted(kind for kind in found.violations if not is_hole(kind)) == BEYOND.get(bounds, []), found.words()
    assert found.violations, "the hole itself is found"


@pytest.mark.parametrize("bounds", [*BOUNDS, *WIDEST], ids=str)
def test_under_at_most_once_there_is_none(bounds: tuple[int, ...]) -> None:
    found = DeepSearch(bounded(*bounds, at_most_once=True)).run(most=60_000_000)
    assert found.violations == {}, found.words()
