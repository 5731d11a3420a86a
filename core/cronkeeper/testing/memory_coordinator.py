"""A ZooKeeper in memory: the real coordinator over a tree of our own, with sessions that a test can cut and expire.

Every `MemoryCoordinator` on one `MemoryEnsemble` is one process with one session:

    ensemble = MemoryEnsemble()
    leader, worker = MemoryCoordinator(ensemble, "m1"), MemoryCoordinator(ensemble, "w1")
    leader.start(1.0)
    ...
    worker.cut()        # it hears nothing and knows it; its session lives on
    worker.expire()     # the servers have given its session up: its ephemeral znodes are gone
    worker.heal()       # it is connected again, here with a new session
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cronkeeper.coord import paths
from cronkeeper.coord.coordinator import ZnodeCoordinator
from cronkeeper.coord.requests import (
    Answer,
    Check,
    Children,
    Create,
    Delete,
    Exists,
    Fault,
    Get,
    Multi,
    Node,
    Put,
    Refused,
    Request,
    Stat,
    Write,
)
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.clock import Clock, SystemClock

_WatchKey = tuple[str, str]
_Undo = Callable[[], None]


@dataclass(slots=True)
class _Znode:
    data: bytes
    czxid: int
    mzxid: int
    owner: int = 0
    version: int = 0
    next_sequence: int = 0
    children: set[str] = field(default_factory=set)

    def stat(self) -> Stat:
        return Stat(self.version, self.czxid, self.mzxid, self.owner)


class _No(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class MemoryEnsemble:
    """The servers: one tree, and the sessions on it. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tree: dict[str, _Znode] = {}
        self._zxid = 0
        self._sessions = 0
        self._watches: dict[_WatchKey, set[MemorySession]] = {}
        self._changed: list[_WatchKey] = []

    def wipe(self) -> None:
        """Remove everything, the chroot included, as an administrator's mistake would."""
        with self._lock:
            for path in sorted((path for path in self._tree if path != paths.ROOT), key=paths.depth, reverse=True):
                self._delete(Delete(path))
            self._tree.clear()
        self._tell()

    def remove(self, path: str) -> None:
        """Remove one znode and all below it."""
        with self._lock:
            inside = [p for p in self._tree if p == path or p.startswith(path + "/")]
            for found in sorted(inside, key=paths.depth, reverse=True):
                self._delete(Delete(found))
        self._tell()

    def write(self, path: str, data: bytes) -> None:
        """Create or overwrite a znode in an existing folder, as a stranger would."""
        with self._lock:
            if path in self._tree:
                self._put(Put(path, data))
            else:
                self._create(Create(path, data), 0)
        self._tell()

    def snapshot(self) -> dict[str, bytes]:
        """Return all znodes with their data."""
        with self._lock:
            return {path: znode.data for path, znode in self._tree.items()}

    @property
    def writes(self) -> int:
        """How many changes there have been."""
        return self._zxid

    def open_session(self) -> int:
        with self._lock:
            self._sessions += 1
            return self._sessions

    def close_session(self, session_id: int) -> None:
        """Remove what the session owned."""
        with self._lock:
            for path in [path for path, znode in self._tree.items() if znode.owner == session_id]:
                self._delete(Delete(path))
        self._tell()

    def make_root(self) -> None:
        with self._lock:
            if paths.ROOT not in self._tree:
                self._tree[paths.ROOT] = _Znode(b"", self._zxid, self._zxid)

    def forget_watches(self, session: MemorySession) -> None:
        with self._lock:
            for watchers in self._watches.values():
                watchers.discard(session)

    def run(self, request: Request, session: MemorySession, session_id: int) -> Answer:
        """Answer one request, as the server would; watches fire before the answer is out."""
        with self._lock:
            answer = self._answer(request, session, session_id)
        self._tell()
        return answer

    def _answer(self, request: Request, session: MemorySession, session_id: int) -> Answer:
        if isinstance(request, Get | Children | Exists):
            return self._look(request, session)
        ops: tuple[Write | Check, ...] = request.ops if isinstance(request, Multi) else (request,)
        undo: list[_Undo] = []
        changes = len(self._changed)
        created: Answer = None
        for index, op in enumerate(ops):
            try:
                created = self._do(op, session_id, undo)
            except _No as no:
                for step in reversed(undo):
                    step()
                del self._changed[changes:]
                return Refused(no.fault, index)
        return created if isinstance(request, Create) else None

    def _look(self, request: Get | Children | Exists, session: MemorySession) -> Answer:
        znode = self._tree.get(request.path)
        if request.watch and (znode is not None or isinstance(request, Exists)):
            kind = "children" if isinstance(request, Children) else "data"
            self._watches.setdefault((kind, request.path), set()).add(session)
        if isinstance(request, Exists):
            return None if znode is None else znode.stat()
        if znode is None:
            return Refused(Fault.NO_NODE)
        return Node(znode.data, znode.stat()) if isinstance(request, Get) else tuple(znode.children)

    def _do(self, op: Write | Check, session_id: int, undo: list[_Undo]) -> str | None:
        if isinstance(op, Check):
            self._find(op.path)
            return None
        if isinstance(op, Create):
            path, step = self._create(op, session_id if op.ephemeral else 0)
            undo.append(step)
            return path
        undo.append(self._put(op) if isinstance(op, Put) else self._delete(op))
        return None

    def _create(self, op: Create, owner: int) -> tuple[str, _Undo]:
        folder = self._find(paths.parent(op.path))
        path = f"{op.path}{folder.next_sequence:010d}" if op.sequence else op.path
        if path in self._tree:
            raise _No(Fault.NODE_EXISTS)
        self._zxid += 1
        folder.next_sequence += 1
        folder.children.add(paths.name(path))
        self._tree[path] = _Znode(op.data, self._zxid, self._zxid, owner)
        self._fire("data", path)
        self._fire("children", paths.parent(path))

        def undo() -> None:
            del self._tree[path]
            folder.children.discard(paths.name(path))

        return path, undo

    def _put(self, op: Put) -> _Undo:
        znode = self._find(op.path, op.version)
        before = (znode.data, znode.version, znode.mzxid)
        self._zxid += 1
        znode.data, znode.version, znode.mzxid = op.data, znode.version + 1, self._zxid
        self._fire("data", op.path)

        def undo() -> None:
            znode.data, znode.version, znode.mzxid = before

        return undo

    def _delete(self, op: Delete) -> _Undo:
        znode = self._find(op.path, op.version)
        if znode.children:
            raise _No(Fault.NOT_EMPTY)
        self._zxid += 1
        folder = self._find(paths.parent(op.path))
        del self._tree[op.path]
        folder.children.discard(paths.name(op.path))
        self._fire("data", op.path)
        self._fire("children", op.path)
        self._fire("children", paths.parent(op.path))

        def undo() -> None:
            self._tree[op.path] = znode
            folder.children.add(paths.name(op.path))

        return undo

    def _find(self, path: str, version: int = -1) -> _Znode:
        znode = self._tree.get(path)
        if znode is None:
            raise _No(Fault.NO_NODE)
        if version not in (-1, znode.version):
            raise _No(Fault.BAD_VERSION)
        return znode

    def _fire(self, kind: str, path: str) -> None:
        self._changed.append((kind, path))

    def _tell(self) -> None:
        # Outside the lock: whoever is told may be waiting for it in another thread.
        with self._lock:
            changed, self._changed = self._changed, []
            fired = [(session, path) for kind, path in changed for session in self._watches.pop((kind, path), ())]
        for session, path in fired:
            session.tell(path)


