"""The two fences: who may start a fire?

| MySQL        | ZooKeeper               | at_least_once                | at_most_once      |
|--------------|-------------------------|------------------------------|-------------------|
| row inserted | not asked               | run                          | run               |
| not mine     | not asked               | do not run                   | do not run        |
| unreachable  | created                 | run                          | wait for MySQL    |
| unreachable  | not mine                | do not run                   | wait for MySQL    |
| unreachable  | unreachable             | run, marked `autonomous`     | wait for MySQL    |
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.job import Delivery
from cronkeeper.domain.run import Run
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import Coordinator, RunStore
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.znodes import ClaimNote

log = logging.getLogger(__name__)

#: A ZooKeeper that has acknowledged nothing for so long is not asked: each claim would wait for its own timeout.
SILENT_S = 3.0


class Fence(StrEnum):
    """Which fence answered; the label of the claims metric."""

    MYSQL = "mysql"
    ZOOKEEPER = "zookeeper"
    NONE = "none"


class Outcome(StrEnum):
    GRANTED = "granted"
    REFUSED = "refused"
    #: Nobody may say: ask again later (at_most_once while MySQL is away).
    UNDECIDED = "undecided"


class Answer(NamedTuple):
    """What became of a claim."""

    outcome: Outcome
    fence: Fence
    #: When (boot-time clock) it was asked. A grant vouches for that instant: the process may have been stopped since.
    asked_s: float


class Fences:
    """Claims batches of runs. Not thread-safe: one caller, the engine."""

    def __init__(
        self, ledger: RunStore, coordinator: Callable[[], Coordinator | None], *, claim_wait_s: float, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._coordinator = coordinator
        self._claim_wait_s = claim_wait_s
        self._clock = clock
        # A hanging MySQL must not hold the engine: the call goes on in this thread, and its late success is still ours,
        # because the rows carry our nonces.
        self._pool = concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="claim")
        #: Told by the lease thread, so that no fire has to find out for itself.
        self.mysql_ok = True
        #: When (boot-time clock) the newest lease beat was sent that MySQL acknowledged; None: no lease is kept here.
        self.lease_heard_s: float | None = None

    def witness_s(self, now_s: float) -> float | None:
        """Return when (boot-time clock) the newest sign of life was sent that a store has acknowledged.

        Kept from the sending on, as nobody can tell how long an answer was under way. None: a process that keeps no
        lease, such as `cronkeeper-fire`, has nothing but its claims.
        """
        if self.lease_heard_s is None:
            return None
        coordinator = self._coordinator()
        session_heard_s = 0.0 if coordinator is None else now_s - coordinator.silence_s()
        return max(self.lease_heard_s, session_heard_s)

    def claim(self, runs: Sequence[Run], delivery: Mapping[RunKey, Delivery]) -> dict[RunKey, Answer]:
        """Return each run's answer. Bounded by `claim_wait_s` plus ZooKeeper's own call timeout."""
        asked_s = self._clock.boot_s()
        rows = self._ask_mysql(runs)
        if rows is not None:
            return {key: Answer(_outcome(mine), Fence.MYSQL, asked_s) for key, mine in rows.items()}
        answers: dict[RunKey, Answer] = {}
        for run in runs:
            if delivery[run.key] is Delivery.AT_MOST_ONCE:
                answers[run.key] = Answer(Outcome.UNDECIDED, Fence.NONE, asked_s)
            else:
                answers[run.key] = self._ask_zookeeper(run)
        return answers

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask_mysql(self, runs: Sequence[Run]) -> dict[RunKey, bool] | None:
        if not self.mysql_ok:
            return None
        call = self._pool.submit(self._ledger.claim, runs)
        try:
            return call.result(self._claim_wait_s)
        except UnavailableError as exc:
            log.warning(
                "MySQL did not grant or refuse the claims", extra={"event": "claim.mysql_away", "error": str(exc)}
            )
        except concurrent.futures.TimeoutError:
            log.warning(
                "MySQL did not answer the claims in time",
                extra={"event": "claim.mysql_slow", "waited_s": self._claim_wait_s, "claims": len(runs)},
            )
        self.mysql_ok = False
        return None

    def _ask_zookeeper(self, run: Run) -> Answer:
        asked_s = self._clock.boot_s()
        coordinator = self._coordinator()
        if coordinator is None or not coordinator.connected or coordinator.silence_s() > SILENT_S:
            return Answer(Outcome.GRANTED, Fence.NONE, asked_s)
        try:
            mine = coordinator.claim(run.key, ClaimNote(run.nonce, run.worker, run.state))
        except UnavailableError:
            return Answer(Outcome.GRANTED, Fence.NONE, asked_s)
        return Answer(_outcome(mine), Fence.ZOOKEEPER, asked_s)


def _outcome(mine: bool) -> Outcome:
    return Outcome.GRANTED if mine else Outcome.REFUSED
