"""The news for ZooKeeper, after MySQL has decided: best effort, within a short bound, many requests in one write.

A znode write costs a quorum's round trip, and the same writes in one multi-operation cost hardly more than one of
them. So one thread writes, and takes along whatever has gathered while it was writing. If it is not through within
the bound, the request goes on: the leader's full reconcile heals what is missing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cronkeeper.domain.ids import TaskId
from cronkeeper.errors import CronkeeperError
from cronkeeper.ports import Coordinator
from cronkeeper.wire.znodes import QueuedRun

log = logging.getLogger(__name__)

BOUND_S = 2.0


@dataclass(slots=True)
class _Item:
    put: Mapping[TaskId, bytes] = field(default_factory=dict)
    drop: tuple[TaskId, ...] = ()
    enqueue: tuple[QueuedRun, ...] = ()
    told: bool = False
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class News:
    """Tells ZooKeeper. Every method says whether it was told; False needs no action. Safe to call from any thread."""

    def __init__(self, coordinator: Coordinator, *, bound_s: float = BOUND_S) -> None:
        self._coordinator = coordinator
        self._bound_s = bound_s
        self._lock = threading.Lock()
        self._waiting: list[_Item] = []
        self._gathered = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopping = False

    def put(self, tasks: Mapping[TaskId, bytes]) -> bool:
        """Create or overwrite signed tasks."""
        return self._tell(_Item(put=tasks))

    def drop(self, tasks: Iterable[TaskId]) -> bool:
        """Remove tasks."""
        return self._tell(_Item(drop=tuple(tasks)))

    def enqueue(self, runs: Iterable[QueuedRun]) -> bool:
        """Queue runs on demand."""
        return self._tell(_Item(enqueue=tuple(runs)))

    def stop(self) -> None:
        """End the thread. Safe to repeat."""
        with self._lock:
            self._stopping = True
            self._gathered.notify()

    def _tell(self, item: _Item) -> bool:
        # `connected` is a hint; where it is wrong, the bound holds.
        if not self._coordinator.connected:
            return False
        with self._lock:
            if self._stopping:
                return False
            self._waiting.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="news", daemon=True)
                self._thread.start()
            self._gathered.notify()
        if item.done.wait(self._bound_s):
            return item.told
        # Written later it might overwrite the news of a newer generation that another server told meanwhile.
        item.abandoned = True
        log.warning("ZooKeeper was not told in time, the leader will tell it", extra={"event": "news.late"})
        return False

    def _write_all(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._stopping:
                    self._gathered.wait()
                if self._stopping:
                    return
                items, self._waiting = self._waiting, []
            for batch in _batches([item for item in items if not item.abandoned]):
                self._write(batch)

    def _write(self, batch: list[_Item]) -> None:
        told = False
        try:
            if put := {task: raw for item in batch for task, raw in item.put.items()}:
                self._coordinator.put_tasks(put)
            if drop := [task for item in batch for task in item.drop]:
                self._coordinator.drop_tasks(drop)
            for item in batch:
                for run in item.enqueue:
                    self._coordinator.enqueue(run)
            told = True
        except CronkeeperError as exc:
            log.warning(
                "ZooKeeper could not be told, the leader will tell it",
                extra={"event": "news.failed", "error": str(exc)},
            )
        except Exception:  # the thread serves all later requests and must outlive any one of them
            log.exception("ZooKeeper could not be told, the leader will tell it", extra={"event": "news.failed"})
        finally:
            for item in batch:
                item.told = told
                item.done.set()


def _batches(items: list[_Item]) -> list[list[_Item]]:
    """Group neighbours that want the same kind of write: the order between a put and a drop must stay."""
    batches: list[list[_Item]] = []
    for item in items:
        if batches and _kind(batches[-1][0]) == _kind(item):
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def _kind(item: _Item) -> tuple[bool, bool, bool]:
    return bool(item.put), bool(item.drop), bool(item.enqueue)
