"""One verdict for each fire that was due or ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from tests.faults.checker.facts import Facts, Kind, Run, Violation
from tests.faults.checker.history import Row
from tests.faults.checker.policy import MYSQL, cut_off
from tests.faults.checker.timeline import Target

#: A newer fire ran in the place of these.
_SHED = frozenset({"superseded", "late", "overlap"})
#: No policy of a job brings these back.
_UNABLE = frozenset({"spawn_failed", "artifact_missing"})
_LOST = frozenset({"worker_lost", "runner_lost"})
_ENDED_OTHERWISE = frozenset({"timed_out", "cancelled"})


class Verdict(StrEnum):
    """What became of a fire."""

    ON_TIME = "on_time"
    LATE = "late"
    TOO_LATE = "too_late"
    EARLY = "early"
    SKIPPED = "skipped"
    MISSED = "missed"
    SILENT_MISS = "silent_miss"
    PENDING = "pending"
    #: It was allowed, not required, and did not run.
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True, slots=True)
class Judged:
    """A fire, its verdict, its lateness in seconds if it ran, and what is held against the system."""

    target: Target
    verdict: Verdict
    late_s: float | None = None
    excused: bool = False
    violations: tuple[Violation, ...] = ()
    #: Its policy promised to have it caught up, and only faults in a row until the end of its grace excuse that.
    outlasted: bool = False


def judge(facts: Facts, target: Target) -> Judged:
    """Return what became of one fire."""
    runs = facts.runs.get(target.key, [])
    if not runs:
        return _absent(facts, target)
    judged = _present(facts, target, runs[0])
    more = [*judged.violations, *_doubles(facts, target, runs)]
    return Judged(target, judged.verdict, judged.late_s, judged.excused, tuple(more))


def _present(facts: Facts, target: Target, first: Run) -> Judged:
    bounds, key = facts.bounds, target.key
    late_s = first.start_s - target.due_s
    if late_s < -bounds.skew_s:
        what = facts.violation(Kind.EARLY, key, f"started {-late_s:.3f} s before its time")
        return Judged(target, Verdict.EARLY, late_s, violations=(what,))
    if late_s <= target.jitter_s + bounds.on_time_s:
        return Judged(target, Verdict.ON_TIME, late_s)
    if late_s > target.jitter_s + target.grace_s + bounds.on_time_s and first.start.attempt == 1:
        what = facts.violation(
            Kind.TOO_LATE, key, f"started {late_s:.3f} s after its time, grace is {target.grace_s} s"
        )
        return Judged(target, Verdict.TOO_LATE, late_s, violations=(what,))
    touching = facts.touching(target.due_s, first.start_s, facts.around(key))
    waited = target.spec["concurrency"] in ("queue", "replace") and facts.busy(key, target.due_s, first.start_s)
    if not target.required or waited or any(window.excuse.late for window in touching):
        return Judged(target, Verdict.LATE, late_s, excused=True)
    what = facts.violation(Kind.LATE, key, f"started {late_s:.3f} s after its time")
    return Judged(target, Verdict.LATE, late_s, violations=(what,))


def _absent(facts: Facts, target: Target) -> Judged:
    rows = facts.rows.get(target.key, [])
    missed = facts.missed.get(target.key)
    if any(row.state == "succeeded" or row.exit_code is not None for row in rows):
        # The judge of the ledger has that one.
        return Judged(target, Verdict.SKIPPED, excused=True)
    if missed is not None:
        return _unrun(facts, target, missed.reason, Verdict.MISSED)
    for row in rows:
        if row.state in ("skipped", "lost", "failed", "cancelled"):
            reason = row.reason or ("worker_lost" if row.state == "lost" else None)
            return _unrun(facts, target, reason, Verdict.SKIPPED)
    if not target.required:
        return Judged(target, Verdict.NOT_NEEDED, excused=True)
    return _undecided(facts, target)


def _unrun(facts: Facts, target: Target, reason: str | None, verdict: Verdict) -> Judged:
    if reason is None:
        what = facts.violation(Kind.UNREASONED, target.key, "skipped without a reason")
        return Judged(target, verdict, violations=(what,))
    if not target.required or _by_policy(facts, target, reason):
        return Judged(target, verdict, excused=True)
    if _by_faults(facts, target, reason):
        return Judged(target, verdict, excused=True, outlasted=_promised(target, reason))
    what = facts.violation(Kind.MISSED, target.key, f"did not run ({reason}), and nothing excuses it")
    return Judged(target, verdict, violations=(what,))


def _undecided(facts: Facts, target: Target) -> Judged:
    on_time_s = target.due_s + target.jitter_s + facts.bounds.on_time_s
    settled_s = on_time_s + target.grace_s + facts.bounds.propagation_s
    hindered = facts.touching(target.due_s, on_time_s, facts.around(target.key))
    if on_time_s >= facts.read_s or (settled_s >= facts.read_s and any(window.excuse.late for window in hindered)):
        return Judged(target, Verdict.PENDING, excused=True)
    what = facts.violation(Kind.SILENT_MISS, target.key, "did not run, and nobody says why")
    return Judged(target, Verdict.SILENT_MISS, violations=(what,))


def _by_policy(facts: Facts, target: Target, reason: str) -> bool:
    """Say whether its job wants a fire left out because another run of it lives."""
    policy = target.spec["concurrency"]
    if reason not in ("overlap", "superseded", "replaced") or policy == "allow":
        return False
    mine = reason == "overlap" or policy == "replace"
    on_time_s = target.due_s + target.jitter_s + facts.bounds.on_time_s
    return mine and facts.busy(target.key, target.due_s - facts.bounds.skew_s, on_time_s)


def _by_faults(facts: Facts, target: Target, reason: str) -> bool:
    """Say whether faults excuse that a fire was left out for this reason."""
    on_time_s = target.due_s + target.jitter_s + facts.bounds.on_time_s
    # By a fast clock a fire is decided long before it is due, and another node may have had the task by then.
    nodes = facts.around(target.key) | {row.worker for row in facts.rows.get(target.key, ()) if row.worker}
    outlasted = _hindered_until(facts, target, nodes) >= _last_s(target)
    if reason == "isolated":
        return target.at_most_once and (outlasted or _given_up(facts, target)) and _had_no_mysql(facts, target, nodes)
    blamed = [window for window in facts.touching(target.due_s, on_time_s, nodes) if reason in window.excuse.reasons]
    return bool(blamed) and (outlasted or not _promised(target, reason))


def _last_s(target: Target) -> float:
    """Return when the fire could be started for the last time."""
    return target.due_s + target.jitter_s + target.grace_s


def _hindered_until(facts: Facts, target: Target, nodes: set[str]) -> float:
    """Return until when faults without a gap, of whatever kind, kept the fire from starting.

    A worker may be dead when the fire is due, and be cut off by the time that it is back.
    """
    until_s = target.due_s + target.jitter_s + facts.bounds.on_time_s
    # Without MySQL, ZooKeeper's fence is asked; but a new owner hears from MySQL alone what the last one has run.
    waits = target.at_most_once
    for window in facts.touching(target.due_s, _last_s(target), nodes):
        waits = waits or window.excuse.loses
        hinders = window.excuse.late and (waits or MYSQL not in window.excuse.severs)
        if hinders and window.start_s <= until_s:
            until_s = max(until_s, window.end_s + facts.bounds.on_time_s)
    return until_s - facts.bounds.on_time_s


def _had_no_mysql(facts: Facts, target: Target, nodes: set[str]) -> bool:
    return any(MYSQL in window.excuse.severs for window in facts.touching(target.due_s, _last_s(target), nodes))


def _given_up(facts: Facts, target: Target) -> bool:
    """Say whether its task went to another worker while it waited: nobody waits for the end of its grace then."""
    return any(row.state == "lost" for row in facts.rows.get(target.key, ()))


def _promised(target: Target, reason: str) -> bool:
    """Say whether the job's policy has such a fire caught up, so that only a fault beyond its grace excuses it."""
    if target.at_most_once or reason in _UNABLE or (reason in _LOST and not target.reruns_lost):
        return False
    return target.spec["misfire"] == "all" or reason not in _SHED


