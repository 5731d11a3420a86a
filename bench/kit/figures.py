"""What a part of `bench/run` finds: figures of several repetitions, and how they are shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How a part is to measure: `quick` shows within some two minutes that it works, its figures say little."""

    quick: bool = False
    #: Repetitions of each figure that has any; each comparison's two sides alternate within each.
    rounds: int = 4
    #: Numbers of jobs.
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `goal` is what the median shall reach; with `at_least` it shall not be less than that."""

    what: str
    unit: str
    values: tuple[float, ...]
    goal: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """`yes` or `no`; nothing without a goal."""
        if self.goal is None:
            return ""
        return "yes" if (self.median >= self.goal if self.at_least else self.median <= self.goal) else "no"

    def cells(self) -> tuple[str, ...]:
        """Return what, minimum / median / maximum with its unit, repetitions, goal, whether it is reached."""
        spread = " / ".join(number(value) for value in (min(self.values), self.median, max(self.values)))
        goal = "" if self.goal is None else f"{'at least' if self.at_least else 'at most'} {number(self.goal)}"
        return (self.what, f"{spread} {self.unit}".rstrip(), str(len(self.values)), goal, self.verdict)


def number(value: float) -> str:
    """Return a number with three digits that say something."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(what: str, ours: Sequence[float], theirs: Sequence[float], goal: float, *, at_least: bool = False) -> Figure:
    """Return what each repetition's two sides make together."""
    return Figure(what, "", tuple(a / b for a, b in zip(ours, theirs, strict=True)), goal, at_least)


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the slope of log cost over log size, by least squares."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(cost, 1e-9)) for cost in costs]
    return statistics.linear_regression(xs, ys).slope
