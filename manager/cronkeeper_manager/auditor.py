"""What was due, and what became of it. PURE: versions of jobs, the ledger and facts about the fleet in, verdicts out.

The auditor shares with the part that fires only what a schedule means (`JobSpec`, `Schedule`). It asks the ledger about
every fire that was expected, once its fate has to be known: its jitter and grace are over, and some time for the news.
A run or a skip is fine. Anything else is MISSED, with one reason, found in this order:

- paused, ended: the job was paused or finished after the fire and before its grace was over.
- worker_lost: the worker that had the task is lost, its lease says so; or the task was moved away from a lost worker
  after the fire.
- isolated: its worker is not heard in MySQL, but not lost: its journal may still tell. Held; the verdict when it is
  heard, or lost.
- no_worker_fits: the task had no worker, and the planner finds none; or it got one only after the grace was over.
- cron_silent: the worker had reported its node's cron as silent, and its timer did not fire either.
- platform_down: no leader audited at the time of the fire: the auditor's own mark stood still.
- unknown: none of these; or the job was changed just then, which the detail says. The one to look into first.

not_yet_started and calendar are answers to "why": nothing was due. overlap, fence_refused, late and artifact_missing
are what the worker itself decided and wrote down as a skip; `reason_of_skip` maps a skip's reason into this list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Concurrency, JobSpec, JobState
from cronkeeper.domain.placement import Assignment, Lease, MoveReason
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.ports import Fate, Fire, JobVersion

#: After a fire's grace the news may take so long: the reporter's batches, a retry, a short absence of MySQL.
SETTLE_MS = 60_000
#: A fire of which nothing is known so long after its time is overdue: a person hears before the grace is over.
OVERDUE_MS = 120_000
#: A worker that has been heard in MySQL for so long without a break has carried home what it had.
HEARD_MS = 60_000
#: A lease older than this is not fresh.
FRESH_MS = 15_000
#: A claim that old without a start is no sign of life.
STUCK_MS = 120_000
#: A worker goes by an older version for so long, until the news has reached it.
NEWS_MS = 60_000
#: A silent cron is noticed so long after it fell silent.
CRON_NOTICED_MS = 180_000


class MissReason(StrEnum):
    """Why a fire that was due did not run. A closed list: stored, shown and used as a metric label."""

    PAUSED = "paused"
    NOT_YET_STARTED = "not_yet_started"
    ENDED = "ended"
    OVERLAP = "overlap"
    CALENDAR = "calendar"
    NO_WORKER_FITS = "no_worker_fits"
    WORKER_LOST = "worker_lost"
    ISOLATED = "isolated"
    FENCE_REFUSED = "fence_refused"
    LATE = "late"
    ARTIFACT_MISSING = "artifact_missing"
    CRON_SILENT = "cron_silent"
    PLATFORM_DOWN = "platform_down"
    UNKNOWN = "unknown"


#: Reasons of skips that this list has no word of its own for.
_AKIN = {Reason.SUPERSEDED: MissReason.LATE, Reason.REPLACED: MissReason.OVERLAP}


def reason_of_skip(reason: Reason | None) -> MissReason:
    """Return the auditor's word for the reason that a worker gave."""
    if reason is None:
        return MissReason.UNKNOWN
    if reason in _AKIN:
        return _AKIN[reason]
    return MissReason(reason.value) if reason.value in set(MissReason) else MissReason.UNKNOWN


# ------------------------------------------------------------------------------------------------------- what was due


