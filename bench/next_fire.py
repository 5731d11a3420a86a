"""How many next fires a second the search finds on one core, and how long a day of 100,000 schedules takes to expand.

    .venv/bin/python -m bench.next_fire [SECONDS]

Each search begins at another instant, so nothing is remembered between them. Processor time is measured, not the clock.
"""

from __future__ import annotations

import itertools
import sys
import time

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.schedule import parse_schedule

NOW = parse_rfc3339("2026-11-21T00:00:00Z")
DAY_MS = 86_400_000
COMMON = [
    ("*/5 * * * *", "UTC"),
    ("0 9 * * 1-5", "UTC"),
    ("*/15 * * * *", "Europe/Berlin"),
    ("30 2 * * *", "America/New_York"),
    ("0 0 1 * *", "Europe/Berlin"),
    ("0 0 29 2 *", "UTC"),
    ("H H L * *", "UTC"),
    ("*/10 * * * * *", "UTC"),
    ("@every 90s", "UTC"),
]
TASKS = 100_000


def rate(text: str, timezone: str, seconds: float) -> float:
    """Return how many next fires were found in each second of processor time."""
    schedule = parse_schedule(text, timezone, seed="default/job-1")
    began = time.process_time()
    for count in itertools.count(1):
        schedule.next_fire(NOW + count * 61_001)
        if count % 1000 == 0 and (spent := time.process_time() - began) >= seconds:
            return count / spent
    raise AssertionError("counting has no end")


def day_of_all() -> tuple[float, int]:
    """Return the processor time in seconds of expanding a day of 100,000 hourly and daily jobs, and their fires."""
    began = time.process_time()
    fires = 0
    for number in range(TASKS):
        text = "H * * * *" if number % 4 == 0 else "H H * * *"
        schedule = parse_schedule(text, "Europe/Berlin" if number % 2 else "UTC", seed=f"default/job-{number}")
        fires += len(schedule.fire_times(NOW, NOW + DAY_MS))
    return time.process_time() - began, fires


def main(seconds: float) -> None:
    """Measure and print."""
    for text, timezone in COMMON:
        sys.stdout.write(f"{text:16} {timezone:18} {rate(text, timezone, seconds):10,.0f} a second\n")
    spent, fires = day_of_all()
    sys.stdout.write(f"one day of {TASKS:,} jobs, read and expanded: {spent:.1f} s, {fires:,} fires\n")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
