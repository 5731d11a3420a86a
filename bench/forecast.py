"""How long the forecast of a day takes for 100,000 jobs, on one core.

    .venv/bin/python -m bench.forecast [JOBS]

Half of the jobs have an `H` and names of their own, half a plain schedule; in two zones, some with jitter, with runs of
a second to an hour. Reading the jobs from MySQL is not in it. Processor time is measured, not the clock.
"""

from __future__ import annotations

import sys
import time

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper_manager.service.outlook import DAY_MS, By, Part, expect

NOW = parse_rfc3339("2026-11-21T00:00:00Z")


def part(number: int) -> Part:
    """Return one job of a fleet."""
    texts = ("H * * * *", "H H * * *", f"{number % 60} {number // 60 % 24} * * *", "*/5 * * * *")
    return Part(
        JobSpec(
            executable="true",
            schedule=texts[number % 4],
            type=JobType.COMMAND,
            name=f"job-{number}",
            timezone="Europe/Berlin" if number % 8 > 3 else "UTC",
            jitter_s=120 if number % 10 == 0 else 0,
        ),
        1,
        (1000, 20_000, 300_000, 3_600_000)[number // 8 % 4],
    )


def main(jobs: int) -> None:
    """Measure and print."""
    parts = [part(number) for number in range(jobs)]
    began = time.process_time()
    found = expect(parts, from_ms=NOW, to_ms=NOW + DAY_MS, by=By.MINUTE)
    spent = time.process_time() - began
    fires = sum(bucket.fires for bucket in found.buckets)
    sys.stdout.write(f"one day of {jobs:,} jobs by minute: {spent:.1f} s, {fires:,.0f} fires expected\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
