"""Payloads of the znodes that are not signed tasks: one pair of functions each, all with a format version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, NodeInfo, Ownership, WorkerInfo
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.domain.sharing import shared
from cronkeeper.errors import WireFormatError
from cronkeeper.wire.codec import dumps, loads

VERSION = 1
_instant = shared(int)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClaimNote:
    """What `/claims/...` holds while MySQL is away: who started the fire, and how far it got."""

    nonce: str
    worker: str
    state: RunState

    def as_run(self, key: RunKey) -> Run:
        """Return the row that MySQL is to have of it: what more there is to say, the claimant says itself."""
        return Run(key, Trigger.TIMER, self.state, self.worker, self.nonce)


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """What `/queue/...` holds: a run on demand. It carries no command: the worker runs its own verified task."""

    key: RunKey
    requested_by: str


@dataclass(frozen=True, slots=True)
class LeaderNote:
    """What a candidate's election znode says."""

    id: str
    address: str
    epoch: int
    #: MySQL has answered it for some seconds without a break. Changes are written, nothing else is.
    reaches_mysql: bool = False


def encode_worker(info: WorkerInfo) -> bytes:
    return dumps({"v": VERSION, **_worker(info)})


def decode_worker(raw: bytes) -> WorkerInfo:
    return _read(raw, "worker", _worker_from)


def encode_node(node: NodeInfo) -> bytes:
    last = None if node.last is None else _worker(node.last)
    return dumps({"v": VERSION, "id": node.id, "cordoned": node.cordoned, "draining": node.draining, "last": last})


def decode_node(raw: bytes) -> NodeInfo:
    def build(data: dict[str, Any]) -> NodeInfo:
        last = data["last"]
        return NodeInfo(
            str(data["id"]),
            bool(data["cordoned"]),
            bool(data["draining"]),
            None if last is None else _worker_from(last),
        )

    return _read(raw, "node", build)


def encode_assignment(item: Assignment) -> bytes:
    return dumps(
        {
            "v": VERSION,
            "generation": item.generation,
            "epoch": item.epoch,
            "reason": item.reason.value,
            "assigned_ms": item.assigned_ms,
            "since_ms": item.since_ms,
        }
    )


def decode_assignment(raw: bytes, task: TaskId, worker: str) -> Assignment:
    def build(data: dict[str, Any]) -> Assignment:
        return Assignment(
            task,
            worker,
            int(data["generation"]),
            int(data["epoch"]),
            MoveReason(data["reason"]),
            # Of thousands that were assigned together: the instants are the same.
            _instant(data["assigned_ms"]),
            _instant(data["since_ms"]),
        )

    return _read(raw, "assignment", build)


def encode_ownership(item: Ownership) -> bytes:
    return dumps({"v": VERSION, "generation": item.generation, "worker_epoch": item.worker_epoch})


def decode_ownership(raw: bytes, task: TaskId, worker: str) -> Ownership:
    return _read(
        raw, "ownership", lambda data: Ownership(task, worker, int(data["generation"]), str(data["worker_epoch"]))
    )


def encode_claim(note: ClaimNote) -> bytes:
    return dumps({"v": VERSION, "nonce": note.nonce, "worker": note.worker, "state": note.state.value})


def decode_claim(raw: bytes) -> ClaimNote:
    return _read(raw, "claim", lambda data: ClaimNote(str(data["nonce"]), str(data["worker"]), RunState(data["state"])))


def encode_queued(item: QueuedRun) -> bytes:
    return dumps({"v": VERSION, "run": str(item.key), "requested_by": item.requested_by})


def decode_queued(raw: bytes) -> QueuedRun:
    return _read(raw, "queued run", lambda data: QueuedRun(RunKey.parse(data["run"]), str(data["requested_by"])))


def encode_leader(note: LeaderNote) -> bytes:
    return dumps(
        {
            "v": VERSION,
            "id": note.id,
            "address": note.address,
            "epoch": note.epoch,
            "reaches_mysql": note.reaches_mysql,
        }
    )


def decode_leader(raw: bytes) -> LeaderNote:
    def build(data: dict[str, Any]) -> LeaderNote:
        # An older manager does not say: it cannot be counted on.
        reaches = data.get("reaches_mysql") is True
        return LeaderNote(str(data["id"]), str(data["address"]), int(data["epoch"]), reaches)

    return _read(raw, "leader", build)


def _worker(info: WorkerInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "host": info.host,
        "labels": dict(info.labels),
        "capacity": info.capacity,
        "version": info.version,
        "epoch": info.epoch,
        "pid": info.pid,
        "started_ms": info.started_ms,
        "leaving": info.leaving,
        "secrets_keys": None if info.secrets_keys is None else list(info.secrets_keys),
    }


def _worker_from(data: dict[str, Any]) -> WorkerInfo:
    keys = data.get("secrets_keys")
    return WorkerInfo(
        id=str(data["id"]),
        host=str(data["host"]),
        labels={str(key): str(value) for key, value in data["labels"].items()},
        capacity=int(data["capacity"]),
        version=str(data["version"]),
        epoch=str(data["epoch"]),
        pid=int(data["pid"]),
        started_ms=int(data["started_ms"]),
        leaving=bool(data.get("leaving", False)),
        secrets_keys=None if keys is None else tuple(str(key) for key in keys),
    )


def _read(raw: bytes, what: str, build: Callable[[dict[str, Any]], T]) -> T:
    data = loads(raw, version=VERSION, what=what)
    try:
        return build(data)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise WireFormatError(f"{what}: {exc!r}") from exc
