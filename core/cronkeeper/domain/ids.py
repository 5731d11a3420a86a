"""Identities: what jobs, tasks and runs are called, in text, in znodes and in tables."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

_TASK = re.compile(r"([1-9][0-9]{0,17})[/.]([0-9]{1,10})", re.ASCII)
_RUN = re.compile(r"([1-9][0-9]{0,17})-([0-9]{1,10})-([0-9]{1,15})-([1-9][0-9]{0,4})", re.ASCII)
_JOB = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)


#: Shards from here on stand for nodes (`node_shard`); it is above every number that a job's own shard can have.
FIRST_NODE_SHARD = 10_000
_LAST_SHARD = 2**31 - 1


def node_shard(worker: str) -> int:
    """Return the shard that a worker has of every job which runs on each node: the same for ever, and asked of nobody.

    Two of 1,000 workers have the same with a chance of 1 in 4,000; whoever gives out such shards looks out for that.
    """
    number = int.from_bytes(hashlib.blake2b(worker.encode(), digest_size=8).digest())
    return FIRST_NODE_SHARD + number % (_LAST_SHARD + 1 - FIRST_NODE_SHARD)


def is_job_id(text: str) -> bool:
    """Say whether `text` can be a job's id: decimal digits without a leading zero."""
    return _JOB.fullmatch(text) is not None


def is_worker_id(text: str) -> bool:
    """Say whether `text` can be a worker's id: it names znodes, so letters, digits, `_`, `.` and `-` only."""
    return _WORKER.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """One shard of one job (of `@reboot`: one node's), the unit of assignment. Text form `17/0`.

    Where a slash cannot stand: `17.0`.
    """

    job_id: int
    shard: int

    def __str__(self) -> str:
        return f"{self.job_id}/{self.shard}"

    @property
    def of_node(self) -> bool:
        """Whether it belongs to one node by its number, and never moves."""
        return self.shard >= FIRST_NODE_SHARD

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
        return cls(int(match[1]), _shard(match[2]))


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """The key of a run: task, fire time (epoch ms, UTC), attempt. As text it is the run's id: no store is needed."""

    task: TaskId
    fire_ms: int
    attempt: int

    def __hash__(self) -> int:
        # Some thirty times for each run; the fields' own hash would ask the task for its.
        return hash((self.task.job_id, self.fire_ms, self.attempt))

    def __str__(self) -> str:
        return f"{self.task.job_id}-{self.task.shard}-{self.fire_ms}-{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a run's id. Raises ValueError."""
        match = _RUN.fullmatch(text)
        if match is None:
            raise ValueError(f"not a run id: {text!r}")
        return cls(TaskId(int(match[1]), _shard(match[2])), int(match[3]), int(match[4]))


def _shard(digits: str) -> int:
    if int(digits) > _LAST_SHARD:
        raise ValueError(f"not a shard: {digits}")
    return int(digits)
