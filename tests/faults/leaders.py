"""What happens to leaders, and how soon there is another one."""

from __future__ import annotations

import time

from tests.faults.checker.history import FaultKind
from tests.faults.deaths import elections, spread, wait_for
from tests.faults.trial import Trial

#: A dead leader is replaced within so long.
REPLACED_S = 10.0


def leader_storm(trial: Trial, *, kills: int, every_s: float) -> list[float]:
    """kill -9 whoever leads, again and again; start it anew once another leads. Returns how long each was missing."""
    without = []
    for _ in range(kills):
        leader = wait_for(lambda: leader_now(trial), "a manager leads", 20) or ""
        killed_ms = time.time_ns() // 1_000_000
        with trial.fault(FaultKind.LEADER_KILLED, [leader]):
            without.append((next_election(trial, killed_ms) - killed_ms) / 1000)
        print(f"leader {leader} killed, replaced after {without[-1]:.1f} s")
        trial.wait(max(0.0, every_s - (time.time_ns() // 1_000_000 - killed_ms) / 1000))
    print(f"dead leaders replaced: {spread(without)}")
    assert max(without) <= REPLACED_S, without
    return without


def leader_now(trial: Trial) -> str | None:
    """Return the manager that leads, or None."""
    try:
        return trial.fleet.leader()
    except LookupError:
        return None


def next_election(trial: Trial, after_ms: int) -> int:
    """Wait for the first election after an instant; return when it was, epoch milliseconds."""
    found = wait_for(
        lambda: [at_ms for at_ms, _ in elections(trial.fleet) if at_ms > after_ms], "another leader is elected", 60
    )
    return found[0]
