"""Carrying out moves: the leader's copy in MySQL first, then ZooKeeper, each under its fence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assign, Assignment, Move, MoveReason, Revoke
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import LastFire, Span
from cronkeeper_manager.leading import Leading
from cronkeeper_manager.liveness import TICK_S, Absence
from cronkeeper_manager.observe import Observer, Snapshot

log = logging.getLogger(__name__)

#: Moves in one go. Every prefix of a plan is safe, so the size is a matter of speed only.
BATCH = 2000
#: More moves than this are told in one line.
_TOLD_ONE_BY_ONE = 50


def assignment(move: Assign, snapshot: Snapshot, absent: Mapping[str, Absence]) -> Assignment:
    """Return what to write for an `Assign`. PURE.

    Its epoch is the fencing number of the task's runs. It only grows, even if the copy was lost: it is at least now.
    `since_ms` is the instant up to which an earlier owner surely decided the task's fires.
    """
    row, before = snapshot.catalog.rows.get(move.task.job_id), snapshot.copies.get(move.task)
    effective_ms = 0 if row is None else row.effective_from_ms
    since_ms = effective_ms if before is None else max(effective_ms, before.since_ms)
    gone = None if before is None else absent.get(before.worker)
    if move.reason is MoveReason.WORKER_LOST and gone is not None and gone.alive_until_s is not None:
        since_ms = max(since_ms, snapshot.now_ms - round((snapshot.now_s - gone.alive_until_s) * 1000))
    return Assignment(
        task=move.task,
        worker=move.worker,
        generation=0 if row is None else row.generation,
        epoch=max(snapshot.now_ms, 0 if before is None else before.epoch + 1),
        reason=move.reason,
        assigned_ms=snapshot.now_ms,
        since_ms=since_ms,
    )


def revoked_copy(move: Revoke, snapshot: Snapshot, absent: Mapping[str, Absence], certain_s: float) -> Assignment:
    """Return what the copy says after a `Revoke`: nobody has it, and up to when its owner surely decided. PURE.

    Whoever has a session lived `certain_s` ago, but may have been stopped since: a fire that it never decided is not to
    be left out by an heir that cannot ask MySQL.
    """
    row, before = snapshot.catalog.rows.get(move.task.job_id), snapshot.copies.get(move.task)
    gone = absent.get(move.worker)
    alive_s = snapshot.now_s - certain_s if gone is None else gone.alive_until_s
    alive_ms = 0 if alive_s is None else snapshot.now_ms - round((snapshot.now_s - alive_s) * 1000)
    return Assignment(
        task=move.task,
        worker="",
        generation=0 if row is None else row.generation,
        epoch=0 if before is None else before.epoch,
        reason=move.reason,
        assigned_ms=snapshot.now_ms,
        since_ms=max(alive_ms, 0 if before is None else before.since_ms),
    )


class Mover:
    """Applies plans, and keeps the copy in MySQL in step with ZooKeeper."""

    def __init__(self, leading: Leading, observer: Observer) -> None:
        self._leading = leading
        self._observer = observer
        #: Written to ZooKeeper while MySQL was away.
        self._unsaved: dict[TaskId, Assignment] = {}

    def apply(
        self, moves: Sequence[Move], snapshot: Snapshot, absent: Mapping[str, Absence], *, budget_s: float
    ) -> int:
        """Carry out as many moves, from the first on, as fit into `budget_s`; return how many.

        Raises UnavailableError (look again, plan again) or FencedError (stop).
        """
        begun_s, done = self._leading.clock.boot_s(), 0
        while done < len(moves):
            batch = moves[done : done + BATCH]
            self._apply_batch(batch, snapshot, absent)
            done += len(batch)
            if self._leading.clock.boot_s() - begun_s > budget_s or self._leading.stopping():
                break
        if len(moves) > _TOLD_ONE_BY_ONE:
            log.info("tasks were moved", extra={"event": "tasks.moved", "moves": done, "planned": len(moves)})
        return done

    def _apply_batch(self, batch: Sequence[Move], snapshot: Snapshot, absent: Mapping[str, Absence]) -> None:
        given = self._with_last_claims(
            [assignment(move, snapshot, absent) for move in batch if isinstance(move, Assign)], snapshot
        )
        taken = [move for move in batch if isinstance(move, Revoke)]
        certain_s = self._certain_s()
        copies = [*given, *(revoked_copy(move, snapshot, absent, certain_s) for move in taken)]
        revoked = [(move.worker, move.task) for move in taken]
        self._save(copies)
        # If we die here, the copy names somebody who was not told: the next leader tells it (`restore`).
        self._observer.keep(copies)
        try:
            self._leading.coordinator.move(given, revoked, self._leading.leadership)
        except UnavailableError:
            # Some of it may be written: what we keep of the tree is not to be trusted any more.
            self._observer.forget_tree()
            raise
        self._observer.keep_moved(given, revoked)
        self._tell(batch)

    def _certain_s(self) -> float:
        """Return how long ago an owner that has a session surely lived.

        While MySQL is away nobody could tell an heir what was granted since: then it is taken to live.
        """
        return self._leading.liveness.session_s + TICK_S if self._leading.mysql.available else 0.0

    def _with_last_claims(self, given: Sequence[Assignment], snapshot: Snapshot) -> list[Assignment]:
        """Have heirs go on after what the last owners were granted, by MySQL or by ZooKeeper, as far as MySQL answers.

        A new owner that cannot ask MySQL would be granted by ZooKeeper what MySQL has granted before; and one that can
        ask it again, after it took the task, would be granted by MySQL what stands in ZooKeeper alone.
        """
        heirs = {item.task: Span(item.since_ms, item.assigned_ms) for item in given if item.task in snapshot.copies}
        leading, last = self._leading, dict[TaskId, LastFire]()
        if heirs and leading.mysql.available:
            with contextlib.suppress(UnavailableError):
                notes = leading.coordinator.claims(tasks=heirs)
                if notes:
                    leading.mysql.call(
                        lambda: leading.store.runs.record([note.as_run(key) for key, note in notes.items()])
                    )
                last = leading.mysql.call(lambda: leading.store.runs.last_fires(heirs))
        fires = {task: fire.fire_ms or 0 for task, fire in last.items()}
        return [replace(item, since_ms=max(item.since_ms, fires.get(item.task, 0))) for item in given]

    def _save(self, copies: Sequence[Assignment]) -> None:
        leading = self._leading
        if leading.without_mysql():
            self._unsaved.update({item.task: item for item in copies})
            return
        leading.mysql.call(lambda: leading.store.assignments.save(copies, term=leading.term))

    def save_unsaved(self) -> None:
        """Bring home what was moved while MySQL was away. Raises UnavailableError."""
        if self._unsaved and self._leading.mysql.available:
            copies = list(self._unsaved.values())
            self._leading.mysql.call(lambda: self._leading.store.assignments.save(copies, term=self._leading.term))
            self._unsaved.clear()
            log.info("the copy of the assignments was brought up to date", extra={"event": "copy.saved"})

    def heal_copies(self, snapshot: Snapshot) -> None:
        """Make the copy say what ZooKeeper says: a leader may have died between the two, or moved without MySQL."""
        wrong: list[Assignment] = []
        for worker, tasks in sorted(snapshot.assigned.items()):
            astray = {task for task in tasks if snapshot.last.get(task) != worker}
            if astray:
                there = self._leading.coordinator.assigned(worker)
                wrong += [there[task] for task in sorted(astray) if task in there]
        for start in range(0, len(wrong), BATCH):
            part = [self._never_back(item, snapshot) for item in wrong[start : start + BATCH]]
            self._save(part)
            self._observer.keep(part)
        if wrong:
            log.info("the copy of the assignments was healed", extra={"event": "copy.healed", "tasks": len(wrong)})

    def _never_back(self, item: Assignment, snapshot: Snapshot) -> Assignment:
        before = snapshot.copies.get(item.task)
        if before is None or before.epoch <= item.epoch:
            return item
        return Assignment(
            item.task, item.worker, item.generation, before.epoch, item.reason, item.assigned_ms, item.since_ms
        )

    def _tell(self, batch: Sequence[Move]) -> None:
        level = logging.INFO if len(batch) <= _TOLD_ONE_BY_ONE else logging.DEBUG
        for move in batch:
            kind = "assigned" if isinstance(move, Assign) else "revoked"
            self._leading.metrics.moves.labels(kind=kind, reason=move.reason.value).inc()
            log.log(
                level,
                "a task was assigned" if kind == "assigned" else "a task was revoked",
                extra={
                    "event": f"task.{kind}",
                    "task": str(move.task),
                    "worker": move.worker,
                    "reason": move.reason.value,
                },
            )
