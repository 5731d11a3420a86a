"""The gate: from a task, what was decided before and an instant, to one decision for every fire that is due.

PURE. Whoever calls it, and however often (a timer, cron, cron twice, cron hours late after a suspend), decisions are
made by fire time, from the task's schedule since the last recorded one; so a trigger can be late, doubled or replayed
and does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Concurrency, JobSpec, JobState, Misfire
from cronkeeper.domain.run import Reason, Trigger
from cronkeeper.domain.schedule import Kind, Schedule

#: A fire that starts at most this much after its time (and jitter) is on time; a later one is a misfire.
ON_TIME_MS = 15_000
#: A look that comes later than this was held up by ourselves, as by a store that is silent: cron's own take 1.7 s.
HELD_UP_MS = 2_000
#: At most so many fires of a task are decided one by one after an absence; older ones are counted in `Verdict.dropped`.
MAX_DECISIONS = 1000
#: `misfire: all` runs at most so many; `concurrency: queue` keeps at most so many waiting.
MAX_CATCH_UP = 100


@dataclass(frozen=True, slots=True)
class TaskView:
    """What the gate must know of a task. Instants are epoch milliseconds, UTC."""

    id: TaskId
    spec: JobSpec
    schedule: Schedule
    state: JobState
    #: Nothing at or before this instant is due: the newest decided fire, or the generation's start.
    cursor_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The one durable decision about a fire. Without `run`, `reason` says why; with `wait`, others end first."""

    key: RunKey
    trigger: Trigger
    run: bool
    reason: Reason | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do now. `next_ms` is when to look again at the latest; None is never."""

    decisions: tuple[Decision, ...]
    cursor_ms: int
    next_ms: int | None
    #: Active runs to end (concurrency: replace).
    cancel: tuple[RunKey, ...] = ()
    #: Fires older than the newest MAX_DECISIONS.
    dropped: int = 0


def decide(
    task: TaskView,
    now_ms: int,
    *,
    trigger: Trigger,
    active: Sequence[RunKey] = (),
    waiting: Sequence[RunKey] = (),
    hearsay: bool = False,
) -> Verdict:
    """Return a decision for each fire that is due at `now_ms`, oldest first.

    `active` are runs of the task that are in progress (anywhere); `waiting` are decided ones that have not started.
    With `hearsay` some are in progress on other nodes, by the ledger: they may have ended since.
    """
    if task.state is not JobState.ACTIVE:
        return Verdict((), task.cursor_ms, None)
    low_ms, high_ms = task.spec.due_between(task.cursor_ms, now_ms)
    times, dropped = task.schedule.latest_fires(low_ms, high_ms, keep=MAX_DECISIONS) if high_ms > low_ms else ([], 0)
    due = _without_future_jitter(task, times, now_ms)
    cursor_ms = due[-1] if due else task.cursor_ms
    chosen = _by_misfire(task, due, now_ms, trigger)
    decisions, cancel = _by_concurrency(task, chosen, list(active), list(waiting), now_ms, hearsay)
    return Verdict(decisions, cursor_ms, next_look_ms(task, cursor_ms), cancel, dropped)


def decide_one(
    task: TaskView, key: RunKey, *, trigger: Trigger, active: Sequence[RunKey] = (), waiting: Sequence[RunKey] = ()
) -> tuple[Decision, tuple[RunKey, ...]]:
    """Decide about a run that no schedule asked for: on demand, a retry, or the rerun of a lost one.

    A retry waits where a fire of its own would be refused: it belongs to a fire that was decided long before.
    """
    plain = Decision(key, trigger, run=True)
    if trigger in (Trigger.RETRY, Trigger.CATCH_UP):
        busy = bool(active) and task.spec.concurrency is not Concurrency.ALLOW
        return Decision(key, trigger, run=True, wait=busy), ()
    decisions, cancel = _by_concurrency(task, [plain], list(active), list(waiting))
    return decisions[-1], cancel


def next_look_ms(task: TaskView, after_ms: int) -> int | None:
    """Return the instant at which the first fire after `after_ms` is to start, its jitter included."""
    low_ms, _ = task.spec.due_between(after_ms, after_ms)
    fire_ms = task.schedule.next_fire(low_ms)
    if fire_ms is None or (task.spec.ends_at_ms is not None and fire_ms >= task.spec.ends_at_ms):
        return None
    return fire_ms + task.spec.jitter_ms(task.id, fire_ms)


def _without_future_jitter(task: TaskView, times: list[int], now_ms: int) -> list[int]:
    """Cut the list before the first fire whose jitter has not passed: fires keep their order."""
    if not task.spec.jitter_s:
        return times
    for index, fire_ms in enumerate(times):
        if fire_ms + task.spec.jitter_ms(task.id, fire_ms) > now_ms:
            return times[:index]
    return times


def _by_misfire(task: TaskView, due: list[int], now_ms: int, trigger: Trigger) -> list[Decision]:
    """Apply grace and misfire policy: which of the due fires shall run at all?"""
    ages = {fire_ms: now_ms - fire_ms - task.spec.jitter_ms(task.id, fire_ms) for fire_ms in due}
    grace_ms = task.spec.grace_s * 1000
    # A node takes its time to start, and no two take the same.
    on_time_ms = grace_ms if task.schedule.kind is Kind.REBOOT else min(ON_TIME_MS, grace_ms)
    punctual = [fire_ms for fire_ms in due if ages[fire_ms] <= on_time_ms]
    late = [fire_ms for fire_ms in due if on_time_ms < ages[fire_ms] <= grace_ms]
    catch_up: set[int] = set()
    if task.spec.misfire is Misfire.ALL:
        # Whoever wants all of several wants them one after the other, those too that are hardly late.
        catch_up = set(late[-MAX_CATCH_UP:]) | set(punctual if len(due) > 1 else ())
    elif task.spec.misfire is Misfire.LATEST and not punctual:
        catch_up = set(late[-1:])
    decisions = []
    for fire_ms in due:
        key = RunKey(task.id, fire_ms, 1)
        if fire_ms in punctual and fire_ms not in catch_up:
            decisions.append(Decision(key, trigger, run=True))
        elif fire_ms in catch_up:
            decisions.append(Decision(key, Trigger.CATCH_UP, run=True))
        elif ages[fire_ms] <= grace_ms and task.spec.misfire is Misfire.LATEST:
            decisions.append(Decision(key, trigger, run=False, reason=Reason.SUPERSEDED))
        else:
            decisions.append(Decision(key, trigger, run=False, reason=Reason.LATE))
    return decisions


def _by_concurrency(
    task: TaskView,
    chosen: list[Decision],
    active: list[RunKey],
    waiting: list[RunKey],
    now_ms: int = 0,
    hearsay: bool = False,
) -> tuple[tuple[Decision, ...], tuple[RunKey, ...]]:
    """Apply the concurrency policy to the fires that shall run."""
    policy = task.spec.concurrency
    if policy is Concurrency.ALLOW:
        return tuple(chosen), ()
    result: list[Decision] = []
    cancel: list[RunKey] = []
    for decision in chosen:
        busy = bool(active or waiting)
        if not decision.run or not busy:
            result.append(decision)
        elif policy is Concurrency.REPLACE:
            cancel += [key for key in active if key not in cancel]
            result = [_superseded(earlier) if earlier.wait else earlier for earlier in result]
            result.append(Decision(decision.key, decision.trigger, run=True, wait=True))
        elif _may_queue(task, decision, now_ms, hearsay) and len(waiting) < MAX_CATCH_UP:
            result.append(Decision(decision.key, Trigger.QUEUE, run=True, wait=True))
        else:
            result.append(Decision(decision.key, decision.trigger, run=False, reason=Reason.OVERLAP))
        last = result[-1]
        if last.run:
            (waiting if last.wait else active).append(last.key)
    return tuple(result), tuple(cancel)


def _may_queue(task: TaskView, decision: Decision, now_ms: int, hearsay: bool) -> bool:
    if task.spec.concurrency is Concurrency.QUEUE or decision.trigger is Trigger.CATCH_UP:
        # `misfire: all` promises that each late fire runs; under `forbid` they run one after the other.
        return True
    # Nor is a fire to be lost because the run before it was held up together with this look, or has ended on another
    # node that could not tell.
    due_ms = decision.key.fire_ms + task.spec.jitter_ms(task.id, decision.key.fire_ms)
    return task.spec.misfire is Misfire.ALL and (hearsay or now_ms - due_ms > HELD_UP_MS)


def _superseded(decision: Decision) -> Decision:
    return Decision(decision.key, decision.trigger, run=False, reason=Reason.SUPERSEDED)