@dataclass(frozen=True, slots=True)
class Span:
    """A version, and the instants in (begin, end] for which it says what is due. The present one has no end."""

    version: JobVersion
    begin_ms: int
    end_ms: int | None

    def fires(self, after_ms: int, until_ms: int, *, limit: int) -> list[int]:
        """Return the fire times in (after, until] that this version is answerable for; `limit` + 1 at most."""
        if self.version.state is not JobState.ACTIVE:
            return []
        low, high = self.version.spec.due_between(
            max(after_ms, self.begin_ms), until_ms if self.end_ms is None else min(until_ms, self.end_ms)
        )
        return self.version.spec.parsed_schedule().fire_times(low, high, limit=limit) if high > low else []

    def next_fire(self, after_ms: int) -> int | None:
        """Return its first fire time after that instant, or None."""
        if self.version.state is not JobState.ACTIVE:
            return None
        low, _ = self.version.spec.due_between(max(after_ms, self.begin_ms), after_ms)
        found = self.version.spec.parsed_schedule().next_fire(low)
        ends_ms = self.version.spec.ends_at_ms
        if found is None or (ends_ms is not None and found >= ends_ms) or (self.end_ms and found > self.end_ms):
            return None
        return found


def spans(versions: Sequence[JobVersion]) -> list[Span]:
    """Return what each version of one job is answerable for, oldest first."""
    ordered = sorted(versions, key=lambda item: (item.generation, item.since_ms))
    found = []
    for index, version in enumerate(ordered):
        end_ms = ordered[index + 1].since_ms if index + 1 < len(ordered) else None
        found.append(Span(version, max(version.since_ms, version.effective_from_ms), end_ms))
    return found


def settle_delay_ms(spec: JobSpec) -> int:
    """Return how long after its fire time the fate of a fire has to be known."""
    return (spec.grace_s + spec.jitter_s) * 1000 + SETTLE_MS


def overdue_delay_ms(spec: JobSpec) -> int | None:
    """Return how long after its fire time a fire is overdue; None where a verdict is as quick, or waiting is wanted."""
    if spec.concurrency is Concurrency.QUEUE:
        return None
    delay_ms = OVERDUE_MS + spec.jitter_s * 1000
    return delay_ms if delay_ms + OVERDUE_MS / 2 < settle_delay_ms(spec) else None


@dataclass(frozen=True, slots=True)
class Expected:
    """A fire that a version of its job asked for."""

    fire: Fire
    version: JobVersion


Delay = Callable[[JobSpec], int | None]


def due_within(job_spans: Sequence[Span], after_ms: int, until_ms: int, delay: Delay, *, limit: int) -> list[Expected]:
    """Return the fires of one job, every shard, whose delay after their fire time ends in (after, until].

    At most `limit` fire times of each version: none has more than one a second.
    """
    found = []
    for span in job_spans:
        delay_ms = delay(span.version.spec)
        if delay_ms is None:
            continue
        for fire_ms in span.fires(after_ms - delay_ms, until_ms - delay_ms, limit=limit):
            tasks = (TaskId(span.version.job_id, shard) for shard in range(span.version.spec.shards))
            found += [Expected(Fire(task, fire_ms), span.version) for task in tasks]
    return found


def next_due_ms(job_spans: Sequence[Span], after_ms: int, delay: Delay) -> int | None:
    """Return the first instant after `after_ms` at which the delay of one of the job's fires ends, or None."""
    found = []
    for span in job_spans:
        delay_ms = delay(span.version.spec)
        if delay_ms is None or (span.end_ms is not None and span.end_ms + delay_ms <= after_ms):
            continue
        fire_ms = span.next_fire(after_ms - delay_ms)
        if fire_ms is not None:
            found.append(fire_ms + delay_ms)
    return min(found, default=None)


def expected_at(job_spans: Sequence[Span], fire: Fire) -> JobVersion | None:
    """Return the version that made this fire due, or None."""
    for span in job_spans:
        if fire.task.shard < span.version.spec.shards and span.fires(fire.fire_ms - 1, fire.fire_ms, limit=1):
            return span.version
    return None


