"""From a history to a report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.checker import cross
from tests.faults.checker.facts import Facts, Kind, Violation
from tests.faults.checker.history import History
from tests.faults.checker.judge import Judged, Verdict, judge, judge_end
from tests.faults.checker.report import Recovery, Report, lateness
from tests.faults.checker.timeline import Key

_TIMING = (Kind.EARLY, Kind.LATE, Kind.TOO_LATE)


def check(history: History) -> Report:
    """Judge a whole history. EvaluatorError for a schedule that the checker cannot expand."""
    facts = Facts(history)
    judged = {key: judge(facts, target) for key, target in sorted(facts.targets.items())}
    return report(facts, judged, violations(facts, judged))


def violations(facts: Facts, judged: dict[Key, Judged]) -> list[Violation]:
    """Return all that is held against the system, each once."""
    swapped = cross.mislabelled(facts, judged)
    stopped = cross.not_recovered(facts, judged)
    stands_for = {key for _, keys in stopped for key in keys}
    found = [violation for violation, _ in stopped]
    found += swapped.values()
    for key, one in judged.items():
        if key not in stands_for:
            found += [item for item in one.violations if not (key in swapped and item.kind in _TIMING)]
    for key, runs in facts.runs.items():
        if key in facts.targets:
            found += [item for run in runs if (item := judge_end(facts, run)) is not None]
    for look in (cross.unexpected, cross.overlaps, cross.phantoms, cross.demanded, cross.owners, cross.lost_jobs):
        found += look(facts)
    return found


def report(facts: Facts, judged: dict[Key, Judged], found: Sequence[Violation]) -> Report:
    """Return the figures, with what was found."""
    ran = [one for one in judged.values() if one.late_s is not None]
    inside = [bool(facts.touching(one.target.due_s, one.target.due_s, facts.around(one.target.key))) for one in ran]
    late = [one.late_s or 0.0 for one in ran]
    counts = Counter(one.verdict.value for one in judged.values() if one.verdict is not Verdict.NOT_NEEDED)
    return Report(
        seed=facts.history.plan.seed,
        counts=counts,
        excused=sum(one.excused for one in judged.values() if one.verdict is not Verdict.NOT_NEEDED),
        outlasted=tuple(facts.lines(key) for key, one in judged.items() if one.outlasted),
        overall=lateness(late),
        outside=lateness([value for value, hurt in zip(late, inside, strict=True) if not hurt]),
        inside=lateness([value for value, hurt in zip(late, inside, strict=True) if hurt]),
        recoveries=tuple(_recovery(facts, judged, index) for index in range(len(facts.windows))),
        violations=tuple(found),
    )


def _recovery(facts: Facts, judged: dict[Key, Judged], index: int) -> Recovery:
    window = facts.windows[index]
    healed_s = window.fault.healed_s
    if healed_s is None:
        return Recovery(window.fault, None)
    punctual = [
        one.target.due_s - healed_s
        for one in judged.values()
        if one.verdict is Verdict.ON_TIME
        and one.target.due_s >= healed_s
        and (window.nodes is None or window.nodes & facts.around(one.target.key))
    ]
    return Recovery(window.fault, min(punctual, default=None))
