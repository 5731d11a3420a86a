"""`cronkeeper why`: which instant a time of day means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.why import _today, instant_of


@pytest.mark.parametrize(
    ("zone", "now", "instant"),
    [
        ("UTC", datetime(2026, 3, 1, 12, 0, tzinfo=UTC), "2026-03-01T03:05:00Z"),
        ("Europe/Berlin", datetime(2026, 3, 1, 12, 0, tzinfo=UTC), "2026-03-01T02:05:00Z"),
        ("Europe/Berlin", datetime(2026, 7, 1, 12, 0, tzinfo=UTC), "2026-07-01T01:05:00Z"),
        # It is the next day already where the job lives.
        ("Asia/Tokyo", datetime(2026, 3, 1, 23, 0, tzinfo=UTC), "2026-03-01T18:05:00Z"),
        ("America/New_York", datetime(2026, 3, 1, 2, 0, tzinfo=UTC), "2026-02-28T08:05:00Z"),
    ],
)
def test_a_time_of_day_is_of_today_in_the_job_s_zone(zone: str, now: datetime, instant: str) -> None:
    assert instant_of("3", "05", "0", zone, now) == instant


@pytest.mark.parametrize("text", ["noon", "24:00", "3:5", "12:60", "-1:00", ""])
def test_what_is_no_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        _today(text, "UTC")
    assert caught.value.exit_code == EXIT_USAGE and "HH:MM" in str(caught.value)
