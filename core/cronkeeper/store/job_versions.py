"""Changing a job's row where it stands: what every such change does besides."""

from __future__ import annotations

from collections.abc import Sequence

from cronkeeper.store import job_rows
from cronkeeper.store.flavour import Flavour, Sender, names, slices


def touch(flavour: Flavour) -> str:
    """Return what moves `updated_ms`, so that the leader's question for what has changed finds the row."""
    now = flavour.now_ms
    return f"`updated_ms` = CASE WHEN `updated_ms` < {now} THEN {now} ELSE `updated_ms` END"


def remember_jobs(conn: Sender, flavour: Flavour, job_ids: Sequence[int]) -> None:
    """Keep these jobs as they are now: the auditor must be able to tell what was due at any instant of the past."""
    end = flavour.replace_old(job_rows.HISTORY[:3], job_rows.HISTORY[3:])
    for some in slices(job_ids):
        text = (
            f"INSERT INTO `job_history` ({names(job_rows.HISTORY)}) SELECT {names(job_rows.REMEMBERED)} FROM `jobs`"
            f" WHERE `id` IN ({flavour.marks(len(some))}) {end}"
        )
        conn.exec_driver_sql(text, tuple(some))
