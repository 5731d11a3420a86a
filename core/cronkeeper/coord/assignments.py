"""The assignment folders, which tell a worker whether what it reads is the whole truth.

A worker drops what it is no longer assigned. So a revocation must never be mistaken for the work of somebody who wipes
the tree znode by znode: each bucket says how many tasks the leader left in it, and each worker's folder how many
buckets, written in the same multi-operation. Who finds fewer has found a ruin, and believes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from cronkeeper.coord import paths
from cronkeeper.coord.reads import Reads
from cronkeeper.coord.requests import Children, Create, Delete, Node, Put, Write
from cronkeeper.coord.tree import Tree
from cronkeeper.domain.ids import TaskId
from cronkeeper.errors import UnavailableError, WireFormatError
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire import codec

log = logging.getLogger(__name__)

#: A folder that was there and is gone is believed to be gone (the leader clears lost workers) after this long.
VANISHED_S = 10.0
_TRIES = 3
_VERSION = 1

Names = tuple[str, ...] | None


class Assignments:
    """Writing and reading `/assign/<worker>/<bucket>/<task>`."""

    def __init__(
        self, reads: Reads, tree: Tree, clock: Clock, tasks_of: Callable[[str, Iterable[str]], tuple[TaskId, ...]]
    ) -> None:
        self._reads = reads
        self._tree = tree
        self._clock = clock
        #: Returns the tasks that are named in a bucket, and tells of what is none.
        self._tasks_of = tasks_of
        self._seen: set[str] = set()
        self._gone_s: dict[str, float] = {}

    def move(self, upserts: Mapping[str, bytes], deletes: Sequence[str], guard: str) -> None:
        """Write these assignments and remove those, under the leader's guard. Safe to repeat."""
        buckets = sorted({paths.parent(path) for path in (*upserts, *deletes)})
        folders = sorted({paths.parent(bucket) for bucket in buckets})

        def plan() -> list[Write]:
            *listed, top = self._reads.children([*folders, *buckets, paths.ASSIGN])
            if top is None and upserts:
                self._tree.ensure_layout()
            return plan_moves(upserts, deletes, dict(zip([*folders, *buckets], listed, strict=True)))

        self._tree.settle(plan, guard)

    def forget(self, worker: str) -> None:
        """Believe at once that the worker's folder is gone: we have removed it."""
        self._seen.discard(worker)
        self._gone_s.pop(worker, None)

    def whole(self, worker: str) -> dict[str, tuple[TaskId, ...]]:
        """Return the tasks in each bucket, watched. UnavailableError when some are missing that nobody revoked."""
        folder = paths.assigned_folder(worker)
        for _ in range(_TRIES):
            names = self._reads.children([folder], watch=True)[0]
            if names is None:
                self._check_vanished(worker)
                return {}
            buckets = [paths.join(folder, name) for name in sorted(names)]
            # The counts first: a task that is revoked between the two readings makes us look again, no worse.
            nodes = self._reads.nodes([folder, *buckets], watch=True)
            contents = self._reads.made("tasks", Children, {bucket: bucket for bucket in buckets}, self._tasks_of)
            found = [len(buckets), *(len(contents.get(bucket, ())) for bucket in buckets)]
            if all(have >= _expected(node) for have, node in zip(found, nodes, strict=True)):
                self._seen.add(worker)
                self._gone_s.pop(worker, None)
                return contents
            self._reads.forget([folder, *buckets])
        log.warning(
            "the assignments are not whole", extra={"event": "assignments.torn", "worker": worker, "path": folder}
        )
        raise UnavailableError(f"ZooKeeper: {folder} is being written, or was torn: not all that it promises is there")

    def _check_vanished(self, worker: str) -> None:
        if worker not in self._seen:
            return
        now_s = self._clock.boot_s()
        if now_s - self._gone_s.setdefault(worker, now_s) <= VANISHED_S or not self._reads.stats([paths.READY])[0]:
            raise UnavailableError(
                f"ZooKeeper: the assignments of {worker} have vanished; waiting whether it is a wipe"
            )
        self.forget(worker)


def plan_moves(upserts: Mapping[str, bytes], deletes: Sequence[str], listed: Mapping[str, Names]) -> list[Write]:
    """Return the writes, bucket after bucket, with the counts that they leave behind.

    `listed` has the names in every folder and bucket concerned, None for one that is not there. Cut anywhere, the plan
    leaves no count higher than what is there.
    """
    groups: dict[str, tuple[dict[str, bytes], list[str]]] = {}
    for path, data in upserts.items():
        groups.setdefault(paths.parent(path), ({}, []))[0][path] = data
    for path in deletes:
        groups.setdefault(paths.parent(path), ({}, []))[1].append(path)
    writes: list[Write] = []
    made: dict[str, int] = {}
    for bucket in sorted(groups):
        names, folder = listed[bucket], paths.parent(bucket)
        wanted, unwanted = groups[bucket]
        if names is None and not wanted:
            continue
        if names is None:
            if listed[folder] is None and folder not in made:
                writes.append(Create(folder, _count(0)))
            made[folder] = made.get(folder, 0) + 1
            writes.append(Create(bucket, _count(0)))
        writes += _plan_bucket(bucket, set(names or ()), wanted, unwanted)
    for folder, number in made.items():
        writes.append(Put(folder, _count(len(listed[folder] or ()) + number)))
    return writes


def _plan_bucket(bucket: str, names: set[str], wanted: Mapping[str, bytes], deletes: Sequence[str]) -> list[Write]:
    there = {paths.join(bucket, name) for name in names}
    new = [path for path in wanted if path not in there]
    gone = [path for path in dict.fromkeys(deletes) if path in there and path not in wanted]
    writes: list[Write] = [Put(path, data) if path in there else Create(path, data) for path, data in wanted.items()]
    left = _tasks([paths.name(path) for path in (there | set(new)) - set(gone)])
    if new or gone:
        writes.append(Put(bucket, _count(len(left))))
    return [*writes, *(Delete(path) for path in gone)]


def _tasks(names: Sequence[str]) -> list[TaskId]:
    found = []
    for name in names:
        try:
            found.append(TaskId.parse(name))
        except ValueError:
            continue
    return found


def _count(number: int) -> bytes:
    return codec.dumps({"v": _VERSION, "count": number})


def _expected(node: Node | None) -> int:
    """Return how many names there must be at least; 0 where nobody has said."""
    if node is None or not node.data:
        return 0
    try:
        number = codec.loads(node.data, version=_VERSION, what="count").get("count")
    except WireFormatError:
        return 0
    return number if isinstance(number, int) else 0
