"""Many jobs due at one instant: Cronkeeper in odd minutes, bare Debian cron in even ones, on the same machine.

Each has a node of its own with a real cron. Both run the same program under the same account; lags are what that wrote.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.kit.figures import percentile
from bench.kit.processes import processor_ms, with_offspring
from bench.kit.stamps import Stamps
from bench.kit.town import Stores, fill, fleet, job, pids
from tests.harness.cluster import Cluster
from tests.harness.cron import Node
from tests.harness.folders import make_folder, remove_folder

ODD, EVEN = "1-59/2", "0-58/2"
_ACCOUNT = "nobody"


@dataclass(frozen=True, slots=True)
class Field:
    """So many jobs over so many workers, by timer or by cron's calls alone, with one expression or one for each."""

    jobs: int
    workers: int = 1
    timers: bool = True
    distinct: bool = False

    @property
    def words(self) -> str:
        how = "timer" if self.timers else "cron's calls alone"
        where = "" if self.workers == 1 else f", {self.workers} workers"
        return f"{self.jobs:,} due together, {how}{', each its own expression' if self.distinct else ''}{where}"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of one round: lags in seconds, processor milliseconds a fire, and starts that were wrong in number."""

    lags: tuple[float, ...]
    cpu_ms: float
    wrong: int

    @property
    def first(self) -> float:
        return min(self.lags)

    @property
    def last(self) -> float:
        return max(self.lags)

    def at(self, share: float) -> float:
        return percentile(self.lags, share)


@dataclass(frozen=True, slots=True)
class Round:
    ours: Side
    cron: Side


def expression(field: Field, number: int) -> str:
    """Return a schedule of odd minutes; with `distinct` one that no other job of the first 2,000 has."""
    if not field.distinct:
        return f"{ODD} * * * *"
    # All months but some of eleven: this month is among them all, and 29 February makes no difference.
    month = time.gmtime().tm_mon
    others = [other for other in range(1, 13) if other != month]
    chosen = sorted([month, *(other for bit, other in enumerate(others) if number >> bit & 1)])
    return f"{ODD} * * {','.join(map(str, chosen))} *"


def race(on: Stores, field: Field, rounds: int) -> list[Round]:
    """Run so many rounds of two minutes."""
    folder = make_folder("race")
    try:
        with (
            Node("bare") as bare,
            fleet(on, workers=field.workers, settings={"CRONKEEPER_TIMERS": str(field.timers).lower()}) as cluster,
        ):
            stamps = Stamps(folder)
            fill(cluster, field.jobs, lambda n: job(f"r-{n}", stamps.command(f"r-{n}"), expression(field, n)))
            lines = [f"{EVEN} * * * * {_ACCOUNT} {stamps.command(f'c-{n}')}\n" for n in range(field.jobs)]
            (bare.cron_d / "bare").write_text("".join(lines))
            bare.start_cron(timezone="UTC")
            _wait_minute(lambda minute: minute % 2 == 0)
            return [_round(on, field, cluster, bare, stamps) for _ in range(rounds)]
    finally:
        remove_folder(folder)


def _wait_minute(wanted: Callable[[int], bool]) -> None:
    """Return 3 s before a minute that is wanted."""
    while True:
        left_s = 60 - time.time() % 60
        if left_s > 3.5 and wanted(int(time.time() // 60) + 1):
            time.sleep(left_s - 3)
            return
        time.sleep(0.5)


def _round(on: Stores, field: Field, cluster: Cluster, bare: Node, stamps: Stamps) -> Round:
    """Begin 3 s before an even minute: that is cron's; the next one is ours."""
    stamps.forget()
    minute = int(time.time() // 60) + 1

    def ours_ms() -> float:
        return processor_ms(with_offspring([*on.pids, *pids(cluster)]))

    def bare_ms() -> float:
        return processor_ms(with_offspring(bare.pids()))

    looks = list(itertools.starmap(_look, [(minute, ours_ms, bare_ms), (minute + 1, ours_ms, bare_ms)]))
    looks.append(_look(minute + 2, ours_ms, bare_ms))
    (ours_0, bare_0), (ours_1, bare_1), (ours_2, bare_2) = looks
    # What the fleet does anyway, without a fire, was measured in cron's minute.
    cpu_ours = (ours_2 - ours_1) - (ours_1 - ours_0)
    cpu_bare = (bare_1 - bare_0) - (bare_2 - bare_1)
    side = partial(_side, stamps=stamps, jobs=field.jobs)
    return Round(side("r-", minute + 1, cpu_ours), side("c-", minute, cpu_bare))


def _look(minute: int, *asked: Callable[[], float]) -> tuple[float, ...]:
    """Return what was asked for, 3 s before the minute."""
    time.sleep(max(0.0, minute * 60 - 3 - time.time()))
    return tuple(ask() for ask in asked)


def _side(mark: str, minute: int, cpu_ms: float, *, stamps: Stamps, jobs: int) -> Side:
    found = [stamp for stamp in stamps.read() if stamp.name.startswith(mark) and stamp.at_s < minute * 60 + 57]
    lags = tuple(stamp.at_s - minute * 60 for stamp in found)
    wrong = abs(jobs - len(lags)) + len(lags) - len({stamp.name for stamp in found})
    return Side(lags or (60.0,), cpu_ms / jobs, wrong)
