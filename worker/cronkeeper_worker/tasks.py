"""Tasks as the engine holds them: verified, parsed, and with what is known of their runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobState, Misfire
from cronkeeper.domain.run import Reason
from cronkeeper.domain.sharing import common
from cronkeeper.errors import CronkeeperError
from cronkeeper.wire.task import Task, Verifier, signer_of
from cronkeeper_worker.gate import TaskView, next_look_ms
from cronkeeper_worker.journal import Entry, TaskRow
from cronkeeper_worker.work import Work, parted, work_of

log = logging.getLogger(__name__)

Runs: TypeAlias = dict[RunKey, Entry]


class BadTaskError(CronkeeperError):
    """The task is signed, but this node cannot read it (a schedule of a newer version, a shard too many)."""


@dataclass(frozen=True, slots=True)
class Here:
    """The node that tasks are installed on: its worker, and when it was started (epoch milliseconds, UTC)."""

    worker: str
    started_ms: int


@dataclass(slots=True)
class Installed:
    """One installed task. Owned by the engine's thread; nothing else touches it."""

    view: TaskView
    generation: int
    fence: int
    next_ms: int | None
    #: Most tasks have no runs most of the time, and then no dictionaries either: there are 100,000 of them.
    _active: Runs | None = None
    _waiting: Runs | None = None
    _queued: Runs | None = None
    #: Runs of the task that other nodes started and have not ended: they count for the concurrency policy.
    foreign: frozenset[RunKey] = frozenset()
    #: Why its runs cannot be started at present, if they cannot.
    obstacle: Reason | None = None
    #: The key that has signed it.
    key: str = ""
    #: What it runs, if that is kept apart from the view's spec; a text alone is a command line.
    own: Work | str | None = None

    @property
    def id(self) -> TaskId:
        return self.view.id

    @property
    def work(self) -> Work:
        """What it runs."""
        own = self.own
        if own is None:
            return work_of(self.view.spec)
        return Work(own) if isinstance(own, str) else own

    @property
    def active(self) -> Runs:
        if self._active is None:
            self._active = {}
        return self._active

    @property
    def waiting(self) -> Runs:
        if self._waiting is None:
            self._waiting = {}
        return self._waiting

    @property
    def queued(self) -> Runs:
        """Decided runs that stand in line to be claimed and started: as good as active for the concurrency policy."""
        if self._queued is None:
            self._queued = {}
        return self._queued

    @property
    def waits(self) -> bool:
        """Whether any of its runs is waiting."""
        return bool(self._waiting)

    def busy(self) -> list[RunKey]:
        """Return the runs that live now, or are about to."""
        return [*(self._active or ()), *(self._queued or ()), *self.foreign]

    def holds(self, key: RunKey) -> bool:
        """Say whether this run of the task lives here, or is to."""
        return any(key in runs for runs in (self._active, self._waiting, self._queued) if runs)

    def go_on_for(self, before: Installed) -> None:
        """Take over the runs of the one that this one replaces."""
        self._active, self._waiting, self._queued = before._active, before._waiting, before._queued
        self.foreign = before.foreign

    def tidy(self) -> None:
        """Let go of what is empty."""
        self._active, self._waiting, self._queued = self._active or None, self._waiting or None, self._queued or None


def install(row: TaskRow, verifier: Verifier, here: Here, opened: Task | None = None) -> Installed:
    """Verify and parse a journal row, for this node; or take it as it was `opened` before.

    Raises SignatureError or WireFormatError (never run it) or BadTaskError (signed, but not understood here).
    """
    task = opened or verifier.open(row.envelope, job_id=row.task.job_id)
    if not task.spec.has_shard(row.task.shard, here.worker):
        raise BadTaskError(f"task {row.task}: the job has no such shard for {here.worker}")
    try:
        schedule = task.spec.parsed_schedule().on_node(here.started_ms)
    except ValueError as exc:
        raise BadTaskError(f"task {row.task}: {exc}") from exc
    spec, own = parted(task.spec)
    view = TaskView(row.task, spec, schedule, task.state, max(row.cursor_ms, task.effective_from_ms))
    next_ms = next_look_ms(view, view.cursor_ms) if task.state is JobState.ACTIVE else None
    return Installed(view, row.generation, row.fence, next_ms, key=common(signer_of(row.envelope)), own=own)


def install_sound(rows: Iterable[TaskRow], verifier: Verifier, here: Here) -> list[Installed]:
    """Install what the journal holds; a bad task is told, and never stops the others."""
    items = []
    for row in rows:
        try:
            items.append(install(row, verifier, here))
        except CronkeeperError as exc:
            facts = {"event": "task.refused", "task": str(row.task), "error": str(exc)}
            log.error("a task is refused", extra=facts)
    return items


def never_before(items: Iterable[Installed], claimed: Mapping[TaskId, int]) -> dict[TaskId, int]:
    """Have tasks go on after what this node was granted of them before: the ledger may not have heard of it yet.

    Returns where those that this puts forward would have gone on.
    """
    before = {}
    for item in items:
        cursor_ms = claimed.get(item.id, 0)
        if cursor_ms > item.view.cursor_ms:
            before[item.id] = item.view.cursor_ms
            item.view = replace(item.view, cursor_ms=cursor_ms)
            item.next_ms = next_look_ms(item.view, cursor_ms) if item.next_ms is not None else None
    return before


def left_out(item: Installed, before_ms: int, refused: Iterable[RunKey], now_ms: int) -> list[RunKey]:
    """Return what `never_before` leaves out of a task though it is still wanted. PURE.

    These are fires that this node was refused while another worker had the task, which may have been lost before it
    began them. They are to be decided again; a row of theirs refuses them.
    """
    spec = item.view.spec
    if spec.misfire is not Misfire.ALL:
        # Of several, the other policies want no more than the newest, and that was granted.
        return []
    span = range(max(before_ms + 1, now_ms - spec.grace_s * 1000), item.view.cursor_ms)
    return [key for key in refused if key.fire_ms in span]
