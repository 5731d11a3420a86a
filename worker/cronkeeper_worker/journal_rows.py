"""Runs as rows of the node's journal, and back."""

from __future__ import annotations

from typing import Any

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.run import Reason, Run, RunState, Trigger

#: In the order of `to_row` and `from_row`.
COLUMNS = (
    "run_id, task, trigger, state, worker, nonce, generation, fence, reason, claimed_ms, started_ms, ended_ms, "
    "exit_code, signal, autonomous, output_tail, output_bytes"
)


def to_row(run: Run) -> tuple[Any, ...]:
    """Return the run as its row."""
    return (
        str(run.key),
        str(run.key.task),
        run.trigger,
        run.state,
        run.worker,
        run.nonce,
        run.generation,
        run.fence,
        run.reason,
        run.claimed_ms,
        run.started_ms,
        run.ended_ms,
        run.exit_code,
        run.signal,
        run.autonomous,
        run.output_tail,
        run.output_bytes,
    )


def from_row(row: tuple[Any, ...]) -> Run:
    """Read a row. Raises ValueError for one that makes no sense."""
    return Run(
        key=RunKey.parse(row[0]),
        trigger=Trigger(row[2]),
        state=RunState(row[3]),
        worker=row[4],
        nonce=row[5],
        generation=row[6],
        fence=row[7],
        reason=None if row[8] is None else Reason(row[8]),
        claimed_ms=row[9],
        started_ms=row[10],
        ended_ms=row[11],
        exit_code=row[12],
        signal=row[13],
        autonomous=bool(row[14]),
        output_tail=row[15],
        output_bytes=row[16],
    )
