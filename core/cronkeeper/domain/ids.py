"""Identities: what jobs, tasks and runs are called, in text, in znodes and in tables."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_TASK = re.compile(r"([1-9][0-9]{0,17})[/.]([0-9]{1,4})", re.ASCII)
_RUN = re.compile(r"([1-9][0-9]{0,17})-([0-9]{1,4})-([0-9]{1,15})-([1-9][0-9]{0,4})", re.ASCII)
_JOB = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


def is_job_id(text: str) -> bool:
    """Say whether `text` can be a job's id: decimal digits without a leading zero."""
    return _JOB.fullmatch(text) is not None


def is_worker_id(text: str) -> bool:
    """Say whether `text` can be a worker's id: it names znodes, so letters, digits, `_`, `.` and `-` only."""
    return _WORKER.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """One shard of one job, the unit of assignment. Text form `17/0`; `17.0` where a slash cannot stand."""

    job_id: int
    shard: int

    def __str__(self) -> str:
        return f"{self.job_id}/{self.shard}"

    @property
    def znode(self) -> str:
        """The name of the task's znodes."""
        return f"{self.job_id}.{self.shard}"

    @property
    def bucket(self) -> str:
        """Two hex digits of a stable hash; never Python's own `hash`, which differs between processes."""
        return hashlib.blake2b(str(self).encode(), digest_size=1).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read either text form. Raises ValueError."""
        match = _TASK.fullmatch(text)
        if match is None:
            raise ValueError(f"not a task id: {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """The key of a run: task, fire time (epoch ms, UTC), attempt. As text it is the run's id: no store is needed."""

    task: TaskId
    fire_ms: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.task.job_id}-{self.task.shard}-{self.fire_ms}-{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a run's id. Raises ValueError."""
        match = _RUN.fullmatch(text)
        if match is None:
            raise ValueError(f"not a run id: {text!r}")
        return cls(TaskId(int(match[1]), int(match[2])), int(match[3]), int(match[4]))
