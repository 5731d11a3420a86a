"""Measures Cronkeeper, each part with all that it needs on this machine; prints tables and writes docs/measurements.md.

Run it by `bench/run`, which installs what is missing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterable, Sequence

from bench.kit.figures import Figure, Options
from bench.kit.report import block, show, write

PARTS = ("lag", "cost", "steady", "api", "failover", "memory", "growth", "soak")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures Cronkeeper beside bare Debian cron and beside the least that a server can do.",
        epilog="Without parts all are measured, which takes some four hours on a quiet machine. Needs root.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, once: some two minutes for each part")
    parser.add_argument("--rounds", type=int, default=4, help="repetitions of each figure (4)")
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of jobs (1000,10000,100000)")
    parser.add_argument("--no-write", action="store_true", help="leave docs/measurements.md as it is")
    found = parser.parse_args(argv)
    if unknown := [part for part in found.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    if found.rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        found.sizes = tuple(sorted(int(size) for size in found.sizes.split(",")))
    except ValueError:
        parser.error("--sizes: numbers with commas between them")
    return found


def main(argv: Sequence[str]) -> int:
    """Exit status 1 when a part failed; figures that were not reached are no failure."""
    asked = parse(argv)
    if os.geteuid() != 0:
        sys.stderr.write("bench/run: run as root: nodes with crontabs of their own need mounts\n")
        return 2
    options = Options(quick=asked.quick, rounds=asked.rounds, sizes=asked.sizes)
    failed = []
    for part in asked.parts or PARTS:
        try:
            _measure(part, options, keep=not asked.no_write)
        except Exception as exc:  # noqa: BLE001  # the other parts are measured all the same
            sys.stderr.write(f"bench/run: {part} failed: {exc!r}\n")
            failed.append(part)
    return 1 if failed else 0


def _measure(part: str, options: Options, *, keep: bool) -> None:
    module = importlib.import_module(f"bench.{part}")
    before, begun_s = os.getloadavg()[0], time.monotonic()
    figures, failure = taken(module.run(options))
    if figures:
        took = f"{time.monotonic() - begun_s:.0f} s, load average {before:.1f} to {os.getloadavg()[0]:.1f}"
        show(f"{part}, {took}", figures)
    if keep and figures:
        words = " ".join((module.__doc__ or "").split())
        write(part, block(part, words, figures, options, (before, os.getloadavg()[0]), failure=failure))
    if failure is not None:
        raise failure


def taken(source: Iterable[Figure]) -> tuple[list[Figure], Exception | None]:
    """Return the figures that a part gives, a list or one after the other, and what ended it early, if anything did."""
    figures: list[Figure] = []
    try:
        for figure in source:
            figures.append(figure)  # noqa: PERF402  # one by one: the next may fail
    except Exception as exc:  # noqa: BLE001  # what was measured before it stands
        return figures, exc
    return figures, None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