def is_unexpected(job_spans: Sequence[Span], fire: Fire) -> bool:
    """Say whether no version ever asked for this fire, allowing for workers that hear of a change a little later.

    What was before the oldest version that is known cannot be told; nor when a node was started.
    """
    if fire.task.of_node and any(span.version.spec.at_reboot for span in job_spans):
        return False
    if not job_spans or (fire.fire_ms <= job_spans[0].begin_ms and job_spans[0].version.generation > 1):
        return False
    for span in job_spans:
        longer = Span(span.version, span.begin_ms, None if span.end_ms is None else span.end_ms + NEWS_MS)
        if fire.task.shard < span.version.spec.shards and longer.fires(fire.fire_ms - 1, fire.fire_ms, limit=1):
            return False
    return True


# -------------------------------------------------------------------------------------------------- what became of it


class Outcome(StrEnum):
    """What the auditor says of an expected fire. Exactly one holds: together they are all that was expected."""

    RUN = "run"
    SKIPPED = "skipped"
    MISSED = "missed"
    #: Not known yet: it waits for somebody to be heard.
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The auditor's word on one fire."""

    outcome: Outcome
    reason: MissReason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the leader knows of the fleet as it judges."""

    now_ms: int
    assignments: Mapping[TaskId, Assignment] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    #: Since when each worker has been heard in MySQL without a break, as far as this leader has seen.
    heard_ms: Mapping[str, int] = field(default_factory=dict)
    #: Tasks that the planner finds no worker for, and why.
    unplaced: Mapping[TaskId, str] = field(default_factory=dict)
    #: When no leader audited.
    gaps: Sequence[tuple[int, int]] = ()
    #: When a worker's cron was silent, by worker: (from, until).
    cron_silent: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    #: Every worker that anybody here has heard of.
    known: Set[str] = frozenset()


def known_outcome(fate: Fate | None, now_ms: int) -> Verdict | None:
    """Return the verdict where the ledger alone tells, or None: then somebody has to look closer.

    A retry that was skipped (its job was paused) is that of a fire which ran before.
    """
    if fate is None:
        return None
    if fate.state is RunState.SKIPPED and fate.trigger is not Trigger.RETRY:
        return Verdict(Outcome.SKIPPED, reason_of_skip(fate.reason))
    if fate.state not in (RunState.PENDING, RunState.CLAIMED):
        return Verdict(Outcome.RUN)
    if fate.claimed_ms is not None and now_ms - fate.claimed_ms < STUCK_MS:
        return Verdict(Outcome.PENDING, None, f"{fate.worker} has claimed it and not started it yet")
    return None


def judge(expected: Expected, fate: Fate | None, job_spans: Sequence[Span], facts: Facts) -> Verdict:
    """Return what became of a fire whose fate has to be known by now."""
    known = known_outcome(fate, facts.now_ms)
    if known is not None:
        return known
    fire = expected.fire
    assignment = facts.assignments.get(fire.task)
    owner = fate.worker if fate is not None else "" if assignment is None else assignment.worker
    if owner and (held := _not_heard(owner, facts)) is not None:
        return held
    if fate is not None:
        return Verdict(Outcome.MISSED, *_stuck(fate, facts))
    if (stopped := _stopped(expected, job_spans)) is not None:
        return Verdict(Outcome.MISSED, *stopped)
    if assignment is None or not assignment.worker:
        return Verdict(Outcome.MISSED, *_without_worker(fire, facts))
    if assignment.assigned_ms > fire.fire_ms:
        return Verdict(Outcome.MISSED, *_moved(expected, assignment, facts))
    return Verdict(Outcome.MISSED, *_with_worker(fire, assignment, facts))


def _is_lost(worker: str, facts: Facts) -> bool:
    lease = facts.leases.get(worker)
    return lease is not None and lease.lost


def _not_heard(worker: str, facts: Facts) -> Verdict | None:
    """Return that the fire is held while its worker may still have news of it."""
    if _is_lost(worker, facts):
        return None
    heard_ms = facts.heard_ms.get(worker)
    if heard_ms is None:
        return Verdict(
            Outcome.PENDING, MissReason.ISOLATED, f"worker {worker} is not heard in MySQL; its journal may still tell"
        )
    if facts.now_ms - heard_ms < HEARD_MS:
        return Verdict(Outcome.PENDING, MissReason.ISOLATED, f"worker {worker} may still be carrying its journal home")
    return None


Why = tuple[MissReason, str]


def _stuck(fate: Fate, facts: Facts) -> Why:
    if fate.worker and _is_lost(fate.worker, facts):
        return MissReason.WORKER_LOST, f"worker {fate.worker} claimed it and was lost before it said that it started"
    return MissReason.UNKNOWN, f"its row has been {fate.state} for too long; worker {fate.worker or '(none)'}"


def _stopped(expected: Expected, job_spans: Sequence[Span]) -> Why | None:
    """Return whether the job was paused, finished or changed while the fire could still have been started."""
    changed: Why | None = None
    fire_ms = expected.fire.fire_ms
    last_ms = fire_ms + settle_delay_ms(expected.version.spec) - SETTLE_MS
    for span in job_spans:
        since_ms = span.version.since_ms
        if span.version.generation < expected.version.generation or not fire_ms <= since_ms <= last_ms:
            continue
        if span.version.state is JobState.PAUSED:
            return MissReason.PAUSED, f"the job was paused at {rfc3339(since_ms)}, before this fire had started"
        if span.version.state is JobState.FINISHED:
            return MissReason.ENDED, f"the job was finished at {rfc3339(since_ms)}, before this fire had started"
        if span.version.generation > expected.version.generation:
            at = rfc3339(since_ms)
            changed = MissReason.UNKNOWN, f"the job was changed at {at}; what had not started by then stays undone"
    return changed


def _without_worker(fire: Fire, facts: Facts) -> Why:
    if fire.task in facts.unplaced:
        return MissReason.NO_WORKER_FITS, facts.unplaced[fire.task]
    return _in_a_gap(fire, facts) or (MissReason.UNKNOWN, "the task has no worker, and nobody knows why")


def _moved(expected: Expected, assignment: Assignment, facts: Facts) -> Why:
    """The present worker got the task after the fire: who had it before is not kept."""
    fire, worker = expected.fire, assignment.worker
    at = rfc3339(assignment.assigned_ms)
    if assignment.reason is MoveReason.WORKER_LOST:
        return MissReason.WORKER_LOST, f"its worker was lost; {worker} took the task over at {at}"
    if (gap := _in_a_gap(fire, facts)) is not None:
        return gap
    last_ms = fire.fire_ms + settle_delay_ms(expected.version.spec) - SETTLE_MS
    if assignment.assigned_ms > last_ms:
        return MissReason.NO_WORKER_FITS, f"it had no worker until {at}, when its grace was over"
    if _is_lost(worker, facts):
        return MissReason.WORKER_LOST, f"worker {worker}, which took the task over at {at}, is lost"
    return MissReason.UNKNOWN, f"{worker} took the task over at {at} ({assignment.reason}) and did not catch up with it"


def _with_worker(fire: Fire, assignment: Assignment, facts: Facts) -> Why:
    worker = assignment.worker
    if _is_lost(worker, facts):
        return MissReason.WORKER_LOST, f"worker {worker} had the task and is lost"
    silent = facts.cron_silent.get(worker, ())
    if any(begin - CRON_NOTICED_MS <= fire.fire_ms <= end for begin, end in silent):
        return MissReason.CRON_SILENT, f"the cron of {worker} was silent, and its daemon did not fire either"
    gap = _in_a_gap(fire, facts)
    return gap or (MissReason.UNKNOWN, f"worker {worker} had the task, is heard, and recorded nothing")


def _in_a_gap(fire: Fire, facts: Facts) -> Why | None:
    for begin, end in facts.gaps:
        if begin <= fire.fire_ms <= end:
            return MissReason.PLATFORM_DOWN, f"no leader worked from {rfc3339(begin)} to {rfc3339(end)}"
    return None
