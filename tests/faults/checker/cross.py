"""What no single fire shows: overlaps, things that should not be, wrong labels, owners, lost jobs, and recovery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.faults.checker.facts import Facts, Kind, Run, Violation
from tests.faults.checker.history import OpKind, OpResult, Owners
from tests.faults.checker.judge import Judged, Verdict
from tests.faults.checker.matching import match
from tests.faults.checker.policy import Window
from tests.faults.checker.timeline import Key, timelines

#: Why a fire that was not due may yet be spoken of.
_NOT_DUE = frozenset({"paused", "not_yet_started", "ended", "calendar"})
_BAD = (Verdict.LATE, Verdict.TOO_LATE, Verdict.MISSED, Verdict.SKIPPED, Verdict.SILENT_MISS)
_TIMING = (Kind.EARLY, Kind.LATE, Kind.TOO_LATE)


def overlaps(facts: Facts) -> Iterator[Violation]:
    """Two runs of a task at the same time, where the job forbids it (I5)."""
    for runs in facts.by_task.values():
        latest: Run | None = None
        for run in runs:
            target = facts.targets.get(run.key)
            if latest is not None and latest.end_s is not None and latest.key != run.key and target is not None:
                touching = facts.touching(latest.start_s, run.start_s, {latest.start.node, run.start.node})
                lost = any(window.excuse.loses or window.excuse.severs for window in touching)
                both = latest.end_s - run.start_s
                if both > facts.bounds.skew_s and target.spec["concurrency"] != "allow" and not lost:
                    yield facts.violation(Kind.OVERLAP, run.key, f"ran {both:.3f} s beside {latest.start.run}")
            if latest is None or (run.end_s or run.start_s) > (latest.end_s or latest.start_s):
                latest = run


def unexpected(facts: Facts) -> Iterator[Violation]:
    """Runs, rows and verdicts of fires that nobody wanted: deleted, paused, of an old version, of no version."""
    for key in sorted({*facts.runs, *facts.rows, *facts.missed}):
        if key in facts.targets or facts.manual(key) is not None or key[2] / 1000 >= facts.read_s:
            continue
        if key not in facts.runs and _reasons(facts, key) <= _NOT_DUE:
            continue
        yield facts.violation(Kind.UNEXPECTED, key, "no version of the job has such a fire then")


def _reasons(facts: Facts, key: Key) -> set[str | None]:
    missed = [facts.missed[key].reason] if key in facts.missed else []
    return {*missed, *(row.reason for row in facts.rows.get(key, ()))}


def phantoms(facts: Facts) -> Iterator[Violation]:
    """Rows of ends that never were; verdicts on fires that ran (I12, I15)."""
    for key, rows in facts.rows.items():
        attempts = {run.start.attempt for run in facts.runs.get(key, ())}
        for row in rows:
            told = row.state == "succeeded" or row.exit_code is not None
            if told and row.attempt not in attempts and key[2] / 1000 + facts.bounds.on_time_s < facts.read_s:
                yield facts.violation(Kind.PHANTOM, key, f"its row says {row.state}, and it never ran")
    for key, missed in facts.missed.items():
        if any(run.end is not None for run in facts.runs.get(key, ())):
            yield facts.violation(Kind.COUNT, key, f"it ran, and is held to be missed ({missed.reason})")


def demanded(facts: Facts) -> Iterator[Violation]:
    """Runs on demand that were accepted and never were."""
    for op in facts.history.ops:
        if op.op is not OpKind.RUN or op.result is not OpResult.OK:
            continue
        if facts.touching(op.invoked_s, facts.read_s) or op.completed_s + facts.bounds.propagation_s >= facts.read_s:
            continue
        if not any(key[0] == op.name and facts.manual(key) == op for key in (*facts.runs, *facts.rows)):
            yield Violation(Kind.SILENT_MISS, f"{op.name}: a run on demand never was", None, (str(op),))


def mislabelled(facts: Facts, judged: Mapping[Key, Judged]) -> dict[Key, Violation]:
    """Runs whose labels are those of one another: each began when the other was due.

    Found without their labels: by a greatest matching of the fires of a task and its runs.
    """
    found: dict[Key, Violation] = {}
    by_task: dict[tuple[str, int], list[Key]] = {}
    for key in judged:
        by_task.setdefault(key[:2], []).append(key)
    for keys in by_task.values():
        windows = [_window(facts, judged[key]) for key in keys]
        runs = [facts.runs[key][0] for key in keys if facts.runs.get(key)]
        matched = match(windows, [run.start_s for run in runs])
        #: The fire that a run is labelled with -> the one that it belongs to, where these differ.
        moved = {run.key: keys[matched[index]] for index, run in enumerate(runs) if index in matched}
        moved = {key: other for key, other in moved.items() if key != other and _is_off(judged[key])}
        for key in moved:
            if _in_circle(key, moved):
                text = f"ran in the place of the fire at {moved[key][2] / 1000:.3f}"
                found[key] = facts.violation(Kind.MISLABELLED, key, text)
    return found


def _window(facts: Facts, judged: Judged) -> tuple[float, float]:
    target, bounds = judged.target, facts.bounds
    return target.due_s - bounds.skew_s, target.due_s + target.jitter_s + bounds.on_time_s


def _is_off(judged: Judged) -> bool:
    return any(violation.kind in _TIMING for violation in judged.violations)


def _in_circle(key: Key, moved: Mapping[Key, Key]) -> bool:
    at = moved[key]
    for _ in moved:
        if at == key:
            return True
        if at not in moved:
            return False
        at = moved[at]
    return at == key


def owners(facts: Facts) -> Iterator[Violation]:
    """Each task has one owner, and is in the crontab of that node only (I13)."""
    for look in facts.history.owners:
        if facts.touching(look.at_s, look.at_s):
            continue
        for text in _wrong_owners(facts, look):
            yield Violation(Kind.OWNERS, f"at {look.at_s:.3f}: {text}", None, (str(look),))


def _wrong_owners(facts: Facts, look: Owners) -> Iterator[str]:
    ids = {name: job for job, name in facts.names.items()}
    assigned = [task for tasks in look.assigned.values() for task in tasks if task.split("/")[0] in facts.names]
    for task in sorted({task for task in assigned if assigned.count(task) > 1}):
        yield f"{task} has {assigned.count(task)} owners"
    wanted = {f"{ids[key[0]]}/{key[1]}" for key in _steady(facts, look.at_s) if key[0] in ids}
    for task in sorted(wanted - set(assigned)):
        yield f"{task} has no owner"
    for worker in sorted({*look.assigned, *look.crontabs}):
        given = {task for task in look.assigned.get(worker, ()) if task.split("/")[0] in facts.names}
        named = {task for task in look.crontabs.get(worker, ()) if task.split("/")[0] in facts.names}
        if given != named:
            yield f"{worker} was given {sorted(given - named)} without entries, has entries of {sorted(named - given)}"


def _steady(facts: Facts, at_s: float) -> set[tuple[str, int]]:
    """Return the tasks that were due before and after an instant."""
    sides: dict[tuple[str, int], set[bool]] = {}
    for key, target in facts.targets.items():
        if target.required:
            sides.setdefault(key[:2], set()).add(target.due_s < at_s)
    return {task for task, found in sides.items() if len(found) == 2}


def lost_jobs(facts: Facts) -> Iterator[Violation]:
    """Acknowledged jobs are there at the end (I10)."""
    jobs = {job.id: job for job in facts.history.jobs}
    ids = {name: job for job, name in facts.names.items()}
    for name, steps in timelines(facts.history).items():
        last = steps[-1]
        if name not in ids or last.certain_s is None or len(last.versions) != 1:
            continue
        job = jobs.get(ids[name])
        if job is None:
            yield Violation(Kind.JOB_LOST, f"{name}: job {ids[name]} is gone, though nobody removed it")
        elif (job.status == "paused") is last.versions[0].active:
            yield Violation(Kind.JOB_LOST, f"{name}: job {ids[name]} is {job.status}, which nobody asked for")


def not_recovered(facts: Facts, judged: Mapping[Key, Judged]) -> list[tuple[Violation, frozenset[Key]]]:
    """Tasks that a fault has stopped for good (I11): after it and the recovery, none of their fires was on time.

    Returns each with the fires that it stands for.
    """
    found: list[tuple[Violation, frozenset[Key]]] = []
    for window, until_s in _calm(facts.windows, facts.read_s):
        by_task: dict[tuple[str, int], list[Judged]] = {}
        for one in judged.values():
            if one.target.required and window.end_s < one.target.due_s < until_s and one.verdict != Verdict.PENDING:
                by_task.setdefault(one.target.key[:2], []).append(one)
        for (name, shard), fires in sorted(by_task.items()):
            if len(fires) < 2 or not all(one.verdict in _BAD and one.violations for one in fires):
                continue
            after_s = window.end_s - facts.bounds.recovery_s
            text = f"{name}/{shard}: none of {len(fires)} fires on time; {window.fault.kind} was over at {after_s:.3f}"
            lines = [line for one in fires[:3] for violation in one.violations for line in violation.lines]
            what = Violation(Kind.NOT_RECOVERED, text, None, tuple(dict.fromkeys([str(window.fault), *lines])))
            found.append((what, frozenset(one.target.key for one in fires)))
    return found


def _calm(windows: Sequence[Window], read_s: float) -> Iterator[tuple[Window, float]]:
    """Yield each fault after whose recovery there is a time without any, and the end of that time."""
    for window in windows:
        others = [other for other in windows if other is not window and other.end_s > window.end_s]
        if any(other.start_s <= window.end_s for other in others):
            continue
        yield window, min((other.start_s for other in others), default=read_s)