def _doubles(facts: Facts, target: Target, runs: Sequence[Run]) -> Iterator[Violation]:
    """Judge every run of a fire but the first one."""
    ordered = sorted(runs, key=lambda run: (run.start.attempt, run.start_s))
    for before, run in pairwise(ordered):
        if before.start.attempt == run.start.attempt:
            yield from _same_attempt(facts, target, before, run)
        else:
            yield from _next_attempt(facts, target, before, run)


def _same_attempt(facts: Facts, target: Target, before: Run, run: Run) -> Iterator[Violation]:
    key = target.key
    if target.at_most_once:
        yield facts.violation(Kind.AT_MOST_ONCE, key, "started twice")
        return
    touching = facts.touching(before.start_s, run.start_s, {before.start.node, run.start.node})
    if not cut_off(touching) and not _out_of_sight(facts, before, run):
        yield facts.violation(Kind.DUPLICATE, key, "started twice, though a fence could be reached")
    elif not _reported(facts, target, run):
        yield facts.violation(Kind.UNREPORTED_DUPLICATE, key, "started twice, and nobody says so")


def _out_of_sight(facts: Facts, before: Run, run: Run) -> bool:
    """Say whether only MySQL knew of the first start, and it was away when the other node asked; who had it was lost.

    Whoever lives is asked to let go of its task, and the next owner hears from ZooKeeper what it had decided.
    """
    asked = facts.touching(run.start_s, run.start_s, {run.start.node})
    since = facts.touching(before.start_s, run.start_s, {before.start.node})
    return any(MYSQL in window.excuse.severs for window in asked) and any(window.excuse.loses for window in since)


