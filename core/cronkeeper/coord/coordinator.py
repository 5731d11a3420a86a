"""The coordinator: our domain's words on one side, znodes on the other. It knows no kazoo; see `session.py`.

Names in the tree that are not ours, and payloads that cannot be read, are left out with one warning each: one bad znode
must not hide the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from cronkeeper.coord import paths
from cronkeeper.coord.assignments import Assignments
from cronkeeper.coord.election import Election
from cronkeeper.coord.reads import PIECE, Reads
from cronkeeper.coord.requests import Children, Create, Delete, Get, Multi, Node, Put, Refused, Session, Write
from cronkeeper.coord.tree import Tree
from cronkeeper.domain.ids import RunKey, TaskId, is_worker_id
from cronkeeper.domain.placement import Assignment, NodeInfo, Ownership, WorkerInfo
from cronkeeper.errors import ConflictError, FencedError, UnavailableError, WireFormatError
from cronkeeper.ports import Leadership
from cronkeeper.runtime.clock import Clock, SystemClock
from cronkeeper.wire import codec, trail, znodes
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun

log = logging.getLogger(__name__)

T = TypeVar("T")
K = TypeVar("K")

#: How long a claim whose answer was lost waits for a connection, to find out.
CLAIM_PATIENCE_S = 3.0
_READY_VERSION = 1
_WARNED_LIMIT = 10_000


class ZnodeCoordinator:
    """`ports.Coordinator` over a `requests.Session`. See there for what each method promises."""

    def __init__(self, session: Session, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._session = session
        self._reads = Reads(session, clock)
        self._tree = Tree(session, self._reads)
        self._assignments = Assignments(self._reads, self._tree, clock, self._tasks_of)
        self._election = Election(session, self._reads, clock)
        self._warned: set[str] = set()

    def start(self, timeout_s: float) -> None:
        self._session.start(timeout_s)

    def stop(self) -> None:
        self._session.stop()

    @property
    def connected(self) -> bool:
        return self._session.connected

    @property
    def session_id(self) -> int:
        return self._session.session_id

    def silence_s(self) -> float:
        return self._session.silence_s()

    def on_change(self, wake: Callable[[], None]) -> None:
        self._reads.on_change(wake)

    def ensure_layout(self) -> None:
        self._tree.ensure_layout()

    # -- readiness

    def is_ready(self, *, watch: bool = False) -> bool:
        marker = self._reads.nodes([paths.READY], watch=watch)[0]
        return marker is not None and marker.data == self._ready_mark(watch=watch)

    def mark_ready(self, leadership: Leadership) -> None:
        mark = self._ready_mark(watch=False)
        if mark is None:
            raise UnavailableError("ZooKeeper: the layout is not complete")
        self._tree.change({paths.READY: mark}, guard=leadership.znode)

    def _ready_mark(self, *, watch: bool) -> bytes | None:
        """Return what the marker must say: which /tasks and /assign it is about, as either may be wiped on its own."""
        stats = self._reads.stats([paths.TASKS, paths.ASSIGN], watch=watch)
        if any(stat is None for stat in stats):
            return None
        return codec.dumps({"v": _READY_VERSION, "made_by": [stat.czxid for stat in stats if stat is not None]})

    # -- the audit trail

    def trail_anchor(self) -> trail.Anchor | None:
        found = self._reads.nodes([paths.TRAIL])[0]
        return None if found is None else trail.decode_anchor(found.data)

    def anchor_trail(self, anchor: trail.Anchor, leadership: Leadership) -> None:
        self._tree.change({paths.TRAIL: trail.encode_anchor(anchor)}, guard=leadership.znode)

    # -- workers and nodes

    def announce(self, info: WorkerInfo) -> None:
        path, raw = paths.worker(info.id), znodes.encode_worker(info)
        for _ in range(3):
            # Kept by its watch: a call that changes nothing asks the server nothing.
            found = self._reads.nodes([path], watch=True)[0]
            if found is None:
                if self._tree.create(path, raw, ephemeral=True):
                    return
                continue
            if found.stat.owner == self._session.session_id:
                if found.data == raw:
                    return
                write: Write | Multi = Put(path, raw, found.stat.version)
            else:
                self._check_namesake(info, found)
                write = Multi((Delete(path, found.stat.version), Create(path, raw, ephemeral=True)))
            if not isinstance(self._reads.write([write])[0], Refused):
                return
        raise UnavailableError(f"ZooKeeper: {path} changes while we announce ourselves")

    def _check_namesake(self, info: WorkerInfo, found: Node) -> None:
        try:
            other = znodes.decode_worker(found.data)
        except WireFormatError as exc:
            raise ConflictError(f"worker {info.id}: something that is no worker holds the name") from exc
        if other.host != info.host:
            raise ConflictError(f"worker {info.id}: a live worker on {other.host} has this name")

    def workers(self, *, watch: bool = False) -> dict[str, WorkerInfo]:
        return self._named(paths.WORKERS, znodes.decode_worker, lambda info: info.id, watch=watch)

    def nodes(self, *, watch: bool = False) -> dict[str, NodeInfo]:
        return self._named(paths.NODES, znodes.decode_node, lambda node: node.id, watch=watch)

    def save_node(self, node: NodeInfo) -> None:
        self._tree.change({paths.node(node.id): znodes.encode_node(node)})

    def drop_node(self, worker: str) -> None:
        self._tree.delete([paths.node(worker)])

    # -- tasks

    def put_tasks(self, tasks: Mapping[TaskId, bytes]) -> None:
        items = {paths.task(task): raw for task, raw in tasks.items()}
        if left := self._tree.create_fast(items) if items else {}:
            self._tree.change(left)

    def drop_tasks(self, tasks: Iterable[TaskId]) -> None:
        self._tree.delete([paths.task(task) for task in tasks])

    def task_names(self, *, watch: bool = False) -> set[TaskId]:
        return self._names_in([paths.TASKS])[0] if watch else set(self._tasks_in([paths.TASKS])[0])

    def read_tasks(self, tasks: Iterable[TaskId], *, watch: bool = False) -> dict[TaskId, bytes]:
        wanted = list(dict.fromkeys(tasks))
        found = self._reads.nodes([paths.task(task) for task in wanted], watch=watch)
        return {task: node.data for task, node in zip(wanted, found, strict=True) if node is not None}

    def read_tasks_as(
        self, view: str, tasks: Iterable[TaskId], make: Callable[[TaskId, bytes], T | None]
    ) -> dict[TaskId, T]:
        wanted = {paths.task(task): task for task in tasks}
        return self._reads.made(f"tasks: {view}", Get, wanted, lambda task, node: make(task, node.data))

    # -- assignment

    def assigned(self, worker: str, *, watch: bool = False) -> dict[TaskId, Assignment]:
        def decode(raw: bytes, task: TaskId) -> Assignment:
            return znodes.decode_assignment(raw, task, worker)

        if not watch:
            return self._decoded(self._tasks_in([paths.assigned_folder(worker)])[0], decode, watch=False)

        def make(task: TaskId, node: Node) -> Assignment | None:
            return self._decode(node, decode, task, paths.assigned(worker, task))

        result: dict[TaskId, Assignment] = {}
        where: dict[str, TaskId] = {}
        for bucket, tasks in self._assignments.whole(worker).items():
            where |= {paths.join(bucket, task.znode): task for task in tasks}
            if len(where) >= PIECE:
                result |= self._reads.made("assignments", Get, where, make)
                where = {}
        return result | self._reads.made("assignments", Get, where, make)

    def all_assigned(self) -> dict[str, set[TaskId]]:
        return self._per_worker(paths.ASSIGN, watch=False)

    def owned(self, worker: str) -> dict[TaskId, Ownership]:
        names = self._tasks_in([paths.owned_folder(worker)])[0]
        return self._decoded(names, lambda raw, task: znodes.decode_ownership(raw, task, worker), watch=False)

    def all_owned(self, *, watch: bool = False) -> dict[str, set[TaskId]]:
        return self._per_worker(paths.OWNED, watch=watch)

    def own(self, items: Sequence[Ownership]) -> None:
        self._tree.change({paths.owned(item.worker, item.task): znodes.encode_ownership(item) for item in items})

    def disown(self, worker: str, tasks: Iterable[TaskId]) -> None:
        self._tree.delete([paths.owned(worker, task) for task in tasks])

    def move(self, assign: Sequence[Assignment], revoke: Sequence[tuple[str, TaskId]], leadership: Leadership) -> None:
        upserts = {paths.assigned(item.worker, item.task): znodes.encode_assignment(item) for item in assign}
        deletes = [path for path in (paths.assigned(*item) for item in revoke) if path not in upserts]
        self._assignments.move(upserts, deletes, leadership.znode)

    def clear_worker(self, worker: str, leadership: Leadership) -> None:
        folders = [paths.assigned_folder(worker), paths.owned_folder(worker)]

        def deletes() -> list[Write]:
            found = [path for folder in folders for path in self._tree.subtree(folder)]
            return [Delete(path) for path in sorted(found, key=paths.depth, reverse=True)]

        self._tree.settle(deletes, leadership.znode)
        self._assignments.forget(worker)

    # -- the second fence

    def claim(self, key: RunKey, note: ClaimNote) -> bool:
        path, raw, session_id = paths.claim(key), znodes.encode_claim(note), self._session.session_id
        try:
            if self._tree.create(path, raw):
                return True
        except UnavailableError:
            # The claim may be ours by now. With another session it must not be asked for again, only looked at.
            if not self._session.wait_connected(CLAIM_PATIENCE_S):
                raise
            found = self._reads.nodes([path])[0]
            if found is None and self._session.session_id != session_id:
                raise
            if found is None:
                return self._tree.create(path, raw) or self._is_ours(path, note)
            return self._same_nonce(found, note)
        return self._is_ours(path, note)

    def _is_ours(self, path: str, note: ClaimNote) -> bool:
        found = self._reads.nodes([path])[0]
        if found is None:
            raise UnavailableError(f"ZooKeeper: {path} was there and is gone; nobody can tell whose it was")
        return self._same_nonce(found, note)

    def _same_nonce(self, found: Node, note: ClaimNote) -> bool:
        try:
            return znodes.decode_claim(found.data).nonce == note.nonce
        except WireFormatError:
            # Whoever wrote this wanted to stop others. A claim that we cannot read is not ours.
            return False

    def update_claim(self, key: RunKey, note: ClaimNote) -> None:
        path, raw = paths.claim(key), znodes.encode_claim(note)
        for _ in range(3):
            found = self._reads.nodes([path])[0]
            if found is None:
                # The tree was wiped, or the claim was carried home too early: the fence must stand again.
                if self._tree.create(path, raw):
                    return
                continue
            if not self._same_nonce(found, note):
                raise FencedError(f"{path} belongs to another start of this fire")
            answer = self._reads.write([Put(path, raw, found.stat.version)])[0]
            if not isinstance(answer, Refused):
                return
        raise UnavailableError(f"ZooKeeper: {path} changes under our hands")

    def claims(self, worker: str | None = None, *, tasks: Iterable[TaskId] | None = None) -> dict[RunKey, ClaimNote]:
        where = self._keys_of(paths.CLAIMS, tasks, paths.claim_key, watch=False)
        notes = self._decoded(where, lambda raw, _key: znodes.decode_claim(raw), watch=False)
        return {key: note for key, note in notes.items() if worker in (None, note.worker)}

    def drop_claim(self, key: RunKey) -> None:
        self._tree.delete([paths.claim(key)])

    # -- runs on demand

    def enqueue(self, item: QueuedRun) -> None:
        self._tree.create(paths.queued(item.key), znodes.encode_queued(item))

    def queued(self, tasks: Iterable[TaskId] | None = None, *, watch: bool = False) -> list[QueuedRun]:
        where = self._keys_of(paths.QUEUE, tasks, RunKey.parse, watch=watch)
        items = self._decoded(where, lambda raw, _key: znodes.decode_queued(raw), watch=watch)
        return [items[key] for key in sorted(items, key=lambda key: (key.fire_ms, key)) if items[key].key == key]

    def consume(self, key: RunKey) -> None:
        self._tree.delete([paths.queued(key)])

    # -- election

    def campaign(self, note: LeaderNote) -> None:
        self._election.campaign(note)

    def leadership(self) -> Leadership | None:
        return self._election.leadership()

    def resign(self) -> None:
        self._election.resign()

    def rivals(self) -> list[LeaderNote]:
        return self._election.rivals()

    def leader(self) -> LeaderNote | None:
        return self._election.leader()

    # -- reading folders

    def _named(
        self, folder: str, decode: Callable[[bytes], T], id_of: Callable[[T], str], *, watch: bool
    ) -> dict[str, T]:
        names = sorted(self._reads.children([folder], watch=watch)[0] or ())
        items = self._decoded(
            {name: paths.join(folder, name) for name in names}, lambda raw, _name: decode(raw), watch=watch
        )
        for name in [name for name, item in items.items() if id_of(item) != name]:
            self._warn(paths.join(folder, name), "it names another id")
            del items[name]
        return items

    def _per_worker(self, folder: str, *, watch: bool) -> dict[str, set[TaskId]]:
        names = []
        for name in sorted(self._reads.children([folder], watch=watch)[0] or ()):
            if is_worker_id(name):
                names.append(name)
            else:
                self._warn(paths.join(folder, name), "not a worker id")
        folders = [paths.join(folder, name) for name in names]
        found = self._names_in(folders) if watch else list(map(set, self._tasks_in(folders)))
        return dict(zip(names, found, strict=True))

    def _tasks_in(self, folders: Sequence[str]) -> list[dict[TaskId, str]]:
        """Return, for each folder of buckets, the tasks in it with their paths."""
        buckets = self._buckets_in(folders, watch=False)
        contents = self._reads.children([paths.join(*bucket) for bucket in buckets])
        result: dict[str, dict[TaskId, str]] = {folder: {} for folder in folders}
        for (folder, bucket), names in zip(buckets, contents, strict=True):
            result[folder] |= self._parsed(paths.join(folder, bucket), names or (), TaskId.parse)
        return [result[folder] for folder in folders]

    def _names_in(self, folders: Sequence[str]) -> list[set[TaskId]]:
        """Return, for each folder of buckets, the tasks in it; watched, so that only what has changed is read."""
        where = {paths.join(*bucket): bucket for bucket in self._buckets_in(folders, watch=True)}
        found = self._reads.made("tasks", Children, {path: path for path in where}, self._tasks_of)
        result: dict[str, set[TaskId]] = {folder: set() for folder in folders}
        for path, tasks in found.items():
            result[where[path][0]].update(tasks)
        return [result[folder] for folder in folders]

    def _buckets_in(self, folders: Sequence[str], *, watch: bool) -> list[tuple[str, str]]:
        listed = self._reads.children(folders, watch=watch)
        return [(folder, name) for folder, names in zip(folders, listed, strict=True) for name in sorted(names or ())]

    def _tasks_of(self, folder: str, names: Iterable[str]) -> tuple[TaskId, ...]:
        return tuple(self._parsed(folder, names, TaskId.parse))

    def _keys_of(
        self, folder: str, tasks: Iterable[TaskId] | None, parse: Callable[[str], RunKey], *, watch: bool
    ) -> dict[RunKey, str]:
        """Return the paths of the runs' znodes below a folder of buckets: of these tasks, or of all (None)."""
        wanted = None if tasks is None else set(tasks)
        buckets = paths.BUCKETS if wanted is None else sorted({task.bucket for task in wanted})
        folders = [paths.join(folder, bucket) for bucket in buckets]
        result: dict[RunKey, str] = {}
        for path, names in zip(folders, self._reads.children(folders, watch=watch), strict=True):
            result |= self._parsed(path, names or (), parse)
        return result if wanted is None else {key: path for key, path in result.items() if key.task in wanted}

    def _parsed(self, folder: str, names: Iterable[str], parse: Callable[[str], K]) -> dict[K, str]:
        result = {}
        for name in names:
            try:
                result[parse(name)] = paths.join(folder, name)
            except ValueError as exc:
                self._warn(paths.join(folder, name), str(exc))
        return result

    def _decoded(self, where: Mapping[K, str], decode: Callable[[bytes, K], T], *, watch: bool) -> dict[K, T]:
        result: dict[K, T] = {}
        found = self._reads.nodes(list(where.values()), watch=watch)
        for (key, path), node in zip(where.items(), found, strict=True):
            if node is None:
                continue
            if (item := self._decode(node, decode, key, path)) is not None:
                result[key] = item
        return result

    def _decode(self, node: Node, decode: Callable[[bytes, K], T], key: K, path: str) -> T | None:
        try:
            return decode(node.data, key)
        except WireFormatError as exc:
            self._warn(path, str(exc), node.stat.mzxid)
            return None

    def _warn(self, path: str, problem: str, mzxid: int = 0) -> None:
        mark = f"{path}#{mzxid}"
        if mark not in self._warned and len(self._warned) < _WARNED_LIMIT:
            self._warned.add(mark)
            log.warning(
                "left out a znode that is not ours",
                extra={"event": "zookeeper.foreign", "path": path, "problem": problem},
            )
