"""The protocol's model, searched deeper than in the unit tests: several accidents of several kinds in one history.

`CRONKEEPER_EXAMPLES=1000` (or more) adds the largest: three fires, two crashes, a cut and a lost answer.
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
ONE_FIRE = [(1, 2, 2, 0, 0, 0), (1, 1, 1, 1, 0, 0), (1, 2, 1, 0, 0, 1)]
MORE_FIRES = [(2, 2, 1, 0, 1, 0), *([(3, 1, 1, 0, 1, 0), (3, 2, 1, 0, 1, 0)] if WIDE else [])]
OPEN = pytest.mark.xfail(
    reason="I11 with two fires, two crashes, a cut and a lost answer: not understood yet", strict=False
)


def bounded(fires: int, *most: int, at_most_once: bool) -> Rules:
    limits = dict(zip(KINDS, most, strict=True))
    return replace(Rules(fires=fires, troubles=sum(most), at_most_once=at_most_once), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [*ONE_FIRE, *(pytest.param(one, marks=OPEN) for one in MORE_FIRES)], ids=str)
def test_the_known_hole_is_the_only_one(bounds: tuple[int, ...]) -> None:
    found = DeepSearch(bounded(*bounds, at_most_once=False)).run(most=60_000_000)
    assert [kind for kind in found.violations if not is_hole(kind)] == [], found.words()
    assert found.violations, "the hole itself is found"


@pytest.mark.parametrize("bounds", [*ONE_FIRE, *MORE_FIRES], ids=str)
def test_under_at_most_once_there_is_none(bounds: tuple[int, ...]) -> None:
    found = DeepSearch(bounded(*bounds, at_most_once=True)).run(most=60_000_000)
    assert found.violations == {}, found.words()
