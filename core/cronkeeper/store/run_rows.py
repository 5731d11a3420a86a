"""Runs as rows and back, and which rows may move where. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import ACTIVE, TERMINAL, Reason, Run, RunState, Trigger, predecessors, reachable_from
from cronkeeper.errors import WireFormatError
from cronkeeper.store.flavour import Flavour, Row

KEY = ("job_id", "shard", "fire_ms", "attempt")
#: All columns of the table, in the order of `to_row` and `from_row`.
COLUMNS = (
    *KEY,
    "trigger",
    "state",
    "worker",
    "nonce",
    "generation",
    "fence",
    "reason",
    "claimed_ms",
    "started_ms",
    "ended_ms",
    "exit_code",
    "signal",
    "autonomous",
    "output_tail",
    "output_bytes",
    "cancel_requested",
)
HEAD = ("job_id", "shard", "fire_ms", "attempt", "state", "ended_ms")

ACTIVE_STATES = tuple(sorted(state.value for state in ACTIVE))
#: No process of the run is known to exist, and none will be started.
OVER_STATES = tuple(sorted(state.value for state in TERMINAL | {RunState.LOST}))
LOSABLE_STATES = tuple(sorted(state.value for state in predecessors(RunState.LOST)))
CLAIMABLE_STATES = tuple(sorted(state.value for state in predecessors(RunState.CLAIMED)))


def to_row(run: Run) -> Row:
    """Return the run's row."""
    return (
        *key_row(run.key),
        run.trigger.value,
        run.state.value,
        run.worker,
        run.nonce,
        run.generation,
        run.fence,
        None if run.reason is None else run.reason.value,
        run.claimed_ms,
        run.started_ms,
        run.ended_ms,
        run.exit_code,
        run.signal,
        int(run.autonomous),
        # A lone surrogate (from a broken decoder) would make the whole batch impossible to send, for ever.
        run.output_tail.encode("utf-8", "replace").decode(),
        run.output_bytes,
        int(run.cancel_requested),
    )


def from_row(row: Any) -> Run:
    """Read a row of COLUMNS. Raises WireFormatError when it was edited by hand or is of a newer version."""
    job_id, shard, fire_ms, attempt, trigger, state, worker, nonce, generation, fence, reason, *rest = row
    claimed_ms, started_ms, ended_ms, exit_code, signal, autonomous, tail, output_bytes, cancel_requested = rest
    try:
        return Run(
            key=RunKey(TaskId(job_id, shard), fire_ms, attempt),
            trigger=Trigger(trigger),
            state=RunState(state),
            worker=worker,
            nonce=nonce,
            generation=generation,
            fence=fence,
            reason=None if reason is None else Reason(reason),
            claimed_ms=claimed_ms,
            started_ms=started_ms,
            ended_ms=ended_ms,
            exit_code=exit_code,
            signal=signal,
            autonomous=bool(autonomous),
            output_tail=tail,
            output_bytes=output_bytes,
            cancel_requested=bool(cancel_requested),
        )
    except ValueError as exc:
        raise WireFormatError(f"the row of run {job_id}-{shard}-{fire_ms}-{attempt} cannot be read: {exc}") from exc


def key_row(key: RunKey) -> Row:
    """Return the values of the primary key."""
    return (key.task.job_id, key.task.shard, key.fire_ms, key.attempt)


def key_of(row: Any) -> RunKey:
    """Read a primary key."""
    job_id, shard, fire_ms, attempt = row
    return RunKey(TaskId(job_id, shard), fire_ms, attempt)


def later_edges() -> frozenset[tuple[RunState, RunState]]:
    """Return from where to where a report may bring a row: to any later state, by the transition table.

    A worker may report an end that the table does not know for a run that the leader has given up; it counts as failed.
    """
    edges = {(old, new) for old in RunState for new in reachable_from(old) if new is not old}
    return frozenset(edges | {(RunState.LOST, RunState.TIMED_OUT), (RunState.LOST, RunState.CANCELLED)})


def late_truth(stored: RunState, reported: RunState) -> RunState:
    """Return the state that a report brings a row to, where `later_edges` lets it."""
    if stored is RunState.LOST and reported in (RunState.TIMED_OUT, RunState.CANCELLED):
        return RunState.FAILED
    return reported


