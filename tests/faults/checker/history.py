"""The history of one trial: what was asked, what was done to the fleet, what its jobs did, what the system says.

Values, and strict readers and writers of a folder with one file for each kind of them. Instants in `_s` are seconds of
the epoch on the reference clock (save `wall_s` and `boot_s` of the truth: the node's own), those in `_ms` milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


class FaultKind(StrEnum):
    """What can be done to a fleet: a closed list."""

    WORKER_KILLED = "worker_killed"
    NODE_KILLED = "node_killed"
    WORKER_PAUSED = "worker_paused"
    NODE_PAUSED = "node_paused"
    RUNNER_KILLED = "runner_killed"
    LEADER_KILLED = "leader_killed"
    MANAGER_PAUSED = "manager_paused"
    API_KILLED = "api_killed"
    CUT_ZOOKEEPER = "cut_zookeeper"
    CUT_MYSQL = "cut_mysql"
    CUT_ALL = "cut_all"
    CUT_REPLIES = "cut_replies"
    PARTITION = "partition"
    LATENCY = "latency"
    ZOOKEEPER_MEMBER_DOWN = "zookeeper_member_down"
    ZOOKEEPER_QUORUM_LOST = "zookeeper_quorum_lost"
    ZOOKEEPER_WIPED = "zookeeper_wiped"
    MYSQL_DOWN = "mysql_down"
    GALERA_MEMBER_DOWN = "galera_member_down"
    GALERA_NO_PRIMARY = "galera_no_primary"
    S3_DOWN = "s3_down"
    CLOCK_STEPPED = "clock_stepped"
    CLOCK_SKEWED = "clock_skewed"
    DISK_FULL = "disk_full"
    INODES_FULL = "inodes_full"
    CRON_DEAD = "cron_dead"
    CRON_PAUSED = "cron_paused"
    SLOW_DISK = "slow_disk"
    FILES_EXHAUSTED = "files_exhausted"
    EVERYTHING_KILLED = "everything_killed"


class OpKind(StrEnum):
    """What a user asked for."""

    CREATE = "create"
    REPLACE = "replace"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    PURGE = "purge"
    RUN = "run"


class OpResult(StrEnum):
    """What is known of an operation: it is done, it is not done, or nobody can say."""

    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much time things may take, seconds: a start, news of a change, recovery from a fault; clocks may be off."""

    on_time_s: float
    propagation_s: float
    recovery_s: float
    skew_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The trial as a whole. What happened after `read_s` is not judged."""

    seed: int
    started_s: float
    read_s: float
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a user on the job `name`. `spec` is the whole job with defaults; None: it did not change."""

    op: OpKind
    name: str
    job: str | None
    generation: int | None
    spec: Mapping[str, Any] | None
    invoked_s: float
    completed_s: float
    result: OpResult
    status: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """A process of a job wrote that it began. `fire_ms` and the rest of the labels are what the system told it."""

    name: str
    job: str
    run: str
    fire_ms: int
    attempt: int
    shard: int
    worker: str
    fence: str
    token: str
    node: str
    pid: int
    wall_s: float
    boot_s: float


@dataclass(frozen=True, slots=True)
class End:
    """The process with this token wrote that it ends, with this exit status."""

    token: str
    wall_s: float
    boot_s: float
    exit: int


@dataclass(frozen=True, slots=True)
class ClockSample:
    """What a node's clocks said at an instant of the reference clock."""

    node: str
    wall_s: float
    boot_s: float
    reference_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the fleet. None as an end: it was never taken back."""

    kind: FaultKind
    targets: tuple[str, ...]
    started_s: float
    ended_s: float | None
    healed_s: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One run as the system's ledger has it; instants are RFC 3339 texts, as `GET /runs/{id}` shows them."""

    id: str
    job_id: str
    fire_time: str
    attempt: int
    shard: int
    trigger: str
    state: str
    reason: str | None
    worker: str | None
    claimed_at: str | None
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    signal: int | None
    autonomous: bool

    @property
    def fire_ms(self) -> int:
        return instant_ms(self.fire_time)


@dataclass(frozen=True, slots=True)
class Missed:
    """The auditor's verdict on one fire."""

    job_id: str
    shard: int
    fire_time: str
    reason: str

    @property
    def fire_ms(self) -> int:
        return instant_ms(self.fire_time)


