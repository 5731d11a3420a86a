"""What the checker has to say: counts, lateness, recovery, and witnesses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.faults.checker.facts import Violation
from tests.faults.checker.history import Fault

_WITNESSES = 20


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late runs began, seconds after their fire time (jitter included)."""

    count: int
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float

    def text(self) -> str:
        """Return a line for people."""
        figures = f"p50 {self.p50_s:.3f}, p95 {self.p95_s:.3f}, p99 {self.p99_s:.3f}, max {self.max_s:.3f} s"
        return f"{self.count} runs: {figures}" if self.count else "no runs"


@dataclass(frozen=True, slots=True)
class Recovery:
    """One fault, and when after its healing the first fire of its targets was on time, seconds; None: never."""

    fault: Fault
    first_on_time_s: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check. `ok` without violations."""

    seed: int
    #: Verdict -> how many fires; those that were not needed are not among them.
    counts: Mapping[str, int]
    excused: int
    #: What is known about each fire that was promised to be caught up, and that faults outlasted: to be looked at.
    outlasted: tuple[tuple[str, ...], ...]
    overall: Lateness
    outside: Lateness
    inside: Lateness
    recoveries: tuple[Recovery, ...]
    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations

    def text(self) -> str:
        """Return the whole report for people: figures, then the first violations with all their lines."""
        total = sum(self.counts.values()) or 1
        lines = [f"checker: seed {self.seed}: {'ok' if self.ok else f'{len(self.violations)} violations'}"]
        lines += [f"  {name:<12}{count:>7}{count / total:>9.2%}" for name, count in sorted(self.counts.items())]
        lines.append(f"  excused by faults or policy: {self.excused}")
        lines.append(f"  promised, but faults outlasted their grace: {len(self.outlasted)}")
        lines.append(f"  lateness overall         {self.overall.text()}")
        lines.append(f"  lateness without faults  {self.outside.text()}")
        lines.append(f"  lateness during faults   {self.inside.text()}")
        for recovery in self.recoveries:
            fault, first_s = recovery.fault, recovery.first_on_time_s
            after = "nothing on time after it" if first_s is None else f"on time again {first_s:.1f} s after it"
            lines.append(f"  {fault.kind} of {', '.join(fault.targets) or 'all'}: {after}")
        for known in self.outlasted[:_WITNESSES]:
            lines += ["- outlasted by faults:", *(f"    {line}" for line in known)]
        kinds = Counter(violation.kind.value for violation in self.violations)
        lines += [f"  VIOLATED {kind}: {count} times" for kind, count in sorted(kinds.items())]
        for violation in self.violations[:_WITNESSES]:
            lines += [f"- {violation.kind}: {violation.text}", *(f"    {line}" for line in violation.lines)]
        if len(self.violations) > _WITNESSES:
            lines.append(f"- and {len(self.violations) - _WITNESSES} more")
        return "\n".join(lines)


def lateness(values: Sequence[float]) -> Lateness:
    """Return the figures of some lateness values, seconds."""
    ordered = sorted(values) or [0.0]

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Lateness(len(values), at(0.5), at(0.95), at(0.99), ordered[-1])
