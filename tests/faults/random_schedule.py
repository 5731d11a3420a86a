"""Random faults at random times, drawn from a seed.

    python -m tests.faults.nemesis --seed 17 --duration 300

runs one schedule against a light fleet of its own under the standard load, prints the report, and exits with status 1
if the checker found anything. As many may run at a time as the machine has room for.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.checker.history import FaultKind
from tests.faults.fleet import Fleet, Sizes
from tests.faults.nemesis import random_half
from tests.faults.trial import Bounds, Trial, seed_from_environment
from tests.faults.workload import std
from tests.harness.network import Fault

#: No fault lasts longer, so that a schedule holds many.
LONGEST_S = 40.0
_SHORTEST_S = 5.0
_GAP_S = 25.0


@dataclass(frozen=True, slots=True)
class Names:
    """The hosts of a fleet, by what they are."""

    workers: tuple[str, ...]
    managers: tuple[str, ...]
    apis: tuple[str, ...]
    zookeepers: tuple[str, ...]

    @property
    def everybody(self) -> tuple[str, ...]:
        return (*self.workers, *self.managers, *self.apis, *self.zookeepers, "mysql")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule: from `start_s` to `end_s`, seconds since the schedule's beginning."""

    start_s: float
    end_s: float
    kind: FaultKind
    targets: tuple[str, ...]
    how: str = ""

    def __str__(self) -> str:
        how = f" ({self.how})" if self.how else ""
        return f"{self.start_s:5.1f} s to {self.end_s:5.1f} s  {self.kind}{how}: {', '.join(self.targets)}"


_Pick = Callable[[random.Random, Names], tuple[tuple[str, ...], str]]


def _one(of: str, *hows: str) -> _Pick:
    def pick(chance: random.Random, names: Names) -> tuple[tuple[str, ...], str]:
        return (chance.choice(getattr(names, of)),), chance.choice(hows or ("",))

    return pick


def _workers(*hows: str) -> _Pick:
    """Some workers, seldom all."""

    def pick(chance: random.Random, names: Names) -> tuple[tuple[str, ...], str]:
        count = chance.choice((1, 1, 1, 2, len(names.workers)))
        return tuple(sorted(chance.sample(names.workers, min(count, len(names.workers))))), chance.choice(hows or ("",))

    return pick


def _majority(chance: random.Random, names: Names) -> tuple[tuple[str, ...], str]:
    most = len(names.zookeepers) // 2 + 1
    return tuple(sorted(chance.sample(names.zookeepers, most))), chance.choice(("kill", "pause"))


def _store(name: str) -> _Pick:
    return lambda chance, _names: ((name,), chance.choice(("kill", "pause")))


def _partition(chance: random.Random, names: Names) -> tuple[tuple[str, ...], str]:
    how = chance.choice(("", "", "ring", "bridge"))
    return tuple(random_half(names.everybody, chance)) if not how else names.everybody, how


#: What may happen, and how often in comparison.
MENU: Sequence[tuple[FaultKind, int, _Pick]] = (
    (FaultKind.WORKER_KILLED, 3, _workers()),
    (FaultKind.NODE_KILLED, 3, _one("workers")),
    (FaultKind.WORKER_PAUSED, 3, _workers()),
    (FaultKind.NODE_PAUSED, 2, _one("workers")),
    (FaultKind.RUNNER_KILLED, 1, _one("workers")),
    (FaultKind.LEADER_KILLED, 2, _one("managers")),
    (FaultKind.MANAGER_PAUSED, 2, _one("managers")),
    (FaultKind.API_KILLED, 1, _one("apis")),
    (FaultKind.CUT_ZOOKEEPER, 3, _workers("", "replies", "requests")),
    (FaultKind.CUT_MYSQL, 3, _workers("", "replies", "requests")),
    (FaultKind.CUT_ZOOKEEPER, 1, _one("managers")),
    (FaultKind.CUT_MYSQL, 1, _one("managers")),
    (FaultKind.CUT_ALL, 2, _one("workers")),
    (FaultKind.CUT_REPLIES, 2, _workers("", "zookeeper", "mysql")),
    (FaultKind.PARTITION, 2, _partition),
    (FaultKind.LATENCY, 2, _one("workers", "", "loss")),
    (FaultKind.ZOOKEEPER_MEMBER_DOWN, 2, _one("zookeepers", "kill", "pause")),
    (FaultKind.ZOOKEEPER_QUORUM_LOST, 2, _majority),
    (FaultKind.MYSQL_DOWN, 2, _store("mysql")),
    (FaultKind.S3_DOWN, 1, _store("s3")),
    (FaultKind.CRON_DEAD, 1, _one("workers")),
    (FaultKind.CRON_PAUSED, 1, _one("workers")),
    (FaultKind.EVERYTHING_KILLED, 1, lambda _chance, names: (names.everybody, "")),
)
#: Nothing else may happen with these: they hit everybody.
ALONE = frozenset({FaultKind.EVERYTHING_KILLED, FaultKind.ZOOKEEPER_WIPED})


