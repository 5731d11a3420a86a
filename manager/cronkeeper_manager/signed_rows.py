"""A job's row beside its signed task: where the two differ, somebody wrote past the API. PURE.

A leader holds no key and cannot tell whether a signature is right: workers do that, and refuse the task. But people and
planners go by the row, and workers by the task; whoever changes one of them alone gives themselves away.
"""

from __future__ import annotations

import json
from typing import Any

from cronkeeper.domain.job import JobState
from cronkeeper.errors import WireFormatError
from cronkeeper.ports import SignedRow
from cronkeeper.wire.task import body_of


def alteration(row: SignedRow) -> str:
    """Say in what a job's row differs from its signed task; an empty text where they agree."""
    try:
        body, spec = body_of(row.envelope), json.loads(row.spec)
    except (WireFormatError, ValueError, RecursionError):
        return "its signed task cannot be read"
    faults = [name for name, differs in _compared(row, body, spec) if differs]
    return f"its row and its signed task differ in {', '.join(faults)}" if faults else ""


def _compared(row: SignedRow, body: dict[str, Any], spec: dict[str, Any]) -> list[tuple[str, bool]]:
    # Leaders finish jobs, and pause them, without a key.
    unsigned = row.state is JobState.FINISHED or row.withdrawn
    return [
        ("job_id", body.get("job_id") != row.job_id),
        ("generation", body.get("generation") != row.generation),
        ("state", not unsigned and body.get("state") != row.state.value),
        ("effective_from", body.get("effective_from_ms") != row.effective_from_ms),
        ("spec", body.get("spec") != spec),
        ("schedule", spec.get("schedule") != row.schedule),
        ("timezone", spec.get("timezone") != row.timezone),
        ("selector", spec.get("selector") != row.selector),
        ("shards", spec.get("shards") != row.shards),
    ]
