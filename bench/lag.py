"""Lag at one instant: how late jobs start that are due in the same second, side by side with bare Debian cron.

The jobs write down the clock as their first act. Cronkeeper's are due in odd minutes, the same number of lines of a
bare cron in even ones; both run as `nobody`. First, median, 99th percentile and last of each minute; a ratio is that
of two neighbouring minutes. A start that is missing or doubled is counted. Last, a job that is due alone every
second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from bench.kit.figures import Figure, Options, percentile, ratios
from bench.kit.race import Field, Round, race
from bench.kit.stamps import Stamps
from bench.kit.town import Stores, fill, fleet, job, stores
from tests.harness.folders import make_folder, remove_folder

#: What is to be reached: seconds of the median and the last, and the share of bare cron's at the last, or at p99.
_GOALS = {
    Field(100): (None, None, None),
    Field(1_000): (0.7, 1.5, 0.35),
    Field(5_000): (None, 5.0, 0.35),
    Field(10_000, workers=3): (None, None, None),
}
_BY_CRON = {Field(1_000, timers=False): 0.6, Field(1_000, timers=False, distinct=True): 1.15}
_SINGLE_S = 60


def run(options: Options) -> Iterator[Figure]:
    """Measure all fields, or with `quick` the smallest one by both triggers."""
    with stores() as on:
        yield from _single(on, 15 if options.quick else _SINGLE_S)
        fields = {Field(100): _GOALS[Field(100)]} if options.quick else _GOALS
        rounds = 1 if options.quick else options.rounds
        for field, goals in fields.items():
            yield from _by_timer(field, race(on, field, rounds), *goals)
        for field, share in ({} if options.quick else _BY_CRON).items():
            yield from _shown(field, done := race(on, field, rounds))
            yield ratios(
                f"{field.words}: p99 ÷ bare cron",
                [one.ours.at(0.99) for one in done],
                [one.cron.at(0.99) for one in done],
                share,
            )


def _by_timer(
    field: Field, done: Sequence[Round], median: float | None, last: float | None, share: float | None
) -> list[Figure]:
    found = _shown(field, done, median=median, last=last)
    ours, cron = [one.ours.last for one in done], [one.cron.last for one in done]
    found.append(Figure(f"{field.words}: last ÷ bare cron", "", tuple(map(_ratio, ours, cron)), share))
    return found


def _shown(
    field: Field, done: Sequence[Round], *, median: float | None = None, last: float | None = None
) -> list[Figure]:
    words, ours, cron = field.words, [one.ours for one in done], [one.cron for one in done]
    return [
        Figure(f"{words}: first", "s", tuple(side.first for side in ours)),
        Figure(f"{words}: median", "s", tuple(side.at(0.5) for side in ours), median),
        Figure(f"{words}: p99", "s", tuple(side.at(0.99) for side in ours)),
        Figure(f"{words}: last", "s", tuple(side.last for side in ours), last),
        Figure(f"{words}: bare cron's median", "s", tuple(side.at(0.5) for side in cron)),
        Figure(f"{words}: bare cron's last", "s", tuple(side.last for side in cron)),
        Figure(f"{words}: starts missing or doubled", "", tuple(side.wrong for side in ours), 0),
    ]


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def _single(on: Stores, seconds: int) -> list[Figure]:
    """A job that is due every second, and nothing else."""
    folder = make_folder("single")
    try:
        with fleet(on) as cluster:
            stamps = Stamps(folder)
            fill(cluster, 1, lambda _: job("single", stamps.command("single"), "* * * * * *"))
            time.sleep(5)
            stamps.forget()
            time.sleep(seconds)
            lags = [(stamp.at_s - stamp.fire_s) * 1000 for stamp in stamps.read() if stamp.fire_s is not None]
    finally:
        remove_folder(folder)
    return [
        Figure(f"a job due alone, {len(lags)} fires: median", "ms", (percentile(lags, 0.5),), 5),
        Figure(f"a job due alone, {len(lags)} fires: p99", "ms", (percentile(lags, 0.99),), 50),
    ]
