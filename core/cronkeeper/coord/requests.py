"""PURE: what can be asked of ZooKeeper, as values, and the planning of many writes at once.

Everything above `calls.py` speaks in these, so that the shipped double and the real server run the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cronkeeper.coord import paths
from cronkeeper.errors import WireFormatError
from cronkeeper.wire.codec import MAX_BYTES

#: The server drops the connection of whoever sends 1 MB; these keep far away from that.
MAX_OPS = 100
MAX_MULTI_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Stat:
    """What we use of a znode's stat. `owner` is the session of an ephemeral znode, 0 for a persistent one."""

    version: int
    czxid: int
    mzxid: int
    owner: int


@dataclass(frozen=True, slots=True)
class Node:
    data: bytes
    stat: Stat


class Fault(StrEnum):
    """Why the server refused: a fact about the tree, no failure."""

    NO_NODE = "no node"
    NODE_EXISTS = "node exists"
    BAD_VERSION = "bad version"
    NOT_EMPTY = "not empty"


@dataclass(frozen=True, slots=True)
class Refused:
    """The server's no. In a multi-operation `index` is the operation that was refused (and none was done)."""

    fault: Fault
    index: int = 0


@dataclass(frozen=True, slots=True)
class Get:
    """Answered by a Node. With `watch`, the next change is told, if the znode is there."""

    path: str
    watch: bool = False


@dataclass(frozen=True, slots=True)
class Children:
    """Answered by a tuple of names. With `watch`, the next coming or going is told, if the znode is there."""

    path: str
    watch: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """Answered by a Stat, or None. With `watch`, the next change is told, a creation included."""

    path: str
    watch: bool = False


@dataclass(frozen=True, slots=True)
class Create:
    """Answered by the path, which for a sequential znode ends with the server's ten digits."""

    path: str
    data: bytes = b""
    ephemeral: bool = False
    sequence: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """Overwrite an existing znode; `version` -1 means whatever its version is. Answered by None."""

    path: str
    data: bytes
    version: int = -1


@dataclass(frozen=True, slots=True)
class Delete:
    """Answered by None."""

    path: str
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check:
    """Only in a Multi: refuse the whole of it unless the znode exists."""

    path: str


Read = Get | Children | Exists
Write = Create | Put | Delete


@dataclass(frozen=True, slots=True)
class Multi:
    """All or nothing. Answered by None, or by a Refused with an index."""

    ops: tuple[Write | Check, ...]


Request = Read | Write | Multi
Answer = Node | Stat | tuple[str, ...] | str | Refused | None


class Session(Protocol):
    """One ZooKeeper session that comes back by itself. Safe to use from several threads, not across a fork."""

    #: The session timeout that was asked for, in seconds.
    timeout_s: float

    def start(self, timeout_s: float) -> None:
        """Connect. Raises UnavailableError after `timeout_s` and goes on trying; ConfigError when we may not enter."""
        ...

    def stop(self) -> None: ...

    @property
    def connected(self) -> bool: ...

    @property
    def session_id(self) -> int:
        """0 while there is no session."""
        ...

    def silence_s(self) -> float: ...

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a connection; say whether there is one."""
        ...

    def listen(self, on_event: Callable[[str | None], None]) -> None:
        """Have `on_event` called with the path of every watched change; None: whatever was watched may have changed."""
        ...

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all, pipelined, and return the answers in order.

        Raises UnavailableError when any answer did not come (writes may or may not have been done), and ConfigError
        when the server says that we may not.
        """
        ...

    def ensure_root(self) -> None:
        """Create the chroot if it is missing. Safe to repeat."""
        ...


def plan_writes(upserts: Mapping[str, bytes], deletes: Iterable[str], existing: Collection[str]) -> list[Write]:
    """Return the writes that bring the tree there: missing folders first, then the upserts, then the deletes.

    `existing` names those of all these paths, and of the folders above, that exist now. What shall be deleted and is
    not there is left out; children are deleted before their folders.
    """
    there = set(existing)
    folders = {folder for path in upserts for folder in paths.ancestors(path)} - there
    writes: list[Write] = [Create(folder) for folder in sorted(folders, key=lambda f: (paths.depth(f), f))]
    for path, data in upserts.items():
        writes.append(Put(path, data) if path in there else Create(path, data))
    gone = sorted({path for path in deletes if path in there}, key=lambda p: (-paths.depth(p), p))
    return [*writes, *(Delete(path) for path in gone)]


def batches(writes: Sequence[Write], guard: str | None) -> list[Multi]:
    """Cut writes into multi-operations, in order, each of which first checks `guard` (the path of a znode) if given.

    With a guard and nothing to write there is one batch that only checks. Raises WireFormatError for a payload that is
    too large to be sent.
    """
    head: tuple[Write | Check, ...] = () if guard is None else (Check(guard),)
    result: list[Multi] = []
    ops: list[Write | Check] = list(head)
    size = 0
    for write in writes:
        weight = size_of(write)
        if len(ops) > len(head) and (len(ops) >= MAX_OPS or size + weight > MAX_MULTI_BYTES):
            result.append(Multi(tuple(ops)))
            ops, size = list(head), 0
        ops.append(write)
        size += weight
    if ops and (len(ops) > len(head) or not result):
        result.append(Multi(tuple(ops)))
    return result


def size_of(write: Write) -> int:
    """Return about how many bytes the write takes on the wire. Raises WireFormatError for too large a payload."""
    data = b"" if isinstance(write, Delete) else write.data
    if len(data) > MAX_BYTES:
        raise WireFormatError(f"{write.path}: {len(data)} bytes are more than {MAX_BYTES}")
    return len(data) + len(write.path) + 64