class MemorySession:
    """`coord.requests.Session` over a `MemoryEnsemble`."""

    timeout_s = 6.0

    def __init__(self, ensemble: MemoryEnsemble, clock: Clock) -> None:
        self._ensemble = ensemble
        self._clock = clock
        self._listener: Callable[[str | None], None] = lambda _path: None
        self._id = 0
        self._expired = False
        self._started = False
        self._cut = False
        self._heard_s = -math.inf
        self._lose_answer = False

    def start(self, timeout_s: float) -> None:
        self._started = True
        if self._cut:
            raise UnavailableError(f"no connection after {timeout_s:g} s; still trying")
        self._connect()
        self._ensemble.make_root()

    def stop(self) -> None:
        if self._started:
            self._started = False
            self._ensemble.forget_watches(self)
            if not self._cut:
                self._ensemble.close_session(self._id)
            self._id = 0

    @property
    def connected(self) -> bool:
        return self._started and not self._cut

    @property
    def session_id(self) -> int:
        return self._id

    def silence_s(self) -> float:
        return 0.0 if self.connected else self._clock.boot_s() - self._heard_s

    def wait_connected(self, timeout_s: float) -> bool:
        return self.connected

    def listen(self, on_event: Callable[[str | None], None]) -> None:
        self._listener = on_event

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        if not self.connected:
            raise UnavailableError("not connected")
        answers = [self._ensemble.run(request, self, self._id) for request in requests]
        if self._lose_answer and any(not isinstance(request, Get | Children | Exists) for request in requests):
            self._lose_answer = False
            raise UnavailableError("the answer was lost")
        return answers

    def ensure_root(self) -> None:
        self._ensemble.make_root()

    def tell(self, path: str | None) -> None:
        self._listener(path)

    def cut(self) -> None:
        self._cut = True
        self._heard_s = self._clock.boot_s()
        self._ensemble.forget_watches(self)
        self.tell(None)

    def heal(self) -> None:
        self._cut = False
        if self._started:
            self._connect()

    def expire(self) -> None:
        self._ensemble.close_session(self._id)
        self._expired = True
        self._ensemble.forget_watches(self)
        if self.connected:
            self._connect()

    def lose_next_answer(self) -> None:
        self._lose_answer = True

    def _connect(self) -> None:
        if self._id == 0 or self._expired:
            self._id, self._expired = self._ensemble.open_session(), False
        self.tell(None)


class MemoryCoordinator(ZnodeCoordinator):
    """`ports.Coordinator` in memory: one process's session on a `MemoryEnsemble`."""

    def __init__(self, ensemble: MemoryEnsemble, name: str = "", *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.name = name
        self._memory = MemorySession(ensemble, clock)
        super().__init__(self._memory, clock=clock)

    def cut(self) -> None:
        """Take the connection away: every call raises UnavailableError, and `silence_s` grows. The session lives."""
        self._memory.cut()

    def heal(self) -> None:
        """Give the connection back: with the same session, or with a new one if it has expired."""
        self._memory.heal()

    def expire(self) -> None:
        """End the session on the servers' side. Who is connected has a new one at once; who is cut off, on `heal`."""
        self._memory.expire()

    def lose_next_answer(self) -> None:
        """Let the next write be done but raise UnavailableError, as when the connection breaks before the answer."""
        self._memory.lose_next_answer()
