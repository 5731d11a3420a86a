"""The signed bodies of the node's tasks, as ZooKeeper has them: verified once for each change, and then let go of.

Of 100,000 bodies of a kilobyte, what is looked at is a generation and the name of a key. So only that is kept, and a
body for as long as it may have to be installed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment
from cronkeeper.errors import SignatureError, WireFormatError
from cronkeeper.ports import Coordinator
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.wire.task import Task, Verifier, signer_of
from cronkeeper_worker.assignments import Have, Offer, Overtaken, offer_of, overtaken
from cronkeeper_worker.journal import TaskRow
from cronkeeper_worker.tasks import BadTaskError, Here, Installed, install

log = logging.getLogger(__name__)


class Body(NamedTuple):
    """A task's envelope, and what it says."""

    raw: bytes
    task: Task


class Offers:
    """For the agent's thread."""

    def __init__(
        self,
        worker: str,
        coordinator: Coordinator,
        verifier: Verifier,
        metrics: WorkerMetrics,
        envelope: Callable[[TaskId], bytes],
    ) -> None:
        self._worker = worker
        self._coordinator = coordinator
        self._verifier = verifier
        self._metrics = metrics
        #: Returns the envelope that was verified when the task was installed. KeyError.
        self._envelope = envelope
        self._refused: set[tuple[TaskId, bytes]] = set()
        #: Tasks of ours that are not taken, as a newer generation of theirs has run.
        self.overtaken: dict[TaskId, Overtaken] = {}
        #: Bodies that have just been read and are not what is installed.
        self._fresh: dict[TaskId, Body] = {}

    def read(self, assigned: Mapping[TaskId, Assignment], have: Mapping[TaskId, Have]) -> dict[TaskId, Offer]:
        """Return what the bodies of these tasks are, of those that are there and right; only changed ones are read."""

        def make(task: TaskId, raw: bytes) -> Offer | None:
            known = have.get(task)
            if known is not None and self._is_installed(task, raw):
                return offer_of(known.generation, known.key)
            body = self._verified(task, raw)
            if body is None:
                return None
            offer = offer_of(body.generation, signer_of(raw))
            same = known is not None and (known.generation, known.key) == (offer.generation, offer.key)
            if known is None or not same or assigned[task].epoch > known.fence:
                self._fresh[task] = Body(raw, body)
            return offer

        return self._coordinator.read_tasks_as("offers", assigned, make)

    @property
    def held(self) -> int:
        """How many bodies are held that may have to be installed."""
        return len(self._fresh)

    def bodies(self, wanted: Sequence[TaskId], offered: Mapping[TaskId, Offer]) -> dict[TaskId, Body]:
        """Return the bodies of offered tasks, to be installed: those that were just read, and the others read again.

        One that is not any more what was offered is left to the next look.
        """
        fresh, self._fresh = self._fresh, {}
        again = [task for task in wanted if task not in fresh]
        found = {task: fresh[task] for task in wanted if task in fresh}
        for task, raw in (self._coordinator.read_tasks(again) if again else {}).items():
            body = self._verified(task, raw)
            if body is not None and offer_of(body.generation, signer_of(raw)) == offered[task]:
                found[task] = Body(raw, body)
        return found

    def parsed(
        self, rows: Sequence[TaskRow], here: Here, bodies: Mapping[TaskId, Body]
    ) -> list[tuple[TaskRow, Installed]]:
        """Return rows of these bodies with what is to be installed of them; one bad task never stops the others."""
        items = []
        for row in rows:
            try:
                items.append((row, install(row, self._verifier, here, bodies[row.task].task)))
            except (BadTaskError, SignatureError, WireFormatError) as exc:
                self.refuse(row.task, row.envelope, "unreadable", str(exc))
        return items

    def refuse(self, task: TaskId, raw: bytes, reason: str, error: str) -> None:
        """Tell of a body that is not right, once."""
        if (task, raw) not in self._refused:
            self._refused.add((task, raw))
            self.tell_refused(task, reason, error)

    def tell_refused(self, task: TaskId, reason: str, error: str) -> None:
        self._metrics.refused.labels(reason).inc()
        log.error("a task is refused", extra={"event": "task.refused", "task": str(task), "error": error})

    def refuse_overtaken(self, generations: Mapping[TaskId, int], ran: Mapping[TaskId, int]) -> set[TaskId]:
        """Tell of those that are too old, once each, and return them. Nothing keeps a newer body out afterwards."""
        old = overtaken(generations, ran)
        for task, why in sorted(old.items()):
            if self.overtaken.get(task) != why:
                self.tell_refused(task, "generation", str(why))
        self.overtaken = {task: why for task, why in self.overtaken.items() if task not in generations} | old
        return set(old)

    def begin(self, assigned: Container[TaskId]) -> None:
        """Begin a look: nothing is held, and what is not assigned any more is not told of."""
        self._fresh = {}
        self.overtaken = {task: why for task, why in self.overtaken.items() if task in assigned}

    def _is_installed(self, task: TaskId, raw: bytes) -> bool:
        """Say whether these very bytes are what is installed: whoever made them say so gains nothing by it."""
        try:
            return self._envelope(task) == raw
        except KeyError:
            return False

    def _verified(self, task: TaskId, raw: bytes) -> Task | None:
        try:
            opened = self._verifier.open(raw, job_id=task.job_id)
        except (SignatureError, WireFormatError) as exc:
            self.refuse(task, raw, "signature" if isinstance(exc, SignatureError) else "format", str(exc))
            return None
        return opened if opened.spec.has_shard(task.shard, self._worker) else None
