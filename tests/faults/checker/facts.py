"""What happened, sorted for the judges: runs by fire, on one clock; rows and verdicts by fire."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.checker.history import ClockSample, End, Fault, History, Missed, Op, OpKind, OpResult, Row, Start
from tests.faults.checker.policy import Window, windows
from tests.faults.checker.timeline import Key, Target, targets


class Kind(StrEnum):
    """What can be held against the system."""

    LATE = "late"
    TOO_LATE = "too_late"
    EARLY = "early"
    MISSED = "missed"
    SILENT_MISS = "silent_miss"
    UNREASONED = "unreasoned"
    DUPLICATE = "duplicate"
    AT_MOST_ONCE = "at_most_once"
    UNREPORTED_DUPLICATE = "unreported_duplicate"
    ATTEMPT_ORDER = "attempt_order"
    OVERLAP = "overlap"
    UNEXPECTED = "unexpected"
    MISLABELLED = "mislabelled"
    UNRECORDED = "unrecorded"
    PHANTOM = "phantom"
    INCOMPLETE = "incomplete"
    WRONG_END = "wrong_end"
    COUNT = "count"
    OWNERS = "owners"
    JOB_LOST = "job_lost"
    NOT_RECOVERED = "not_recovered"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept: which, by what, and the lines of the history that show it."""

    kind: Kind
    text: str
    key: Key | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A process of a job, on the reference clock. Without an end it wrote none: it was killed."""

    start: Start
    start_s: float
    end: End | None
    end_s: float | None

    @property
    def key(self) -> Key:
        return self.start.name, self.start.shard, self.start.fire_ms


class Facts:
    """A history, sorted. Nothing here judges."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.bounds = history.plan.bounds
        self.read_s = history.plan.read_s
        self.windows: list[Window] = windows(history)
        self.targets: dict[Key, Target] = targets(history, self.windows)
        #: Job id -> the job's name in this trial.
        self.names: dict[str, str] = {op.job: op.name for op in history.ops if op.job is not None}
        self.runs: dict[Key, list[Run]] = defaultdict(list)
        for run in _runs(history):
            self.runs[run.key].append(run)
        self.rows: dict[Key, list[Row]] = defaultdict(list)
        for row in sorted(history.ledger, key=lambda one: one.attempt):
            if row.job_id in self.names:
                self.rows[self.names[row.job_id], row.shard, row.fire_ms].append(row)
        self.missed: dict[Key, Missed] = {
            (self.names[one.job_id], one.shard, one.fire_ms): one for one in history.missed if one.job_id in self.names
        }
        self.by_task: dict[tuple[str, int], list[Run]] = defaultdict(list)
        for runs in self.runs.values():
            for run in runs:
                self.by_task[run.key[:2]].append(run)
        for of_task in self.by_task.values():
            of_task.sort(key=lambda one: one.start_s)

    def touching(self, start_s: float, end_s: float, nodes: Iterable[str] = ()) -> list[Window]:
        """Return the faults that may be to blame for something at that time on these nodes (none given: anywhere)."""
        where = tuple(nodes)
        return [window for window in self.windows if window.touches(start_s, end_s, where)]

    def around(self, key: Key) -> set[str]:
        """Return the nodes that had the task around a fire: where it ran, before, then and after."""
        nodes = {run.start.node for run in self.runs.get(key, ())}
        before = after = None
        for run in self.by_task.get(key[:2], ()):
            if run.start_s < key[2] / 1000:
                before = run.start.node
            elif after is None:
                after = run.start.node
        return nodes | {node for node in (before, after) if node is not None}

    def busy(self, key: Key, start_s: float, end_s: float) -> bool:
        """Say whether another run of the task lived at that time; one that wrote no end may have lived on."""
        return any(
            run.key != key and run.start_s < end_s and (run.end_s is None or run.end_s > start_s)
            for run in self.by_task.get(key[:2], ())
        )

    def longest_s(self, run: Run) -> float:
        """Return how long a run can have lived that wrote no end: as long as any other of its task, and a little."""
        lives = [one.end_s - one.start_s for one in self.by_task[run.key[:2]] if one.end_s is not None]
        return max(lives) + self.bounds.on_time_s if lives else float("inf")

    def manual(self, key: Key) -> Op | None:
        """Return the operation that asked for a run at this fire time, if any."""
        at_s, slack_s = key[2] / 1000, self.bounds.skew_s
        for op in self.history.ops:
            if op.op is OpKind.RUN and op.name == key[0] and op.result is not OpResult.FAIL:
                late_s = slack_s if op.result is OpResult.OK else self.bounds.propagation_s
                if op.invoked_s - slack_s <= at_s <= op.completed_s + late_s:
                    return op
        return None

    def lines(self, key: Key) -> tuple[str, ...]:
        """Return all that the history says about a fire, for a person."""
        runs, rows = self.runs.get(key, ()), self.rows.get(key, ())
        found = [f"truth  {run.start}" for run in runs]
        found += [f"truth  {run.end}" for run in runs if run.end is not None]
        found += [f"ledger {row}" for row in rows]
        return (*found, *([f"missed {self.missed[key]}"] if key in self.missed else []), *self._around(key))

    def _around(self, key: Key) -> list[str]:
        at_s = key[2] / 1000
        return [f"fault  {fault}" for fault in self.history.faults if _near(fault, at_s, self.bounds.recovery_s)]

    def violation(self, kind: Kind, key: Key, text: str) -> Violation:
        """Return a violation about a fire, with its lines."""
        name, shard, fire_ms = key
        return Violation(kind, f"{name}/{shard} at {fire_ms / 1000:.3f}: {text}", key, self.lines(key))


def _near(fault: Fault, at_s: float, recovery_s: float) -> bool:
    return fault.started_s - 60 <= at_s <= (fault.healed_s or float("inf")) + recovery_s + 60


def _runs(history: History) -> list[Run]:
    clocks: Mapping[str, list[ClockSample]] = defaultdict(list)
    for sample in history.clocks:
        clocks[sample.node].append(sample)
    ends = {end.token: end for end in history.ends}
    found = []
    for start in history.starts:
        end, samples = ends.get(start.token), clocks.get(start.node, [])
        end_s = None if end is None else reference_s(end.wall_s, end.boot_s, samples)
        found.append(Run(start, reference_s(start.wall_s, start.boot_s, samples), end, end_s))
    return sorted(found, key=lambda run: run.start_s)


def reference_s(wall_s: float, boot_s: float, samples: Sequence[ClockSample]) -> float:
    """Return an instant on the reference clock. A node's boot-time clock goes at its pace, whatever its wall clock."""
    if not samples:
        return wall_s
    nearest = min(samples, key=lambda sample: abs(sample.boot_s - boot_s))
    return nearest.reference_s + boot_s - nearest.boot_s
