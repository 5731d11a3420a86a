"""Ways to spoil a perfect history, each with what the checker has to call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.faults.checker import Kind
from tests.faults.checker.history import History, Missed, OpKind, Start, instant_text
from tests.unit.checker_worlds import BOUNDS, CHANGE_S, HEAL_S, JobPlan, World, moved, with_row, without

#: Returns the spoilt history and the one kind of violation in it; None where a world has nothing to spoil that way.
Mutation = Callable[[World, History], tuple[History, Kind] | None]


def one_clean(world: World, test: Callable[[JobPlan], bool] = lambda _: True) -> Start | None:
    fitting = [start for start in world.clean if test(plan_of(world, start))]
    return world.chance.choice(fitting) if fitting else None


def plan_of(world: World, start: Start) -> JobPlan:
    return world.jobs[int(start.job) - 1]


def changed(world: World, kind: OpKind) -> int | None:
    """Return the number of a job that this was done to."""
    return next((number for number, job in enumerate(world.jobs, 1) if job.change is kind), None)


def drop_run(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    return None if start is None else (without(history, start), Kind.SILENT_MISS)


def drop_row(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    rows = tuple(row for row in history.ledger if start is None or row.id != start.run)
    return None if start is None else (replace(history, ledger=rows), Kind.UNRECORDED)


def start_twice(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    again = replace(start, token="again", node="w3", wall_s=start.wall_s + 0.3)
    end = next(end for end in history.ends if end.token == start.token)
    spoilt = replace(history, starts=(*history.starts, again), ends=(*history.ends, replace(end, token="again")))
    once = plan_of(world, start).fields["delivery"] == "at_most_once"
    return spoilt, Kind.AT_MOST_ONCE if once else Kind.DUPLICATE


def run_again_after_success(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world, lambda job: job.exit == 0)
    if start is None:
        return None
    once = plan_of(world, start).fields["delivery"] == "at_most_once"
    world.run(int(start.job), start.shard, start.fire_ms / 1000, attempt=2, late_s=7.0)
    return world.history(), Kind.AT_MOST_ONCE if once else Kind.DUPLICATE


def retry_too_soon(world: World, history: History) -> tuple[History, Kind] | None:
    first = next((s for s in world.starts if s.attempt == 2 and s.fire_ms / 1000 > HEAL_S + BOUNDS.recovery_s), None)
    before = next((s for s in world.starts if first and s.run == first.run[:-1] + "1"), None)
    if first is None or before is None:
        return None
    return moved(history, first, before.wall_s + 0.5 - first.wall_s), Kind.ATTEMPT_ORDER


def start_late(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    jitter_s = plan_of(world, start).fields["jitter_s"]
    late_s = start.fire_ms / 1000 + jitter_s + BOUNDS.on_time_s + 0.01 - start.wall_s
    return moved(history, start, late_s), Kind.LATE


def start_early(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    return None if start is None else (moved(history, start, start.fire_ms / 1000 - 0.3 - start.wall_s), Kind.EARLY)


def start_beyond_grace(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    jitter_s = plan_of(world, start).fields["jitter_s"]
    late_s = start.fire_ms / 1000 + jitter_s + 5 + BOUNDS.on_time_s + 0.01 - start.wall_s
    return moved(history, start, late_s), Kind.TOO_LATE


def swap_labels(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    other = next(
        (s for s in world.clean if start and s.name == start.name and s.shard == start.shard and s != start), None
    )
    if start is None or other is None:
        return None
    swapped = {
        start.token: replace(start, fire_ms=other.fire_ms, run=other.run),
        other.token: replace(other, fire_ms=start.fire_ms, run=start.run),
    }
    return replace(history, starts=tuple(swapped.get(s.token, s) for s in history.starts)), Kind.MISLABELLED


def forge_success(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    return None if start is None else (without(history, start, row=False), Kind.PHANTOM)


def forge_exit(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    other = ("failed", 9) if plan_of(world, start).exit == 0 else ("succeeded", 0)
    return with_row(history, start, state=other[0], exit_code=other[1]), Kind.WRONG_END


def never_record_the_end(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    return (
        None
        if start is None
        else (with_row(history, start, state="running", exit_code=None, ended_at=None), Kind.WRONG_END)
    )


def never_end(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    ends = tuple(end for end in history.ends if end.token != start.token)
    return with_row(replace(history, ends=ends), start, state="running", exit_code=None), Kind.INCOMPLETE


def skip_without_reason(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    gone = without(history, start, row=False)
    return with_row(gone, start, state="skipped", reason=None, exit_code=None), Kind.UNREASONED


def skip_without_excuse(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    reason = world.chance.choice(["late", "superseded", "overlap", "worker_lost", "isolated", "paused"])
    gone = without(history, start, row=False)
    return with_row(gone, start, state="skipped", reason=reason, exit_code=None), Kind.MISSED


def miss_without_excuse(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    verdict = Missed(start.job, start.shard, instant_text(start.fire_ms), "cron_silent")
    return replace(without(history, start), missed=(verdict,)), Kind.MISSED


def call_a_run_missed(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world)
    if start is None:
        return None
    verdict = Missed(start.job, start.shard, instant_text(start.fire_ms), "unknown")
    return replace(history, missed=(verdict,)), Kind.COUNT


def run_after(kind: OpKind) -> Mutation:
    def mutate(world: World, history: History) -> tuple[History, Kind] | None:
        number = changed(world, kind)
        if number is None:
            return None
        # 180 s is a fire of every schedule here; an edit to 30 s leaves out 195 s.
        fire_s = CHANGE_S + (45 if kind is OpKind.REPLACE else 30)
        world.run(number, 0, fire_s, late_s=0.2)
        return world.history(), Kind.UNEXPECTED

    return mutate


def overlap(world: World, history: History) -> tuple[History, Kind] | None:
    start = one_clean(world, lambda job: job.fields["concurrency"] != "allow")
    if start is None:
        return None
    task = [s for s in world.starts if (s.name, s.shard) == (start.name, start.shard) and s.wall_s > start.wall_s]
    following = min((s for s in task if s.fire_ms > start.fire_ms), key=lambda s: s.wall_s, default=None)
    if following is None or following not in world.clean:
        return None
    ends = tuple(
        replace(end, wall_s=following.wall_s + 0.5) if end.token == start.token else end for end in history.ends
    )
    return replace(history, ends=ends), Kind.OVERLAP


def never_recover(world: World, history: History) -> tuple[History, Kind] | None:
    steady = [number for number, job in enumerate(world.jobs, 1) if job.change is None]
    if world.kind is None or not steady:
        return None
    number = str(world.chance.choice(steady))
    for start in [s for s in world.starts if s.job == number and s.shard == 0]:
        if start.fire_ms / 1000 > HEAL_S + BOUNDS.recovery_s:
            history = without(history, start)
    return history, Kind.NOT_RECOVERED


def two_owners(world: World, history: History) -> tuple[History, Kind] | None:
    look = history.owners[0]
    tasks = [task for given in look.assigned.values() for task in given]
    if not tasks:
        return None
    both = {node: tuple({*given, tasks[0]}) for node, given in look.assigned.items()}
    return replace(history, owners=(replace(look, assigned=both, crontabs=both),)), Kind.OWNERS


def stale_crontab(world: World, history: History) -> tuple[History, Kind] | None:
    look = history.owners[0]
    stale = {node: (*given, "1/0") if "1/0" not in given else given for node, given in look.assigned.items()}
    return replace(history, owners=(replace(look, crontabs=stale),)), Kind.OWNERS


def lose_job(world: World, history: History) -> tuple[History, Kind] | None:
    kept = [number for number, job in enumerate(world.jobs, 1) if job.change is not OpKind.DELETE]
    jobs = tuple(job for job in history.jobs if not kept or job.id != str(kept[0]))
    return (replace(history, jobs=jobs), Kind.JOB_LOST) if kept else None


def forget_demand(world: World, history: History) -> tuple[History, Kind] | None:
    steady = [number for number, job in enumerate(world.jobs, 1) if job.change is None]
    if not steady or world.kind is not None:
        return None
    world.op(steady[0], OpKind.RUN, CHANGE_S + 7.0)
    return world.history(), Kind.SILENT_MISS


MUTATIONS: dict[str, Mutation] = {
    "drop run": drop_run,
    "drop row": drop_row,
    "start twice": start_twice,
    "run again after success": run_again_after_success,
    "retry too soon": retry_too_soon,
    "start late": start_late,
    "start early": start_early,
    "start beyond grace": start_beyond_grace,
    "swap labels": swap_labels,
    "forge success": forge_success,
    "forge exit": forge_exit,
    "never record the end": never_record_the_end,
    "never end": never_end,
    "skip without reason": skip_without_reason,
    "skip without excuse": skip_without_excuse,
    "miss without excuse": miss_without_excuse,
    "call a run missed": call_a_run_missed,
    "run after delete": run_after(OpKind.DELETE),
    "run after pause": run_after(OpKind.PAUSE),
    "run of an old version": run_after(OpKind.REPLACE),
    "overlap": overlap,
    "never recover": never_recover,
    "two owners": two_owners,
    "stale crontab": stale_crontab,
    "lose a job": lose_job,
    "forget a demand": forget_demand,
}
