"""Expected load: the arithmetic agrees with counting fires."""

from __future__ import annotations

import pytest

from cronkeeper.domain.schedule import parse_schedule
from cronkeeper_manager.load import MIN_LOAD, expected_load

_YEARS_MS = 4 * 365 * 86_400_000 + 86_400_000
_START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z: four years with one leap day


@pytest.mark.parametrize(
    ("schedule", "fires_a_minute"),
    [
        pytest.param("* * * * *", 1.0, id="every minute is one fire a minute"),
        pytest.param("*/5 * * * *", 0.2, id="every five minutes"),
        pytest.param("*/10 * * * * *", 6.0, id="seconds count"),
        pytest.param("5 * * * *", 1 / 60, id="hourly"),
        pytest.param("@hourly", 1 / 60, id="a nickname is what it stands for"),
        pytest.param("@every 30s", 2.0, id="an interval"),
        pytest.param("@every 366d", MIN_LOAD, id="an interval of a year costs what every task costs at least"),
        pytest.param("@at 2027-01-01T00:00:00Z", MIN_LOAD, id="a single fire costs what every task costs at least"),
        pytest.param("@every 30s; */5 * * * *", 2.2, id="of several, the sum"),
        pytest.param("H/15 * * * *", 4 / 60, id="an H is what it stands for"),
        pytest.param("0 0 1 1 *", MIN_LOAD, id="yearly costs what every task costs at least"),
    ],
)
def test_load_is_fires_a_minute(schedule: str, fires_a_minute: float) -> None:
    assert expected_load(parse_schedule(schedule)) == pytest.approx(fires_a_minute)


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param("*/7 3-9 * * *", id="some hours"),
        pytest.param("0 * 29 2 *", id="29 February only"),
        pytest.param("*/15 * 31 * *", id="only months with 31 days"),
        pytest.param("0 * 1-15 * *", id="the first half of every month"),
        pytest.param("0 * * 2,4 1-5", id="weekdays of two months"),
        pytest.param("0 * 13 * fri", id="the 13th or a Friday: either day field is enough"),
        pytest.param("0 * */2 * mon", id="a starred day field: both must match"),
        pytest.param("0 * L * *", id="the last day of each month"),
        pytest.param("0 * 15W,1 * fri#5", id="days that no number names"),
    ],
)
def test_load_agrees_with_counted_fires(schedule: str) -> None:
    parsed = parse_schedule(schedule)
    counted = len(parsed.fire_times(_START_MS, _START_MS + _YEARS_MS, limit=3_000_000)) / (_YEARS_MS / 60_000)

    assert expected_load(parsed) == pytest.approx(max(counted, MIN_LOAD), rel=0.06)
