"""Perfect histories of a fleet that keeps every promise, for the tests of the checker."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from tests.faults.checker.history import (
    Bounds,
    End,
    Fault,
    FaultKind,
    History,
    JobRow,
    Op,
    OpKind,
    OpResult,
    Owners,
    Plan,
    Row,
    Start,
    instant_text,
)

#: 2026-06-01T00:00:00Z: a whole minute.
BEGIN_S = 1_780_272_000
READ_S = BEGIN_S + 240
BOUNDS = Bounds(on_time_s=2.5, propagation_s=15.0, recovery_s=20.0, skew_s=0.25)
CHANGE_S = BEGIN_S + 150
FAULT_S, HEAL_S = BEGIN_S + 58, BEGIN_S + 78
NODES = ("w1", "w2", "w3")


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job of a perfect history. It fires every `interval_s` seconds from second 0 of each minute."""

    name: str
    interval_s: int = 15
    every: bool = False
    shards: int = 1
    exit: int = 0
    sleep_s: float = 1.0
    change: OpKind | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def spec(self, interval_s: int) -> dict[str, Any]:
        """Return the whole job as the API would show it."""
        schedule = f"@every {interval_s}s" if self.every else f"*/{interval_s} * * * * *"
        return {
            "schedule": schedule,
            "timezone": "Europe/Berlin",
            "dst": {"gap": None, "fold": None},
            "starts_at": None,
            "ends_at": None,
            "shards": self.shards,
            "delivery": "at_least_once",
            "on_worker_loss": "rerun",
            "misfire": "latest",
            "concurrency": "forbid",
            "grace_s": 5,
            "jitter_s": 0,
            "retry": {"limit": 0, "backoff_s": 1, "max_backoff_s": 1},
            **self.fields,
        }


@dataclass(slots=True)
class World:
    """A history in the making, and what a mutation needs to know of it."""

    jobs: list[JobPlan]
    kind: FaultKind | None
    seed: int
    chance: random.Random = field(init=False, repr=False)
    ops: list[Op] = field(default_factory=list, repr=False)
    starts: list[Start] = field(default_factory=list, repr=False)
    ends: list[End] = field(default_factory=list, repr=False)
    rows: list[Row] = field(default_factory=list, repr=False)
    #: Runs far from any fault or change, which ran once.
    clean: list[Start] = field(default_factory=list, repr=False)
    #: Runs whose fire fell into the fault, on the node that it hit.
    hurt: list[Start] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def history(self) -> History:
        """Return the perfect history."""
        faults = () if self.kind is None else (Fault(self.kind, ("w2",), FAULT_S, HEAL_S, HEAL_S),)
        tasks: dict[str, tuple[str, ...]] = {
            node: tuple(
                f"{number}/{shard}"
                for number, job in enumerate(self.jobs, 1)
                for shard in range(job.shards)
                if job.change is not OpKind.DELETE and home(number, shard) == node
            )
            for node in NODES
        }
        statuses: dict[OpKind | None, str] = {OpKind.DELETE: "finished", OpKind.PAUSE: "paused"}
        return History(
            Plan(1, BEGIN_S, READ_S, BOUNDS),
            ops=tuple(self.ops),
            starts=tuple(self.starts),
            ends=tuple(self.ends),
            faults=faults,
            ledger=tuple(self.rows),
            jobs=tuple(
                JobRow(str(number), statuses.get(job.change, "scheduled"), 1) for number, job in enumerate(self.jobs, 1)
            ),
            owners=(Owners(READ_S - 2.0, tasks, tasks),),
        )

    def op(self, number: int, op: OpKind, at_s: float, spec: dict[str, Any] | None = None) -> None:
        """Have a user ask for something, and get it."""
        name = self.jobs[number - 1].name
        self.ops.append(Op(op, name, str(number), 1, spec, at_s, at_s + 0.05, OpResult.OK, 200))

    def run(self, number: int, shard: int, fire_s: float, **more: Any) -> Start:
        """Have a fire run as it should; `late_s`, `attempt`, `exit`, `node` and `trigger` otherwise."""
        job, attempt = self.jobs[number - 1], more.get("attempt", 1)
        fire_ms, exit_status = int(fire_s * 1000), more.get("exit", job.exit)
        begun_s = fire_s + more.get("late_s", self.chance.uniform(0.0, 1.5))
        node, token = more.get("node", home(number, shard)), f"{self.chance.getrandbits(64):x}"
        run = f"{number}/{shard}@{fire_ms}/{attempt}"
        start = Start(
            job.name, str(number), run, fire_ms, attempt, shard, node, "1", token, node, 7, begun_s, begun_s - BEGIN_S
        )
        ended_s = begun_s + job.sleep_s
        self.starts.append(start)
        self.ends.append(End(token, ended_s, ended_s - BEGIN_S, exit_status))
        self.rows.append(row_of(start, exit_status, more.get("trigger", "timer")))
        return start


