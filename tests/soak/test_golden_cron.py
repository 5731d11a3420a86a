"""Every zone of the golden file again, by this machine's cron: the file and our evaluator still say what it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cronkeeper.domain.schedule import parse_schedule
from tests.golden import plan
from tests.golden.codec import FOLDER, read_golden
from tests.golden.stepped import prepare, record
from tests.harness.cron import Node

GOLDEN = read_golden(FOLDER / "changes.golden")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node("golden-soak") as node:
        prepare(node)
        yield node


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("timezone", "day"), plan.CHANGES, ids=[" ".join(change) for change in plan.CHANGES])
def test_a_clock_change(timezone: str, day: str, node: Node) -> None:
    change = plan.find_change(timezone, day)
    window = change.window
    found: dict[str, list[int]] = {}
    for expressions in plan.crontabs(change):
        found |= record(node, expressions, timezone=timezone, start_s=window.start_s, until_s=window.until_s)
    assert found == GOLDEN[window]
    for expression, fires in found.items():
        schedule = parse_schedule(expression, timezone)
        ours = schedule.fire_times(window.start_s * 1000 - 1, window.until_s * 1000 - 1, limit=5000)
        assert [ms // 1000 for ms in ours] == sorted(set(fires)), expression
