"""What a fault excuses: one table, read by the judges. Whatever is not in it is held against the system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.faults.checker.history import Fault, FaultKind, History

#: A fault may have begun to work a little before it was written down.
PAD_S = 1.0
MYSQL, ZOOKEEPER = "mysql", "zookeeper"
_BOTH = frozenset({MYSQL, ZOOKEEPER})
#: Reasons of fires that could not be started in time, or whose start or end is not known.
_DELAYED = frozenset({"late", "superseded", "overlap", "platform_down", "cron_silent"})
_DEAD = _DELAYED | {"worker_lost", "runner_lost", "no_worker_fits", "fence_refused", "unknown"}
_ISOLATED = _DELAYED | {"isolated", "fence_refused", "worker_lost", "artifact_missing"}
_DISK = _DEAD | {"spawn_failed", "artifact_missing"}


@dataclass(frozen=True, slots=True)
class Excuse:
    """What may go wrong because of a kind of fault, from its beginning until it is healed and recovered from."""

    #: A fire may be late.
    late: bool = False
    #: A fire may be skipped or missed for these reasons.
    reasons: frozenset[str] = frozenset()
    #: Runs may be taken for lost, and run again while they live.
    loses: bool = False
    #: Runs may be killed.
    kills: bool = False
    #: Fences that a node cannot reach; without both of them, `at_least_once` runs all the same.
    severs: frozenset[str] = frozenset()


_NOTHING = Excuse()
_LATENCY = Excuse(late=True, reasons=_DELAYED)
_DEAD_WORKER = Excuse(late=True, reasons=_DEAD, loses=True)
_DEAD_NODE = Excuse(late=True, reasons=_DEAD, loses=True, kills=True)
_FULL = Excuse(late=True, reasons=_DISK, loses=True, kills=True)
_ALONE = Excuse(late=True, reasons=_ISOLATED, loses=True, severs=_BOTH)
_NO_MYSQL = Excuse(late=True, reasons=_ISOLATED, severs=frozenset({MYSQL}))
#: No fire needs ZooKeeper while MySQL answers.
_NO_ZOOKEEPER = Excuse(severs=frozenset({ZOOKEEPER}))

EXCUSES: dict[FaultKind, Excuse] = {
    FaultKind.WORKER_KILLED: _DEAD_WORKER,
    FaultKind.WORKER_PAUSED: _DEAD_WORKER,
    FaultKind.NODE_KILLED: _DEAD_NODE,
    FaultKind.NODE_PAUSED: _DEAD_WORKER,
    FaultKind.RUNNER_KILLED: _DEAD_NODE,
    FaultKind.EVERYTHING_KILLED: Excuse(late=True, reasons=_DEAD | _ISOLATED, loses=True, kills=True, severs=_BOTH),
    # Nothing of these is on the way of a fire.
    FaultKind.LEADER_KILLED: _NOTHING,
    FaultKind.MANAGER_PAUSED: _NOTHING,
    FaultKind.API_KILLED: _NOTHING,
    FaultKind.ZOOKEEPER_MEMBER_DOWN: _NOTHING,
    FaultKind.CRON_DEAD: _NOTHING,
    FaultKind.CRON_PAUSED: _NOTHING,
    FaultKind.CUT_ZOOKEEPER: _NO_ZOOKEEPER,
    FaultKind.ZOOKEEPER_QUORUM_LOST: _NO_ZOOKEEPER,
    # All assignments are gone, and made again.
    FaultKind.ZOOKEEPER_WIPED: Excuse(late=True, reasons=_DELAYED, severs=frozenset({ZOOKEEPER})),
    FaultKind.CUT_MYSQL: _NO_MYSQL,
    FaultKind.MYSQL_DOWN: _NO_MYSQL,
    FaultKind.GALERA_MEMBER_DOWN: _NO_MYSQL,
    FaultKind.GALERA_NO_PRIMARY: _NO_MYSQL,
    FaultKind.CUT_ALL: _ALONE,
    FaultKind.CUT_REPLIES: _ALONE,
    FaultKind.PARTITION: _ALONE,
    FaultKind.LATENCY: _LATENCY,
    FaultKind.SLOW_DISK: _LATENCY,
    FaultKind.CLOCK_STEPPED: _LATENCY,
    FaultKind.CLOCK_SKEWED: _LATENCY,
    FaultKind.S3_DOWN: Excuse(reasons=frozenset({"artifact_missing"})),
    FaultKind.DISK_FULL: _FULL,
    FaultKind.INODES_FULL: _FULL,
    # No process can be made, and no connection.
    FaultKind.FILES_EXHAUSTED: Excuse(late=True, reasons=_DISK | _ISOLATED, loses=True, severs=_BOTH),
}


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which a fault may be to blame, and the nodes on which (None: everywhere)."""

    fault: Fault
    excuse: Excuse
    start_s: float
    end_s: float
    nodes: frozenset[str] | None

    def touches(self, start_s: float, end_s: float, nodes: Iterable[str]) -> bool:
        """Say whether it may be to blame for something on these nodes at this time; without nodes: anywhere."""
        where = frozenset(nodes)
        here = self.nodes is None or not where or bool(self.nodes & where)
        return here and start_s <= self.end_s and end_s >= self.start_s


def windows(history: History) -> list[Window]:
    """Return a window for each fault of a history, oldest first."""
    workers = {start.node for start in history.starts} | {row.worker for row in history.ledger if row.worker}
    found = []
    for fault in sorted(history.faults, key=lambda one: one.started_s):
        healed_s = fault.healed_s if fault.healed_s is not None else float("inf")
        nodes = frozenset(fault.targets) if fault.targets and workers.issuperset(fault.targets) else None
        end_s = healed_s + history.plan.bounds.recovery_s
        found.append(Window(fault, EXCUSES[fault.kind], fault.started_s - PAD_S, end_s, nodes))
    return found


def cut_off(touching: Sequence[Window]) -> bool:
    """Say whether these faults together take both fences away."""
    return frozenset[str]().union(*(window.excuse.severs for window in touching)) >= _BOTH
