"""A worker with one of its safeguards taken out, for the test that the checker sees it.

    python broken_worker.py FLAW

It reads the settings of `cronkeeper worker` from the environment, breaks the class in its own memory, and then is the
daemon. The product has no such switch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Delivery
from cronkeeper.domain.run import Run
from cronkeeper.ports import LastFire
from cronkeeper.runtime.config import load
from cronkeeper.store import run_rows
from cronkeeper.store.runs import SqlRunStore
from cronkeeper_worker import daemon, engine_start, node_files, root_start
from cronkeeper_worker.agent import Agent
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.fences import Answer, Fences, Outcome
from cronkeeper_worker.pause_guard import PauseGuard


def every_claim_is_granted() -> None:
    """What the fences answer does not matter: whoever wants to start a fire may."""
    sound = Fences.claim

    def claim(self: Fences, runs: Sequence[Run], delivery: Mapping[RunKey, Delivery]) -> dict[RunKey, Answer]:
        return {key: one._replace(outcome=Outcome.GRANTED) for key, one in sound(self, runs, delivery).items()}

    Fences.claim = claim  # type: ignore[method-assign]


def no_catch_up() -> None:
    """Whoever takes a task over begins now, wherever its last owner has stopped."""

    def last_fires(self: Any, taken: Sequence[TaskId], _assigned: object) -> dict[TaskId, LastFire]:
        return dict.fromkeys(taken, LastFire(self._clock.now_ms(), 0))

    Agent._last_fires = last_fires  # type: ignore[method-assign,assignment]


def no_order_expires() -> None:
    """The runner carries out an order however old the claim behind it is."""
    engine_start.order_expiry_s = lambda _parts, _answer: 1e15  # type: ignore[attr-defined,assignment]


def given_up_claims_count() -> None:
    """A claim that the leader has declared lost is taken for granted, as its nonce is still ours.

    Two more safeguards go with it, as each alone keeps such a claim from counting: the look at the tasks after a pause,
    and MySQL's word that a task is another's by now.
    """
    sound = SqlRunStore._insert_missing

    def insert_missing(self: SqlRunStore, conn: Connection, rows: Any, *, synced: bool = False) -> dict[RunKey, str]:
        nonces = {run_rows.key_of(row[:4]): run_rows.from_row(row).nonce for row in rows}
        owners = sound(self, conn, rows, synced=synced)
        return {key: owner or nonces[key] for key, owner in owners.items()}

    SqlRunStore._insert_missing = insert_missing  # type: ignore[method-assign]
    PauseGuard.holds = lambda _self: False  # type: ignore[method-assign,assignment]
    SqlRunStore._outdated = lambda _self, _runs, **_: set()  # type: ignore[method-assign]


FLAWS: dict[str, Callable[[], None]] = {
    flaw.__name__: flaw for flaw in (every_claim_is_granted, no_catch_up, no_order_expires, given_up_claims_count)
}


def main(flaw: str) -> int:
    """Break it, and be it."""
    FLAWS[flaw]()
    config = load(WorkerConfig, file=None, environ=os.environ, flags={})
    config = root_start.settle(config)
    node_files.prepare(config.state_dir)
    return daemon.run(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
