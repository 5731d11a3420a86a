"""Bringing the tree to a wanted state: look what is there, plan (pure), write in multi-operations; again if it moved.

Every write here may be repeated: an answer that was lost is found out by looking again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cronkeeper.coord import paths
from cronkeeper.coord.reads import Reads
from cronkeeper.coord.requests import Create, Delete, Fault, Refused, Session, Write, batches, plan_writes
from cronkeeper.errors import FencedError, UnavailableError

#: How often a tree that moves under our hands is looked at again.
ROUNDS = 5
#: Up to so many znodes are looked for by name; for more, their folders are listed.
FEW = 8


class Tree:
    """Writes over one session. A `guard` is the path of the leader's candidate: FencedError once it is gone."""

    def __init__(self, session: Session, reads: Reads) -> None:
        self._session = session
        self._reads = reads

    def change(self, upserts: Mapping[str, bytes], deletes: Collection[str] = (), *, guard: str | None = None) -> None:
        """Create or overwrite these, with the folders above them, and delete those. Safe to repeat."""
        wanted = [*upserts, *deletes]
        self.settle(lambda: plan_writes(upserts, deletes, self._existing(wanted)), guard)

    def settle(self, plan: Callable[[], Sequence[Write]], guard: str | None = None) -> None:
        """Carry out what `plan` says, and ask it again if something else changed the tree meanwhile."""
        for _ in range(ROUNDS):
            todo = batches(plan(), guard)
            refusals = [answer for answer in self._reads.write(todo) if isinstance(answer, Refused)]
            if guard is not None and any(refused.index == 0 for refused in refusals):
                raise FencedError(f"{guard} is gone: somebody else leads")
            if not refusals:
                return
        raise UnavailableError("ZooKeeper: the tree changes too fast under our hands")

    def create(self, path: str, data: bytes, *, ephemeral: bool = False) -> bool:
        """Create one znode, with the folders above if they are missing; False when it exists already."""
        for _ in range(ROUNDS):
            answer = self._reads.write([Create(path, data, ephemeral=ephemeral)])[0]
            if not isinstance(answer, Refused):
                return True
            if answer.fault is Fault.NODE_EXISTS:
                return False
            self._session.ensure_root()
            self._run_all([Create(folder) for folder in paths.ancestors(path)], Fault.NODE_EXISTS)
        raise UnavailableError(f"ZooKeeper: cannot create {path}: its folder does not stay")

    def create_fast(self, items: Mapping[str, bytes]) -> dict[str, bytes]:
        """Create all without a look at what is there; return those that are left: one of a batch exists, or a folder
        is missing, and nothing of that batch was done. If the first batch is one, the others are not tried."""
        folders = {folder for path in items for folder in paths.ancestors(path)}
        todo = batches(plan_writes(items, (), folders), None)
        refused = [isinstance(answer, Refused) for answer in self._reads.write(todo[:1])]
        if not any(refused) and len(todo) > 1:
            refused += [isinstance(answer, Refused) for answer in self._reads.write(todo[1:])]
        done = {op.path for multi, no in zip(todo, refused, strict=False) if not no for op in multi.ops}
        return {path: raw for path, raw in items.items() if path not in done}

    def delete(self, targets: Iterable[str]) -> None:
        """Delete those that are there. Safe to repeat."""
        deletes = list(targets)
        if len(deletes) > FEW:
            self.change({}, deletes)
        else:
            self._run_all([Delete(path) for path in deletes], Fault.NO_NODE)

    def subtree(self, folder: str) -> list[str]:
        """Return the paths of everything in `folder` (two levels deep) and its own, if it is there."""
        found: list[str] = []
        level = [folder]
        for _ in range(3):
            next_level: list[str] = []
            for path, names in zip(level, self._reads.children(level), strict=True):
                if names is not None:
                    found.append(path)
                    next_level += [paths.join(path, name) for name in names]
            level = next_level
        return found

    def ensure_layout(self) -> None:
        """Create the folders and buckets that are missing."""
        names = self._reads.children([paths.ROOT])[0]
        if names is None:
            self._session.ensure_root()
        self.settle(self._missing_layout)

    def _missing_layout(self) -> list[Write]:
        top, *bucketed = self._reads.children([paths.ROOT, *paths.BUCKETED])
        there = {"/" + name for name in top or ()}
        for folder, names in zip(paths.BUCKETED, bucketed, strict=True):
            there.update(paths.join(folder, name) for name in names or ())
        wanted = [*paths.TOP_LEVEL, *(paths.join(folder, b) for folder in paths.BUCKETED for b in paths.BUCKETS)]
        return [Create(path) for path in wanted if path not in there]

    def _existing(self, wanted: Sequence[str]) -> set[str]:
        """Return which of these exist, and which of the folders above them do."""
        if len(wanted) > FEW:
            there: set[str] = set()
            folders = sorted({paths.parent(path) for path in wanted})
            for folder, names in zip(folders, self._reads.children(folders), strict=True):
                if names is not None:
                    there.add(folder)
                    there.update(paths.join(folder, name) for name in names)
        else:
            there = self._which_exist(wanted)
        # Above what exists, everything exists.
        there |= {above for path in there for above in paths.ancestors(path)}
        unknown = sorted({above for path in wanted for above in paths.ancestors(path)} - there)
        there |= self._which_exist(unknown)
        if any(paths.depth(path) == 1 and path not in there for path in unknown):
            self._session.ensure_root()
        return there

    def _which_exist(self, candidates: Sequence[str]) -> set[str]:
        stats = self._reads.stats(candidates)
        return {path for path, stat in zip(candidates, stats, strict=True) if stat is not None}

    def _run_all(self, requests: Sequence[Create | Delete], harmless: Fault) -> None:
        for request, answer in zip(requests, self._reads.write(requests), strict=True):
            if isinstance(answer, Refused) and answer.fault is not harmless:
                raise UnavailableError(f"ZooKeeper: {request.path}: {answer.fault}")
