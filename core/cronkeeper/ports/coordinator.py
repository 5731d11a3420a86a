"""ZooKeeper, as we use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import Assignment, NodeInfo, Ownership, WorkerInfo
from cronkeeper.wire.trail import Anchor
from cronkeeper.wire.znodes import ClaimNote, LeaderNote, QueuedRun

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leadership:
    """Proof of leadership in ZooKeeper: the election znode that every leader write checks in its own transaction."""

    znode: str
    epoch: int


class Coordinator(Protocol):
    """ZooKeeper, as we use it. Paths: DESIGN section 5. One session for each process; never used across a fork.

    Watches carry nothing: with `watch=True` a read also arranges that `on_change`'s callback is called after the next
    change of what was read. The callback is called from the library's thread and must only set an event.
    """

    def start(self, timeout_s: float) -> None:
        """Connect. Raises UnavailableError after `timeout_s`, but goes on trying in the background."""
        ...

    def stop(self) -> None:
        """Close the session (its ephemeral znodes go at once). Bounded; safe to repeat."""
        ...

    @property
    def connected(self) -> bool:
        """A hint, not a lease: see `silence_s`."""
        ...

    @property
    def session_id(self) -> int:
        """The session's id, 0 before the first connection. Another id means that all ephemerals are gone."""
        ...

    def silence_s(self) -> float:
        """Return seconds (boot-time clock) since the *sending* of the last probe that was acknowledged."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None: ...

    def ensure_layout(self) -> None:
        """Create the top-level and bucket znodes that are missing. Safe to repeat."""
        ...

    # -- readiness: absence means nothing until a leader has said that the tree is complete

    def is_ready(self, *, watch: bool = False) -> bool:
        """Say whether a leader has completed the tree (false after the tree was wiped)."""
        ...

    def mark_ready(self, leadership: Leadership) -> None: ...

    # -- the audit trail, as told outside of the database

    def trail_anchor(self) -> Anchor | None:
        """Return what a leader said last of the trail. Raises WireFormatError when that cannot be read."""
        ...

    def anchor_trail(self, anchor: Anchor, leadership: Leadership) -> None:
        """Write it down. Safe to repeat."""
        ...

    # -- workers and nodes

    def announce(self, info: WorkerInfo) -> None:
        """Create this session's ephemeral worker znode; replace a stale one of an earlier start on the same host.

        Raises ConflictError when a live namesake on another host holds the name. Safe to repeat.
        """
        ...

    def workers(self, *, watch: bool = False) -> dict[str, WorkerInfo]: ...

    def nodes(self, *, watch: bool = False) -> dict[str, NodeInfo]: ...

    def save_node(self, node: NodeInfo) -> None: ...

    def drop_node(self, worker: str) -> None: ...

    # -- tasks

    def put_tasks(self, tasks: Mapping[TaskId, bytes]) -> None:
        """Create or overwrite signed tasks, in multi-operations. Safe to repeat."""
        ...

    def drop_tasks(self, tasks: Iterable[TaskId]) -> None: ...

    def task_names(self, *, watch: bool = False) -> set[TaskId]: ...

    def read_tasks(self, tasks: Iterable[TaskId], *, watch: bool = False) -> dict[TaskId, bytes]:
        """Return the signed tasks that exist, of those asked for (pipelined)."""
        ...

    def read_tasks_as(
        self, view: str, tasks: Iterable[TaskId], make: Callable[[TaskId, bytes], T | None]
    ) -> dict[TaskId, T]:
        """Return what `make` makes of each signed task, watched; what it makes None of is left out.

        It is asked once for each change of a task, and what it makes is kept instead of the task: `view` says which
        `make` it is.
        """
        ...

    # -- assignment

    def assigned(self, worker: str, *, watch: bool = False) -> dict[TaskId, Assignment]:
        """Return what one worker is given."""
        ...

    def all_assigned(self) -> dict[str, set[TaskId]]:
        """Return who is given what, names only, for every worker that has an assignment folder."""
        ...

    def owned(self, worker: str) -> dict[TaskId, Ownership]: ...

    def all_owned(self, *, watch: bool = False) -> dict[str, set[TaskId]]: ...

    def own(self, items: Sequence[Ownership]) -> None: ...

    def disown(self, worker: str, tasks: Iterable[TaskId]) -> None: ...

    def move(self, assign: Sequence[Assignment], revoke: Sequence[tuple[str, TaskId]], leadership: Leadership) -> None:
        """Write assignments and remove others, in batches that each check the leadership. Safe to repeat."""
        ...

    def clear_worker(self, worker: str, leadership: Leadership) -> None:
        """Remove a lost worker's /assign and /owned subtrees. Safe to repeat."""
        ...

    # -- the second fence

    def claim(self, key: RunKey, note: ClaimNote) -> bool:
        """Create the claim; True when it is ours (by nonce, read back when the answer was lost), False when another's.

        Never repeated across a session's end. Raises UnavailableError when nobody can tell.
        """
        ...

    def update_claim(self, key: RunKey, note: ClaimNote) -> None: ...

    def claims(self, worker: str | None = None, *, tasks: Iterable[TaskId] | None = None) -> dict[RunKey, ClaimNote]:
        """Return the claims (of this worker, of these tasks) that nobody has carried home to MySQL and removed."""
        ...

    def drop_claim(self, key: RunKey) -> None: ...

    # -- runs on demand

    def enqueue(self, item: QueuedRun) -> None: ...

    def queued(self, tasks: Iterable[TaskId] | None = None, *, watch: bool = False) -> list[QueuedRun]:
        """Return the queued runs (of these tasks)."""
        ...

    def consume(self, key: RunKey) -> None:
        """Remove a queued run that has ended. Safe to repeat."""
        ...

    # -- election

    def campaign(self, note: LeaderNote) -> None:
        """Stand for leadership with this session (idempotent). A changed note is written, the place stays."""
        ...

    def leadership(self) -> Leadership | None:
        """Return the proof when this session leads, else None. Watches the candidate ahead."""
        ...

    def resign(self) -> None: ...

    def rivals(self) -> list[LeaderNote]:
        """Return what the other candidates say of themselves, in their order. Unreadable ones are left out."""
        ...

    def leader(self) -> LeaderNote | None:
        """Return who leads, as told by the election znode."""
        ...
