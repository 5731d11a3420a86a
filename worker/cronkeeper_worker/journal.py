"""The node's own record: its tasks, every decision before it is acted on, and what MySQL has not heard yet.

SQLite with write-ahead log and full syncs. The daemon owns it while it lives; `cronkeeper-fire` uses it when the daemon
is away (a lock on the state directory keeps them apart). A decision is durable before anything is started for it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.ports import Event
from cronkeeper_worker.journal_rows import COLUMNS, from_row, to_row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY, generation INTEGER NOT NULL, fence INTEGER NOT NULL, envelope BLOB NOT NULL,
    cursor_ms INTEGER NOT NULL, next_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, task TEXT NOT NULL, phase TEXT NOT NULL, not_before_ms INTEGER NOT NULL DEFAULT 0,
    dirty INTEGER NOT NULL, claim_fence TEXT NOT NULL DEFAULT '',
    trigger TEXT NOT NULL, state TEXT NOT NULL, worker TEXT NOT NULL, nonce TEXT NOT NULL, generation INTEGER NOT NULL,
    fence INTEGER NOT NULL, reason TEXT, claimed_ms INTEGER, started_ms INTEGER, ended_ms INTEGER, exit_code INTEGER,
    signal INTEGER, autonomous INTEGER NOT NULL, output_tail TEXT NOT NULL, output_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL, dirty INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE IF NOT EXISTS doubts (
    run_id TEXT NOT NULL, nonce TEXT NOT NULL, trigger TEXT NOT NULL, reason TEXT NOT NULL, noted_ms INTEGER NOT NULL,
    told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run_id, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_dirty ON runs (dirty) WHERE dirty = 1;
CREATE INDEX IF NOT EXISTS runs_open ON runs (phase) WHERE phase != 'over';
"""
# Column names and placeholders only; every value travels as a parameter.
_INTO = f"INTO runs (phase, not_before_ms, dirty, claim_fence, {COLUMNS}) VALUES ({', '.join('?' * 21)})"
_REPLACE = f"INSERT OR REPLACE {_INTO}"
_CHANGES = ", ".join(
    f"{name} = excluded.{name}"
    for name in f"phase, not_before_ms, dirty, claim_fence, {COLUMNS}".split(", ")
    if name != "run_id"
)
_OVER_WHERE = f"INSERT {_INTO} ON CONFLICT (run_id) DO UPDATE SET {_CHANGES} WHERE"
#: Whatever is given up is nobody else's run of the same fire, which we may have decided before, or since.
_SAME = f"{_OVER_WHERE} nonce = excluded.nonce"
_DECIDE = (
    f"{_OVER_WHERE} phase = 'over' AND dirty = 0 AND (state = '{RunState.PENDING}'"
    f" OR (state = '{RunState.SKIPPED}' AND reason = '{Reason.FENCE_REFUSED}'))"
)
_SELECT = f"SELECT phase, not_before_ms, claim_fence, {COLUMNS} FROM runs "  # noqa: S608

#: A claim that MySQL was asked for and never answered may take effect for so long still: it may be on its way.
SETTLED_MS = 60_000
_PIECE = 500


class Phase(StrEnum):
    """How far this node is with a run; finer than the ledger's states."""

    #: Decided to run; it is to be claimed at once, also by a daemon that starts after a crash.
    DECIDED = "decided"
    #: Decided to run, once another run has ended, its back-off is over, or a fence or the object store answers.
    WAITING = "waiting"
    #: Claimed by a fence; a process may exist.
    CLAIMED = "claimed"
    #: A process was started.
    STARTED = "started"
    #: Nothing more will happen on this node.
    OVER = "over"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task this node was given: the signed envelope as it came, and how far its fires are decided."""

    task: TaskId
    generation: int
    fence: int
    envelope: bytes
    cursor_ms: int
    next_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A run with what only this node knows of it."""

    run: Run
    phase: Phase
    not_before_ms: int = 0
    #: Which fence granted it: `mysql`, `zookeeper`, `none` (autonomous), or empty.
    claim_fence: str = ""


