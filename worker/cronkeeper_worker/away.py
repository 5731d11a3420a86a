"""What `cronkeeper-fire` does when the daemon is away: the same gate, fences and runner, from the node's files.

    python -m cronkeeper_worker.away <state folder> <number>

A node's cron starts this a second after the minute, for each distinct expression. It decides under the lock that the
daemon holds while it lives, so the two never decide at once; it leaves what it did in the journal, from which the next
daemon (or the next call) carries it home.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from cronkeeper_worker.node_start import is_new

#: A daemon that is just starting, or another call of this minute, has so long to let go of the lock.
LOCK_WAIT_S = 20.0
#: How long this process stays to write down how short runs ended, and to report.
STAY_S = 5.0
MAX_LOG_BYTES = 1_000_000


def main(argv: list[str]) -> int:
    """Look once; return the exit status. Cheap when nothing is due: many calls of one minute meet here."""
    state_dir = Path(argv[1])
    settings = state_dir / "away.json"
    if not settings.exists() or not (is_new(state_dir) or _anything_due(state_dir)):
        return 0
    _log_to(state_dir / "away.log")
    # The heavy part: half a second of imports, paid only when the daemon is away and something is due.
    from cronkeeper.errors import ConfigError
    from cronkeeper_worker.node_files import NodeLock
    from cronkeeper_worker.stand_in import StandIn

    lock = NodeLock(state_dir)
    if not lock.acquire(LOCK_WAIT_S):
        return 0
    try:
        # Looked at again: the daemon may have said goodbye while we waited.
        if settings.exists():
            StandIn(state_dir).look(STAY_S)
    except ConfigError as exc:
        print(f"nothing is started until somebody mends this: {exc}", file=sys.stderr)  # noqa: T201 - goes to away.log
        return 2
    finally:
        lock.release()
    return 0


def _anything_due(state_dir: Path) -> bool:
    """Ask the journal whether a task or a waiting run wants a look."""
    now_ms = time.time_ns() // 1_000_000
    try:
        with closing(sqlite3.connect(f"file:{state_dir / 'journal.db'}?mode=ro", uri=True, timeout=5)) as db:
            due = db.execute("SELECT 1 FROM tasks WHERE next_ms <= ? LIMIT 1", (now_ms,)).fetchone()
            waiting = db.execute("SELECT 1 FROM runs WHERE phase != 'over' LIMIT 1").fetchone()
    except sqlite3.Error:
        # Let the full look find out, and say what is wrong.
        return True
    return due is not None or waiting is not None


def _log_to(path: Path) -> None:
    """Send this process's output to a file of the node: cron would mail it to somebody, again and again."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        flags |= os.O_TRUNC
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
