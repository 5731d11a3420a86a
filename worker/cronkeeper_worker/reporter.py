"""The reporter: carries what the journal holds home to MySQL, in batches, until MySQL has heard all of it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import TERMINAL, Run, RunState, Trigger
from cronkeeper.errors import CronkeeperError, UnavailableError
from cronkeeper.ports import Coordinator, Event, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper_worker import descriptors
from cronkeeper_worker.fences import Fence
from cronkeeper_worker.journal import Entry, Journal, Phase
from cronkeeper_worker.sound_journal import is_damage

log = logging.getLogger(__name__)

BATCH = 500
CHUNK = 65_536
#: What a run says is shown while it runs, once it has run for so long.
LIVE_MS = 500
#: Reported runs stay in the journal for so long, for `cronkeeper-fire` and for people.
KEEP_MS = 3_600_000
#: After a journal that could not be written, or a file that could not be opened, a loop rests for so long.
JOURNAL_REST_S = 2.0


class Reporter:
    """`step` is the body of a loop: it reports one batch, uploads output, and says when to come again."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        coordinator: Coordinator | None,
        clock: Clock,
        metrics: WorkerMetrics,
        *,
        output_file: Callable[[RunKey], Path],
        acknowledge: Callable[[list[str]], None],
        given_up: Callable[[Iterable[TaskId]], None],
    ) -> None:
        self._journal = journal
        self._store = store
        self._coordinator = coordinator
        self._clock = clock
        self._metrics = metrics
        self._output_file = output_file
        self._acknowledge = acknowledge
        #: Told of the tasks with runs that were given up here: whoever has such a task may run them again.
        self._given_up = given_up
        self._uploaded: dict[RunKey, int] = {}
        self._pruned_ms = 0

    def step(self) -> float:
        """Report what there is. Raises UnavailableError while MySQL is away."""
        self._tell_events()
        self._give_up()
        dirty = self._journal.dirty(BATCH)
        self._metrics.spool.set(len(dirty) if len(dirty) < BATCH else self._journal.dirty_count())
        over = [entry for entry in dirty if entry.phase is Phase.OVER]
        for entry in over:
            # Short output travels in the run's own row, unless it is no text.
            if len(entry.run.output_tail.encode()) != entry.run.output_bytes:
                self._upload(entry.run.key, whole=True)
        if dirty:
            self._record([entry.run for entry in dirty])
            self._finish(over)
        self._upload_running()
        self._prune()
        return 0.02 if len(dirty) == BATCH else (0.25 if dirty else 0.5)

    def _tell_events(self) -> None:
        events = self._journal.untold(BATCH)
        if events:
            # The same event again is no second one: an answer that was lost does no harm.
            self._store.events.add(list(events.values()))
            self._journal.mark_told(events)

    def _give_up(self) -> None:
        now_ms = self._clock.now_ms()
        doubts = self._journal.doubts(now_ms, BATCH)
        if not doubts:
            return
        lost = self._store.runs.give_up(doubts)
        for key in lost:
            log.warning("a claim is given up: its answer was lost", extra={"event": "claim.given_up", "run": str(key)})
        self._given_up({key.task for key in lost})
        self._journal.mark_given_up(doubts, now_ms)

    def _record(self, runs: Sequence[Run]) -> None:
        conflicts = set(self._store.runs.record(runs))
        # A skipped fire that another worker ran is no double; a started one is, and is told.
        doubles = [run for run in runs if run.key in conflicts and run.state is not RunState.SKIPPED]
        if doubles:
            now_ms = self._clock.now_ms()
            events = [
                Event(now_ms, "run.double", run.id, f"also started by {run.worker}: {run.state}") for run in doubles
            ]
            self._store.events.add(events)
            for run in doubles:
                log.error("a fire was started twice", extra={"event": "run.double", "run": run.id})
        self._journal.mark_reported(runs)

    def _finish(self, over: Iterable[Entry]) -> None:
        done = []
        for entry in over:
            self._uploaded.pop(entry.run.key, None)
            done.append(entry.run.id)
            if self._coordinator is not None:
                self._clean_znodes(entry)
        try:
            self._acknowledge(done)
        except UnavailableError:
            # The runner tells these ends again, the journal knows them, and they are acknowledged then.
            log.info("ends stay unacknowledged for now", extra={"event": "runner.away", "runs": len(done)})

    def _clean_znodes(self, entry: Entry) -> None:
        assert self._coordinator is not None
        key = entry.run.key
        try:
            if entry.claim_fence == Fence.ZOOKEEPER:
                self._coordinator.drop_claim(key)
            if entry.run.trigger is Trigger.MANUAL and entry.run.state in TERMINAL:
                self._coordinator.consume(key)
        except UnavailableError:
            # The leader consumes what is left over, and a claim that stays refuses only a fire that has its row.
            log.info("znodes of an ended run stay for now", extra={"event": "run.znodes_left", "run": entry.run.id})

    def _upload_running(self) -> None:
        # Most runs are over before anybody could look at what they say: their ends tell it.
        for key in self._journal.started_before(self._clock.now_ms() - LIVE_MS):
            self._upload(key, whole=False)

    def _upload(self, key: RunKey, *, whole: bool) -> None:
        """Send what the output file has grown by. A file that is gone was sent by an earlier try, or never was.

        One that cannot be read keeps neither this run's state nor those of others from being reported; but where no
        file at all can be opened, all of it waits (OSError): it is sent now or never.
        """
        offset = self._uploaded.get(key, 0)
        try:
            with self._output_file(key).open("rb") as file:
                file.seek(offset)
                while data := file.read(CHUNK):
                    self._store.runs.append_output(key, offset=offset, data=data)
                    offset += len(data)
                    self._uploaded[key] = offset
                    if not whole:
                        break
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno in descriptors.NONE_LEFT:
                raise
            log.error(
                "a run's output cannot be read",
                extra={"event": "output.unreadable", "run": str(key), "error": str(exc)},
            )

    def _prune(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._pruned_ms > 60_000:
            self._pruned_ms = now_ms
            self._journal.prune(now_ms - KEEP_MS)


def poison_proof(step: Callable[[], float]) -> Callable[[], float]:
    """Wrap a step so that an error which is not retryable is told, and the loop goes on slowly instead of dying.

    A journal that cannot be written may be so for a while, as its disk is full; and so may files, for want of
    descriptors. A damaged journal takes the daemon with it.
    """

    def guarded() -> float:
        try:
            return step()
        except CronkeeperError as exc:
            if exc.retryable:
                raise
            log.exception("a step failed for a reason that does not pass by itself", extra={"event": "loop.fault"})
            return 5.0
        except sqlite3.Error as exc:
            if is_damage(exc):
                raise
            log.error("the journal cannot be written", extra={"event": "journal.fault", "error": str(exc)})
            return JOURNAL_REST_S
        except OSError as exc:
            if exc.errno not in descriptors.NONE_LEFT:
                raise
            log.error("no file can be opened", extra={"event": "files.exhausted", "error": str(exc)})
            return JOURNAL_REST_S

    return guarded