def row_of(start: Start, exit_status: int, trigger: str = "timer") -> Row:
    """Return the row of a run that ended so."""
    at = instant_text(int(start.wall_s * 1000))
    state = "failed" if exit_status else "succeeded"
    return Row(
        id=start.run,
        job_id=start.job,
        fire_time=instant_text(start.fire_ms),
        attempt=start.attempt,
        shard=start.shard,
        trigger=trigger,
        state=state,
        reason=None,
        worker=start.worker,
        claimed_at=at,
        started_at=at,
        ended_at=at,
        exit_code=exit_status,
        signal=None,
        autonomous=False,
    )


def home(number: int, shard: int) -> str:
    """Return the node that has a task."""
    return NODES[(number + shard) % len(NODES)]


def make_world(jobs: list[JobPlan], kind: FaultKind | None, seed: int) -> World:
    """Let a fleet do these jobs for four minutes, with one fault of w2 if there is a kind."""
    world = World(jobs, kind, seed)
    for number, job in enumerate(jobs, 1):
        world.op(number, OpKind.CREATE, BEGIN_S + 0.1, job.spec(job.interval_s))
        if job.change is not None:
            # What an edit makes of it fires at other times, half of them.
            spec = job.spec(job.interval_s * 2) if job.change is OpKind.REPLACE else None
            world.op(number, job.change, CHANGE_S + 0.5, spec)
        for shard in range(job.shards):
            for fire_s in range(BEGIN_S + job.interval_s, READ_S, job.interval_s):
                _fire(world, number, shard, fire_s)
    return world


def _fire(world: World, number: int, shard: int, fire_s: int) -> None:
    job = world.jobs[number - 1]
    if fire_s > CHANGE_S and job.change is not None and not _goes_on(job, fire_s):
        return
    late_s = world.chance.uniform(0.0, 1.5) + world.chance.uniform(0, job.fields.get("jitter_s", 0))
    hurt = world.kind is not None and home(number, shard) == "w2" and FAULT_S <= fire_s < HEAL_S
    late_s = 4.0 if hurt else late_s
    start = world.run(number, shard, fire_s, late_s=late_s)
    limit = job.fields.get("retry", {}).get("limit", 0)
    for attempt in range(2, limit + 2 if job.exit else 2):
        world.run(number, shard, fire_s, attempt=attempt, late_s=late_s + 2.0 * (attempt - 1))
    if hurt:
        world.hurt.append(start)
    calm = world.kind is None or not FAULT_S - 16 <= fire_s <= HEAL_S + BOUNDS.recovery_s + 16
    settled = fire_s > BEGIN_S + 20 and (fire_s < CHANGE_S - 32 if job.change is not None else fire_s < READ_S - 32)
    if calm and settled and not (limit and job.exit):
        world.clean.append(start)


def _goes_on(job: JobPlan, fire_s: int) -> bool:
    return job.change is OpKind.REPLACE and fire_s % (job.interval_s * 2) == 0


def without(history: History, start: Start, *, row: bool = True) -> History:
    """Return the history as if this run had not been (with `row`, as if nobody had said so either)."""
    return replace(
        history,
        starts=tuple(one for one in history.starts if one.token != start.token),
        ends=tuple(one for one in history.ends if one.token != start.token),
        ledger=tuple(one for one in history.ledger if not row or one.id != start.run),
    )


def moved(history: History, start: Start, by_s: float) -> History:
    """Return the history with this run that much later."""
    return replace(
        history,
        starts=tuple(replace(one, wall_s=one.wall_s + by_s) if one == start else one for one in history.starts),
        ends=tuple(replace(one, wall_s=one.wall_s + by_s) if one.token == start.token else one for one in history.ends),
    )


def with_row(history: History, start: Start, **changes: Any) -> History:
    """Return the history with the row of this run changed."""
    rows = tuple(replace(one, **changes) if one.id == start.run else one for one in history.ledger)
    return replace(history, ledger=rows)