def draw_schedule(seed: int, duration_s: float, names: Names) -> list[Step]:
    """Return the faults of a schedule, by their start. PURE.

    All end before `duration_s`. They may overlap, but two that stop processes never hit the same host, and one that
    hits everybody is alone.
    """
    chance = random.Random(seed)
    kinds, weights = range(len(MENU)), [weight for _, weight, _ in MENU]
    steps: list[Step] = []
    start_s = chance.uniform(3.0, 10.0)
    while start_s + _SHORTEST_S < duration_s:
        kind, _, pick = MENU[chance.choices(kinds, weights)[0]]
        targets, how = pick(chance, names)
        end_s = min(start_s + chance.uniform(_SHORTEST_S, LONGEST_S), duration_s)
        step = Step(round(start_s, 1), round(end_s, 1), kind, targets, how)
        if not any(_clash(step, other) for other in steps):
            steps.append(step)
        start_s += chance.uniform(2.0, _GAP_S)
    return steps


#: They take no process down: what else happens to the same host is done and healed independently.
_CUTS = frozenset(
    {
        FaultKind.CUT_ZOOKEEPER,
        FaultKind.CUT_MYSQL,
        FaultKind.CUT_ALL,
        FaultKind.CUT_REPLIES,
        FaultKind.PARTITION,
    }
)


def _clash(one: Step, other: Step) -> bool:
    apart = one.start_s >= other.end_s or other.start_s >= one.end_s
    if apart:
        return False
    if one.kind in ALONE or other.kind in ALONE:
        return True
    if one.kind in _CUTS or other.kind in _CUTS:
        return False
    # Whom a dead leader's place goes to is not known beforehand: of the managers one at a time.
    managing = {FaultKind.LEADER_KILLED, FaultKind.MANAGER_PAUSED}
    return {one.kind, other.kind} <= managing or bool(set(one.targets) & set(other.targets))


def play(trial: Trial, steps: Sequence[Step]) -> None:
    """Do and heal each fault at its time; late ones at once. Every step is printed as it begins."""
    began = time.monotonic()
    turns = [(step.start_s, 1, index) for index, step in enumerate(steps)]
    turns += [(step.end_s, 0, index) for index, step in enumerate(steps)]
    struck: dict[int, Fault] = {}
    for at_s, begins, index in sorted(turns):
        trial.wait(max(0.0, began + at_s - time.monotonic()))
        if begins:
            print(f"nemesis: {steps[index]}", flush=True)
            struck[index] = _strike(trial, steps[index])
        else:
            struck[index].heal()


def _strike(trial: Trial, step: Step) -> Fault:
    targets = step.targets
    if step.kind is FaultKind.LEADER_KILLED:
        with contextlib.suppress(LookupError):  # nobody leads: then the manager that was drawn
            targets = (trial.fleet.leader(),)
    return trial.strike(step.kind, targets, step.how)


def names_of(fleet: Fleet) -> Names:
    """Return what a schedule may choose from."""
    return Names(tuple(fleet.workers), tuple(fleet.managers), tuple(fleet.apis), tuple(fleet.zookeepers))


#: Whatever was done last, so long after everything is healed every fire is on time again.
BOUNDS = Bounds(recovery_s=45.0)


def run_schedule(fleet: Fleet, folder: Path, *, seed: int, duration_s: float, jobs: int = 20) -> None:
    """Run one schedule as a trial; raises AssertionError with the checker's report if it finds anything."""
    steps = draw_schedule(seed, duration_s, names_of(fleet))
    with Trial(fleet, folder, seed=seed, bounds=BOUNDS) as trial:
        std(trial, jobs=jobs)
        play(trial, steps)
        trial.finish(steady_s=30.0)


def main() -> int:
    """Run one schedule from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nemesis", description="One random fault trial.")
    parser.add_argument("--seed", type=int, default=seed_from_environment(), help="drawn and printed unless given")
    parser.add_argument("--duration", type=float, default=300.0, metavar="S", help="seconds of faults (300)")
    parser.add_argument("--jobs", type=int, default=20, help="jobs of the standard load (20)")
    parser.add_argument("--workers", type=int, default=3, help="nodes (3)")
    parser.add_argument("--folder", type=Path, help="where the history goes; a new folder unless given")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix=f"cronkeeper-seed-{args.seed}-"))
    try:
        with Fleet(Sizes(workers=args.workers)) as fleet:
            run_schedule(fleet, folder, seed=args.seed, duration_s=args.duration, jobs=args.jobs)
    except AssertionError:
        print(f"nemesis: seed {args.seed} FAILED; its history is in {folder}")
        return 1
    print(f"nemesis: seed {args.seed} passed")
    return 0