class Journal:
    """All methods are safe to call from several threads; every write is one synced transaction."""

    def __init__(self, path: Path, *, afresh: bool = False) -> None:
        #: It begins empty although this node has a past: a run that it does not know may be anything.
        self._afresh = afresh
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def check(self) -> str:
        """Return what is wrong with the file, or nothing: SQLite looks at its pages, and we read what we would need.

        Raises sqlite3.Error when it cannot be read at all. One second for half a million runs.
        """
        found = [str(row[0]) for row in self._read("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            return found[0]
        try:
            deque(self.each_task(), maxlen=0)
            self._entries("WHERE phase != 'over' OR dirty = 1", ())
        except (ValueError, TypeError) as exc:
            return f"a row makes no sense: {exc}"
        return ""

    # -- tasks

    def tasks(self) -> list[TaskRow]:
        """Return every task of this node."""
        return list(self.each_task())

    def each_task(self) -> Iterator[TaskRow]:
        """Return one task after the other, for when none changes meanwhile: of the envelopes few are held at once."""
        text = "SELECT task, generation, fence, envelope, cursor_ms, next_ms FROM tasks WHERE task > ? ORDER BY task"
        last = ""
        while rows := self._read(f"{text} LIMIT {_PIECE}", (last,)):
            yield from (TaskRow(TaskId.parse(row[0]), *row[1:]) for row in rows)
            last = rows[-1][0]

    def envelope(self, task: TaskId) -> bytes:
        """Return a task's signed envelope. Raises KeyError when it is not here."""
        for (envelope,) in self._read("SELECT envelope FROM tasks WHERE task = ?", (str(task),)):
            return bytes(envelope)
        raise KeyError(str(task))

    def due_tasks(self, now_ms: int) -> list[TaskRow]:
        """Return the tasks that want a look at `now_ms`: what `cronkeeper-fire` asks when the daemon is away."""
        rows = self._read(
            "SELECT task, generation, fence, envelope, cursor_ms, next_ms FROM tasks WHERE next_ms <= ?", (now_ms,)
        )
        return [TaskRow(TaskId.parse(row[0]), *row[1:]) for row in rows]

    def save_tasks(self, tasks: Sequence[TaskRow], dropped: Iterable[TaskId] = ()) -> None:
        """Install and drop tasks in one transaction.

        The cursor of a known task goes back only if the task was given to this node anew, after it was another's.
        """
        with self._lock, self._transaction():
            self._db.executemany("DELETE FROM tasks WHERE task = ?", [(str(task),) for task in dropped])
            self._db.executemany(
                "INSERT INTO tasks (task, generation, fence, envelope, cursor_ms, next_ms) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (task) DO UPDATE SET generation = excluded.generation, fence = excluded.fence, "
                "envelope = excluded.envelope, next_ms = excluded.next_ms, cursor_ms = "
                "CASE WHEN excluded.fence > fence THEN excluded.cursor_ms ELSE max(cursor_ms, excluded.cursor_ms) END",
                [(str(t.task), t.generation, t.fence, t.envelope, t.cursor_ms, t.next_ms) for t in tasks],
            )

    # -- decisions and runs

    def decide(self, entries: Sequence[Entry], cursors: Sequence[tuple[TaskId, int, int | None]]) -> None:
        """Make decisions durable, with the cursors (task, cursor, next look) they move.

        A known entry stays, unless it stands for nothing that happened: a claim that was refused, a run given up.
        """
        with self._lock, self._transaction():
            self._db.executemany(
                _DECIDE,
                [
                    (e.phase, e.not_before_ms, e.run.state is not RunState.PENDING, e.claim_fence, *to_row(e.run))
                    for e in entries
                ],
            )
            self._db.executemany(
                "UPDATE tasks SET cursor_ms = max(cursor_ms, ?), next_ms = ? WHERE task = ?",
                [(cursor_ms, next_ms, str(task)) for task, cursor_ms, next_ms in cursors],
            )

    def update(self, entries: Sequence[Entry], *, report: bool = True) -> None:
        """Write how far runs have come. With `report`, MySQL is to hear of it."""
        if not entries:
            return
        with self._lock, self._transaction():
            self._db.executemany(
                _REPLACE,
                [(e.phase, e.not_before_ms, report, e.claim_fence, *to_row(e.run)) for e in entries],
            )

    def settle(
        self, told: Sequence[Entry], untold: Sequence[Entry], doubted: Sequence[Entry], reason: Reason, now_ms: int
    ) -> None:
        """Write what has become of claims, all with one sync: what MySQL is to hear of, and what it need not.

        On the `doubted` ones nobody will act, for this reason. MySQL may have granted them unheard: it is to hear that.
        Of the latter two, a run of ours with another nonce stays what it is.
        """
        silent = [(e.phase, e.not_before_ms, False, e.claim_fence, *to_row(e.run)) for e in (*untold, *doubted)]
        with self._lock, self._transaction():
            self._db.executemany(
                _REPLACE, [(e.phase, e.not_before_ms, True, e.claim_fence, *to_row(e.run)) for e in told]
            )
            self._db.executemany(_SAME, silent)
            self._db.executemany(
                "INSERT OR REPLACE INTO doubts (run_id, nonce, trigger, reason, noted_ms) VALUES (?, ?, ?, ?, ?)",
                [(str(e.run.key), e.run.nonce, e.run.trigger, reason, now_ms) for e in doubted],
            )

    def give_up(self, entries: Sequence[Entry], reason: Reason, now_ms: int) -> None:
        """Write entries on which nobody will act."""
        self.settle([], [], entries, reason, now_ms)

    def doubts(self, now_ms: int, limit: int) -> list[Run]:
        """Return claims that are to be given up in MySQL: at once, and once more when none can be on its way still."""
        rows = self._read(
            "SELECT run_id, trigger, nonce, reason FROM doubts WHERE told = 0 OR noted_ms <= ? LIMIT ?",
            (now_ms - SETTLED_MS, limit),
        )
        return [
            Run(RunKey.parse(row[0]), Trigger(row[1]), RunState.CLAIMED, nonce=row[2], reason=Reason(row[3]))
            for row in rows
        ]

    def mark_given_up(self, runs: Sequence[Run], now_ms: int) -> None:
        """MySQL has been told of these, by a call that began at `now_ms`."""
        keys = [(str(run.key), run.nonce) for run in runs]
        with self._lock, self._transaction():
            self._db.executemany("UPDATE doubts SET told = 1 WHERE run_id = ? AND nonce = ?", keys)
            self._db.executemany(
                "DELETE FROM doubts WHERE run_id = ? AND nonce = ? AND noted_ms <= ?",
                [(*key, now_ms - SETTLED_MS) for key in keys],
            )

    def entry(self, key: RunKey) -> Entry | None:
        """Return one run, or None."""
        found = self._entries("WHERE run_id = ?", (str(key),))
        return found[0] if found else None

    def is_settled(self, key: RunKey) -> bool:
        """Say whether nothing is left to be done or reported about this run.

        That goes for one that was never heard of, too, unless the journal has lost its past.
        """
        found = self._read("SELECT phase = 'over' AND dirty = 0 FROM runs WHERE run_id = ?", (str(key),))
        return bool(found[0][0]) if found else not self._afresh

    def open_entries(self) -> list[Entry]:
        """Return the runs with which this node is not done, oldest fire first."""
        return sorted(self._entries("WHERE phase != 'over'", ()), key=lambda entry: entry.run.key)

    def newest_claims(self) -> dict[TaskId, int]:
        """Return each task's newest fire that this node was granted, or is about to claim.

        Of those that the ledger may not know yet: that MySQL granted it is not written down before the run starts.
        """
        text = (
            "SELECT run_id FROM runs WHERE (dirty = 1 OR phase != 'over')"
            " AND (claimed_ms IS NOT NULL OR phase IN (?, ?, ?))"
        )
        rows = self._read(text, (Phase.DECIDED, Phase.CLAIMED, Phase.STARTED))
        newest: dict[TaskId, int] = {}
        for (run_id,) in rows:
            key = RunKey.parse(run_id)
            newest[key.task] = max(key.fire_ms, newest.get(key.task, 0))
        return newest

    def refused(self, task: TaskId) -> list[RunKey]:
        """Return the fires that a fence refused this node: nothing of theirs was begun here."""
        text = (
            "SELECT run_id FROM runs WHERE run_id > ? AND run_id < ?"
            " AND phase = 'over' AND dirty = 0 AND claimed_ms IS NULL AND reason = ?"
        )
        # A walk along the key: no other task's runs are looked at.
        prefix = f"{task.job_id}-{task.shard}"
        found = self._read(text, (f"{prefix}-", f"{prefix}.", Reason.FENCE_REFUSED.value))
        return sorted(RunKey.parse(run_id) for (run_id,) in found)

    def started_before(self, before_ms: int) -> list[RunKey]:
        """Return the runs that have begun before this instant (epoch ms) and have not ended."""
        text = "SELECT run_id FROM runs WHERE phase != 'over' AND phase = ? AND coalesce(started_ms, 0) < ?"
        return [RunKey.parse(run_id) for (run_id,) in self._read(text, (Phase.STARTED, before_ms))]

    def dirty(self, limit: int) -> list[Entry]:
        """Return runs of which MySQL has not heard the latest."""
        return self._entries("WHERE dirty = 1 LIMIT ?", (limit,))

    def dirty_count(self) -> int:
        """Return of how many runs and doubts MySQL has not heard yet."""
        runs, doubts = self._read(
            "SELECT (SELECT count(*) FROM runs WHERE dirty = 1), (SELECT count(*) FROM doubts WHERE told = 0)"
        )[0]
        return int(runs + doubts)

    def mark_reported(self, runs: Sequence[Run]) -> None:
        """MySQL has these states now. A run that has moved on meanwhile stays dirty."""
        with self._lock, self._transaction():
            self._db.executemany(
                "UPDATE runs SET dirty = 0 WHERE run_id = ? AND state = ?", [(str(run.key), run.state) for run in runs]
            )

    def prune(self, before_ms: int) -> int:
        """Forget runs that are over and reported and ended (or were decided for an instant) before `before_ms`."""
        with self._lock, self._transaction():
            cursor = self._db.execute(
                "DELETE FROM runs WHERE phase = 'over' AND dirty = 0 AND coalesce(ended_ms, claimed_ms, 0) < ?",
                (before_ms,),
            )
            return cursor.rowcount

    # -- events

    def tell(self, event: Event) -> None:
        """Keep an event until MySQL has it; the newest of each kind is kept for good."""
        with self._lock, self._transaction():
            self._db.execute(
                "INSERT INTO events (at_ms, kind, subject, detail) VALUES (?, ?, ?, ?)",
                (event.at_ms, event.kind, event.subject, event.detail),
            )

    def untold(self, limit: int) -> dict[int, Event]:
        """Return events of which MySQL has not heard, oldest first, by their number here."""
        rows = self._read(
            "SELECT id, at_ms, kind, subject, detail FROM events WHERE dirty = 1 ORDER BY id LIMIT ?", (limit,)
        )
        return {row[0]: Event(*row[1:]) for row in rows}

    def mark_told(self, numbers: Iterable[int]) -> None:
        """MySQL has these events now."""
        with self._lock, self._transaction():
            self._db.executemany("UPDATE events SET dirty = 0 WHERE id = ?", [(number,) for number in numbers])
            self._db.execute(
                "DELETE FROM events WHERE dirty = 0 AND id NOT IN (SELECT max(id) FROM events GROUP BY kind)"
            )

    def last_event(self, kinds: Sequence[str]) -> Event | None:
        """Return the newest event of these kinds, told or not."""
        places = ", ".join("?" * len(kinds))
        rows = self._read(
            "SELECT at_ms, kind, subject, detail FROM events "  # noqa: S608 - question marks only
            f"WHERE kind IN ({places}) ORDER BY id DESC LIMIT 1",
            tuple(kinds),
        )
        return Event(*rows[0]) if rows else None

    def _entries(self, where: str, parameters: tuple[Any, ...]) -> list[Entry]:
        rows = self._read(_SELECT + where, parameters)
        return [Entry(from_row(row[3:]), Phase(row[0]), row[1], row[2]) for row in rows]

    def _read(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, parameters).fetchall()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT; ROLLBACK when anything goes wrong."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
