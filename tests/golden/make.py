#!/usr/bin/env python3
"""Make the golden files: let Debian's real cron say when it fires what, and write that down.

    sudo .venv/bin/python tests/golden/make.py                     all of it, in about a quarter of an hour
    sudo .venv/bin/python tests/golden/make.py changes --zone Europe/Berlin

cron runs unpatched in a private node on a clock by libfaketime that stands still while cron works (tests/golden/
stepped.py), so that the machine's load changes nothing. The files are a function of cron, of the expressions
(tests/golden/plan.py) and of the tz database: making them again must leave `git diff` empty.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden import plan
from tests.golden.codec import FOLDER, Golden, Window, write_golden
from tests.golden.stepped import prepare, record
from tests.harness.cron import Node

_WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Walk:
    """What one cron does from its start to its end: the fires of `window` that are `expressions`'."""

    window: Window
    expressions: tuple[str, ...]


def plan_year(_zone: str | None) -> list[Walk]:
    """The sparse expressions through a whole year, week by week, in UTC."""
    starts = range(plan.YEAR.start_s, plan.YEAR.until_s, _WEEK_S)
    weeks = [Window("UTC", start, min(start + _WEEK_S, plan.YEAR.until_s)) for start in starts]
    return [Walk(week, plan.year_expressions()) for week in weeks]


def plan_days(_zone: str | None) -> list[Walk]:
    """The dense expressions over a few days, in UTC."""
    return [Walk(window, plan.day_expressions()) for window in plan.days()]


def plan_changes(zone: str | None) -> list[Walk]:
    """The clock changes; crontab after crontab, so that no expression disturbs another."""
    changes = [plan.find_change(timezone, day) for timezone, day in plan.CHANGES if zone in (None, timezone)]
    return [Walk(change.window, tuple(lines)) for change in changes for lines in plan.crontabs(change)]


_PARTS: dict[str, tuple[str, Callable[[str | None], list[Walk]]]] = {
    "year": ("each fires at most 2,000 times a year; every minute of the year was walked through", plan_year),
    "days": ("each fires more than 2,000 times a year; sampled days stand for the year", plan_days),
    "changes": ("24 hours around clock changes; crontabs apart, so that cron's catching-up never spills", plan_changes),
}


def walk_all(name: str, walks: Sequence[Walk], jobs: int) -> Golden:
    """Make all walks, several at a time, each with a node and a cron of its own; windows that adjoin become one."""
    golden: Golden = {}
    queue = list(enumerate(walks))
    with ProcessPoolExecutor(jobs) as pool:
        shares = [queue[worker::jobs] for worker in range(jobs)]
        done = [pool.submit(_walk_share, f"golden-{name}-{worker}", share) for worker, share in enumerate(shares)]
        tables = dict(pair for future in done for pair in future.result())
    for number, walk in queue:
        window = plan.YEAR if name == "year" else walk.window
        table = golden.setdefault(window, {})
        for expression, fires in tables[number].items():
            table.setdefault(expression, []).extend(fires)
    return golden


def _walk_share(name: str, share: Sequence[tuple[int, Walk]]) -> list[tuple[int, dict[str, list[int]]]]:
    found = []
    with Node(name) as node:
        prepare(node)
        for number, walk in share:
            window, started = walk.window, time.monotonic()
            table = record(
                node, walk.expressions, timezone=window.timezone, start_s=window.start_s, until_s=window.until_s
            )
            found.append((number, table))
            fires = sum(map(len, table.values()))
            print(f"{window}: {len(table)} expressions, {fires} fires, {time.monotonic() - started:.1f} s", flush=True)
    return found


def _version(package: str) -> str:
    """Return an installed Debian package with its version."""
    asked = subprocess.run(["dpkg-query", "-W", package], capture_output=True, text=True, check=True)
    return " ".join(asked.stdout.split())


def main() -> None:
    """Make the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)}; all unless told")
    parser.add_argument("--zone", help="only this zone's changes; needs --out, or the other zones would be lost")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="how many crons at a time (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(_PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.zone and options.out == FOLDER:
        parser.error("--zone needs --out")
    versions = ", ".join(_version(package) for package in ("cron", "libfaketime", "tzdata"))
    for name in options.parts or _PARTS:
        what, plan_part = _PARTS[name]
        golden = walk_all(name, plan_part(options.zone), options.jobs)
        header = (
            f"When Debian's cron fires: {what}.",
            f"Made by tests/golden/make.py with {versions}.",
            "Format: codec.py",
        )
        write_golden(options.out / f"{name}.golden", header, golden)


if __name__ == "__main__":
    main()