def is_head(state: RunState, started_ms: int | None) -> bool:
    """Say whether a run in this state can be a job's last run: it was started, or may have been."""
    if state is RunState.CANCELLED:
        return started_ms is not None
    return state not in (RunState.PENDING, RunState.CLAIMED, RunState.SKIPPED)


def newest_heads(runs: Iterable[Run]) -> list[Row]:
    """Return one row of HEAD for each job among the runs: that of its newest one; ordered by job."""
    newest: dict[int, Run] = {}
    for run in runs:
        job_id = run.key.task.job_id
        if is_head(run.state, run.started_ms) and (job_id not in newest or order(newest[job_id].key) < order(run.key)):
            newest[job_id] = run
    return [(*key_row(run.key), run.state.value, run.ended_ms) for _, run in sorted(newest.items())]


def order(key: RunKey) -> tuple[int, int, int]:
    """Return by what the runs of one job are newer or older."""
    return (key.fire_ms, key.attempt, key.task.shard)


def record_end(flavour: Flavour) -> str:
    """Return the end of an INSERT that brings rows to a later state and leaves all others alone.

    MySQL assigns from left to right and already sees what was assigned, so the two columns that the condition reads
    come last: the nonce (which the condition makes equal anyway) and then the state.
    """
    new = flavour.new
    edges = ", ".join(sorted(f"'{old}>{later}'" for old, later in later_edges()))
    moved = f"`state` || '>' || {new('state')}" if not flavour.is_mysql else f"CONCAT(`state`, '>', {new('state')})"
    # A pending row is nobody's yet: a worker may have claimed it by the other fence.
    allowed = f"((`nonce` = {new('nonce')} OR `state` = 'pending') AND {moved} IN ({edges}))"
    values = _merged(flavour)
    if flavour.is_mysql:
        return "ON DUPLICATE KEY UPDATE " + ", ".join(
            f"`{column}` = IF({allowed}, {value}, `{column}`)" for column, value in values.items()
        )
    assignments = ", ".join(f"`{column}` = {value}" for column, value in values.items())
    return f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {assignments} WHERE {allowed}"


def _merged(flavour: Flavour) -> dict[str, str]:
    """Return for each column what it becomes: the new value, or the old one where the report does not know it."""
    new = flavour.new
    values = {
        column: f"CASE WHEN {new(column)} = {unknown} THEN `{column}` ELSE {new(column)} END"
        for column, unknown in (("worker", "''"), ("generation", "0"), ("fence", "0"), ("output_tail", "''"))
    }
    nullable = ("reason", "claimed_ms", "started_ms", "ended_ms", "exit_code", "signal")
    values |= {column: f"COALESCE({new(column)}, `{column}`)" for column in nullable}
    growing = ("autonomous", "output_bytes", "cancel_requested")
    values |= {
        column: f"CASE WHEN {new(column)} > `{column}` THEN {new(column)} ELSE `{column}` END" for column in growing
    }
    values["nonce"] = new("nonce")
    failed = f"`state` = 'lost' AND {new('state')} IN ('timed_out', 'cancelled')"
    values["state"] = f"CASE WHEN {failed} THEN 'failed' ELSE {new('state')} END"
    return values


def head_end(flavour: Flavour) -> str:
    """Return the end of an INSERT into job_heads that never goes back to an older run.

    MySQL: the columns of the comparison come last and from its least to its greatest, so that it stays true (or false)
    while they are assigned.
    """
    new = flavour.new
    newer = f"({new('fire_ms')}, {new('attempt')}, {new('shard')}) >= (`fire_ms`, `attempt`, `shard`)"
    columns = ("ended_ms", "state", "shard", "attempt", "fire_ms")
    if flavour.is_mysql:
        return "ON DUPLICATE KEY UPDATE " + ", ".join(
            f"`{column}` = IF({newer}, {new(column)}, `{column}`)" for column in columns
        )
    assignments = ", ".join(f"`{column}` = {new(column)}" for column in columns)
    return f"ON CONFLICT (`job_id`) DO UPDATE SET {assignments} WHERE {newer}"
