"""A clean stop: the tasks go to others while everything fires on, the runs end, and then comes the goodbye."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator

log = logging.getLogger(__name__)

#: For so long the leader has the time to give our tasks to others; what is left by then, the goodbye hands over.
HAND_OVER_S = 5.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Left:
    """What still ties a worker to its node while it is leaving."""

    waited_s: float
    tasks: int
    runs: int
    #: Whether anybody else is there, to take the tasks or to run anything twice.
    others: bool


def may_go(left: Left, runs_wait_s: float) -> bool:
    """Say whether it is time for the goodbye. PURE.

    Whatever still runs then counts as lost and is run again elsewhere, so runs are waited for. But not while tasks are
    here still: nobody is there to take them soon, and they are not to wait for a run of somebody else's.
    """
    if not left.others:
        return True
    if left.tasks:
        return left.waited_s >= HAND_OVER_S
    return not left.runs or left.waited_s >= runs_wait_s


def hand_over(
    us: str,
    coordinator: Coordinator,
    count: Callable[[], tuple[int, int]],
    wait: Callable[[float], bool],
    boot_s: Callable[[], float],
    *,
    runs_wait_s: float,
) -> None:
    """Return when it is time for the goodbye. It must have been announced that we leave.

    `count` tells our tasks and running runs, or raises TimeoutError when nobody can; `wait` says whether to give up.
    """
    begun_s = boot_s()
    while True:
        try:
            tasks, runs = count()
        except TimeoutError:
            return
        if may_go(Left(boot_s() - begun_s, tasks, runs, _others(coordinator, us)), runs_wait_s) or wait(LOOK_S):
            break
    log.info(
        "the worker says goodbye", extra={"event": "worker.leaving", "worker": us, "tasks": tasks, "running": runs}
    )


def _others(coordinator: Coordinator, us: str) -> bool:
    try:
        present = coordinator.workers(watch=True)
    except UnavailableError:
        return False
    return any(not info.leaving for name, info in present.items() if name != us)
