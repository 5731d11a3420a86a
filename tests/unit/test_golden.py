"""Our evaluator against Debian's real cron: every fire that the golden files (tests/golden) record, and no other."""

from __future__ import annotations

import pytest

from cronkeeper.domain.schedule import parse_schedule
from tests.golden import plan
from tests.golden.codec import FOLDER, Golden, Window, minute_text, read_golden

_FILES = ("year", "days", "changes")
GOLDEN: dict[str, Golden] = {name: read_golden(FOLDER / f"{name}.golden") for name in _FILES}
CHANGES = list(GOLDEN["changes"])


def ours(expression: str, window: Window) -> list[int]:
    """When our evaluator fires in the window, epoch s."""
    schedule = parse_schedule(expression, window.timezone)
    found = schedule.fire_times(window.start_s * 1000 - 1, window.until_s * 1000 - 1, limit=10_000)
    return [ms // 1000 for ms in found]


def differences(window: Window, table: dict[str, list[int]]) -> list[str]:
    """Where our fires are not cron's, in words. What cron fires twice in a minute, one run for each time missed, is one
    fire to us: a fire time is an instant."""
    found = []
    for expression, fires in table.items():
        mine, theirs = ours(expression, window), set(fires)
        if mine != sorted(theirs):
            more, fewer = sorted(set(mine) - theirs), sorted(theirs - set(mine))
            found.append(
                f"{window.timezone}: {expression}: we alone fire at {[minute_text(at) for at in more[:3]]}, "
                f"cron alone at {[minute_text(at) for at in fewer[:3]]}"
            )
    return found


def test_a_year_in_utc() -> None:
    [(window, table)] = GOLDEN["year"].items()
    assert (window, tuple(table)) == (plan.YEAR, plan.year_expressions())
    assert len(table) >= 200
    assert differences(window, table) == []


def test_sampled_days_of_what_fires_often() -> None:
    assert {window: tuple(table) for window, table in GOLDEN["days"].items()} == dict.fromkeys(
        plan.days(), plan.day_expressions()
    )
    assert [found for window, table in GOLDEN["days"].items() for found in differences(window, table)] == []


def test_the_file_holds_what_the_plan_says() -> None:
    changes = [plan.find_change(timezone, day) for timezone, day in plan.CHANGES]
    assert [change.window for change in changes] == CHANGES
    assert len({window.timezone for window in CHANGES}) >= 15
    for change in changes:
        assert list(GOLDEN["changes"][change.window]) == [line for lines in plan.crontabs(change) for line in lines]


def test_a_wrong_fire_is_seen() -> None:
    [(window, table)] = GOLDEN["year"].items()
    for wrong in (table["0 12 * * *"][:-1], [*table["0 12 * * *"], window.until_s - 60], table["0 1 * * *"]):
        assert len(differences(window, {"0 12 * * *": wrong})) == 1


@pytest.mark.parametrize("window", CHANGES, ids=str)
def test_a_clock_change(window: Window) -> None:
    assert differences(window, GOLDEN["changes"][window]) == []
