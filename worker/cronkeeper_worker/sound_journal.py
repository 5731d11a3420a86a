"""Opens the node's journal; sets a damaged one aside and begins a new one, because a node must not stand still for it.

What a new journal does not know comes from elsewhere: the tasks from ZooKeeper, how far they are decided from the
ledger, and the runs in progress too (see `Agent.refresh_foreign`). Lost is what only the old one knew: runs of which
MySQL had not heard. The old one stays beside it, for people.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from cronkeeper.ports import Event
from cronkeeper_worker.journal import Journal

log = logging.getLogger(__name__)

#: So many damaged journals are kept, the newest.
KEPT = 3
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: Our own statements do not fit the tables: it is a database, but none of ours.
_FOREIGN = sqlite3.SQLITE_ERROR


def open_journal(path: Path, worker: str, now_ms: int) -> Journal:
    """Return the journal; an empty one, with an event about it, when the file is damaged.

    To be called under the node's lock. Raises sqlite3.Error or OSError when the disk cannot be read or written: that
    says nothing about the journal, which stays as it is.
    """
    damage = _damage(path)
    if not damage:
        return Journal(path)
    aside = path.with_name(f"{path.name}.corrupt-{now_ms}")
    _set_aside(path, aside)
    log.error(
        "the journal is damaged; a new one begins",
        extra={"event": "journal.corrupt", "kept": str(aside), "error": damage},
    )
    journal = Journal(path, afresh=True)
    journal.tell(Event(now_ms, "journal.corrupt", worker, f"{damage}; kept as {aside.name}"))
    return journal


def is_damage(exc: sqlite3.Error) -> bool:
    """Say whether an error means that the file itself is damaged; any other may pass."""
    return _code(exc) in _DAMAGE


def _damage(path: Path) -> str:
    """Return what is wrong with the journal, or nothing."""
    try:
        with closing(Journal(path)) as journal:
            return journal.check()
    except sqlite3.Error as exc:
        if is_damage(exc) or _code(exc) == _FOREIGN:
            return str(exc)
        raise


def _code(exc: sqlite3.Error) -> int | None:
    """Return the primary error code; None when SQLite gave none."""
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _set_aside(path: Path, aside: Path) -> None:
    """Rename the journal first, then what SQLite keeps beside it: without the latter it would be an older journal."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    kept = sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"), key=lambda old: int(old.name.rpartition("-")[2]))
    for old in kept[:-KEPT]:
        for suffix in ("-wal", "-shm", ""):
            old.with_name(old.name + suffix).unlink(missing_ok=True)