@dataclass(frozen=True, slots=True)
class Owners:
    """At a quiet instant: which worker was given which task, and which tasks each node's crontab names."""

    at_s: float
    assigned: Mapping[str, tuple[str, ...]]
    crontabs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as `GET /jobs/{id}` shows it at the end."""

    id: str
    status: str
    generation: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the system told."""

    at_ms: int
    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything that is known of one trial."""

    plan: Plan
    ops: tuple[Op, ...] = ()
    starts: tuple[Start, ...] = ()
    ends: tuple[End, ...] = ()
    clocks: tuple[ClockSample, ...] = ()
    faults: tuple[Fault, ...] = ()
    ledger: tuple[Row, ...] = ()
    missed: tuple[Missed, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    owners: tuple[Owners, ...] = ()
    events: tuple[Event, ...] = ()


class HistoryError(ValueError):
    """A file of a history is not what it should be; the message says where. The harness is to be mended."""


T = TypeVar("T")
#: What the API shows besides is not looked at; in all other lines an unknown key is a mistake of the harness.
_OPEN = (Row, JobRow)
#: A shell and a command line client write these as texts.
_LOOSE = ("pid", "at_ms")
#: One file for each of these fields of a history; `events` may be missing, as nobody has to write it.
_FILES: Mapping[str, type[Any]] = {
    "ops": Op,
    "clocks": ClockSample,
    "faults": Fault,
    "ledger": Row,
    "missed": Missed,
    "jobs": JobRow,
    "owners": Owners,
    "events": Event,
}


def instant_ms(text: str) -> int:
    """Return epoch milliseconds of an RFC 3339 instant. ValueError for anything else, one without a zone too."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def instant_text(ms: int) -> str:
    """Return the RFC 3339 instant of epoch milliseconds, with milliseconds."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def read_history(folder: Path) -> History:
    """Read a history's folder. HistoryError names the file and line of what does not belong there."""
    plan = folder / "plan.json"
    try:
        fields: dict[str, Any] = {"plan": from_dict(Plan, json.loads(plan.read_text()))}
    except (OSError, ValueError) as exc:
        raise HistoryError(f"{plan}: {exc}") from exc
    for name, shape in _FILES.items():
        path = folder / f"{name}.jsonl"
        if name != "events" or path.exists():
            fields[name] = tuple(_read(path, partial(from_dict, shape)))
    truth = list(_read(folder / "truth.jsonl", _edge))
    fields["starts"] = tuple(line for line in truth if isinstance(line, Start))
    fields["ends"] = tuple(line for line in truth if isinstance(line, End))
    return History(**fields)


def write_history(history: History, folder: Path) -> None:
    """Write a history so that `read_history` returns an equal one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(to_dict(history.plan), indent=2) + "\n")
    for name in _FILES:
        write_lines(folder / f"{name}.jsonl", map(to_dict, getattr(history, name)))
    starts = [{"edge": "start", **to_dict(start)} for start in history.starts]
    write_lines(folder / "truth.jsonl", [*starts, *({"edge": "end", **to_dict(end)} for end in history.ends)])


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def to_dict(value: Any) -> dict[str, Any]:
    """Return a line of a history as what its JSON holds."""
    return asdict(value)


def from_dict(shape: type[T], data: Any) -> T:
    """Return a line of a history from what its JSON held. HistoryError for a wrong, missing or unknown key."""
    if not isinstance(data, dict):
        raise HistoryError(f"{data!r} is not an object")
    hints = get_type_hints(shape)
    if missing := set(hints) - set(data):
        raise HistoryError(f"without {', '.join(sorted(missing))}")
    if (unknown := set(data) - set(hints)) and shape not in _OPEN:
        raise HistoryError(f"unknown: {', '.join(sorted(unknown))}")
    return shape(**{key: _value(hint, data[key], key) for key, hint in hints.items()})


def _edge(data: Any) -> Start | End:
    edge = data.pop("edge", None) if isinstance(data, dict) else None
    if edge == "start":
        return from_dict(Start, data)
    if edge == "end":
        return from_dict(End, data)
    raise HistoryError(f"{edge!r} is neither start nor end")


def _read(path: Path, convert: Callable[[Any], T]) -> Iterator[T]:
    try:
        text = path.read_text()
    except OSError as exc:
        raise HistoryError(f"{path}: {exc}") from exc
    for number, line in enumerate(text.splitlines(), 1):
        try:
            yield convert(json.loads(line))
        except ValueError as exc:
            raise HistoryError(f"{path}:{number}: {exc}") from exc


def _value(hint: Any, value: Any, key: str) -> Any:
    """Return a JSON value as what the type says, or refuse it."""
    if isinstance(hint, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return None if value is None else _value(kinds[0], value, key)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_dict(hint, value)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], item, key) for item in _list(value, key))
    if get_origin(hint) is Mapping:
        if not isinstance(value, dict):
            raise HistoryError(f"{key}: {value!r} is not an object")
        inner = get_args(hint)[1]
        return value if inner is Any else {name: _value(inner, item, key) for name, item in value.items()}
    return _plain(hint, value, key)


def _plain(hint: Any, value: Any, key: str) -> Any:
    if key in _LOOSE and isinstance(value, str) and value.isdecimal():
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise HistoryError(f"{key}: {value!r} is not of type {hint.__name__}")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise HistoryError(f"{key}: {value!r} is not a list")
    return list(value)