def _reported(facts: Facts, target: Target, run: Run) -> bool:
    told = {event.subject for event in facts.history.events if event.kind == "run.double"}
    return run.start.run in told or any(row.autonomous for row in facts.rows.get(target.key, ()))


def _next_attempt(facts: Facts, target: Target, before: Run, run: Run) -> Iterator[Violation]:
    key, row = target.key, _row(facts, before)
    failed = before.end is not None and before.end.exit != 0
    failed = failed or (row is not None and row.state in ("failed", "timed_out"))
    touching = facts.touching(before.start_s, run.start_s, {before.start.node, run.start.node})
    if before.start_s > run.start_s + facts.bounds.skew_s:
        # A claim was acted on that had been given up before: whoever could ask a fence would have known.
        if target.at_most_once or not cut_off(touching):
            text = f"attempt {before.start.attempt} began after attempt {run.start.attempt}"
            yield facts.violation(Kind.ATTEMPT_ORDER, key, text)
        elif not _reported(facts, target, before):
            yield facts.violation(Kind.UNREPORTED_DUPLICATE, key, "started twice, and nobody says so")
        return
    lost = target.reruns_lost and any(window.excuse.loses for window in touching)
    in_order = before.end_s is None or before.end_s <= run.start_s + facts.bounds.skew_s
    if lost or (failed and in_order and before.start.attempt <= int(target.spec["retry"]["limit"])):
        return
    if not in_order:
        yield facts.violation(Kind.ATTEMPT_ORDER, key, f"attempt {run.start.attempt} began before the last one ended")
    else:
        kind = Kind.AT_MOST_ONCE if target.at_most_once else Kind.DUPLICATE
        yield facts.violation(kind, key, f"attempt {run.start.attempt} for no reason")


def _row(facts: Facts, run: Run) -> Row | None:
    rows = facts.rows.get(run.key, ())
    return next((row for row in rows if row.attempt == run.start.attempt), None)


def judge_end(facts: Facts, run: Run) -> Violation | None:
    """Compare one run with its row: is it there, and does it say how the run ended?"""
    row = _row(facts, run)
    if row is None:
        # What was spooled away from the stores is carried home until the recovery is over.
        still = facts.touching(run.start_s, facts.read_s, {run.start.node})
        if run.start.job not in facts.names or any(window.end_s >= facts.read_s for window in still):
            return None
        return facts.violation(Kind.UNRECORDED, run.key, "ran, and has no row")
    if run.end is None or run.end_s is None:
        while_alive = facts.touching(run.start_s, run.start_s + facts.longest_s(run), {run.start.node})
        return _judge_unended(facts, run, row, killed=any(window.excuse.kills for window in while_alive))
    if len([one for one in facts.runs[run.key] if one.start.attempt == row.attempt]) > 1 and row.exit_code is not None:
        return None  # one row cannot tell two ends; that there are two has been judged
    right = ("succeeded", 0) if run.end.exit == 0 else ("failed", run.end.exit)
    if (row.state, row.exit_code) == right or row.state in _ENDED_OTHERWISE:
        return None
    around_end = facts.touching(run.start_s, run.end_s + facts.bounds.on_time_s, {run.start.node})
    unheard = row.state in ("lost", "claimed", "running", "pending") and any(
        window.excuse.loses or window.excuse.kills or window.end_s >= facts.read_s for window in around_end
    )
    just_now = row.state in ("claimed", "running") and run.end_s + facts.bounds.on_time_s >= facts.read_s
    if unheard or just_now:
        return None
    told = f"{row.state} with {row.exit_code}"
    return facts.violation(Kind.WRONG_END, run.key, f"ended with {run.end.exit}; its row says {told}")


def _judge_unended(facts: Facts, run: Run, row: Row, *, killed: bool) -> Violation | None:
    if _tells_of_another(facts, run, row):
        # That there are two has been judged; what became of this one is not in the ledger, but something has to have.
        return None if killed else facts.violation(Kind.INCOMPLETE, run.key, "began and never ended")
    if row.state == "succeeded":
        return facts.violation(Kind.WRONG_END, run.key, "never ended; its row says succeeded")
    if killed or row.state in _ENDED_OTHERWISE or row.signal is not None:
        return None
    return facts.violation(Kind.INCOMPLETE, run.key, "began and never ended")


def _tells_of_another(facts: Facts, run: Run, row: Row) -> bool:
    """Say whether the row of a fire that was started twice is that of the other start, which has ended."""
    if row.worker == run.start.worker:
        return False
    others = (one for one in facts.runs[run.key] if one.start.worker == row.worker and one.end is not None)
    return any(one.start.attempt == row.attempt for one in others)
