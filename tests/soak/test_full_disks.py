"""Disks without a free byte or inode (T43)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper_worker import node_files
from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, log_events, wait_for, wait_starts
from tests.faults.fleet import Fleet, Sizes
from tests.faults.trial import Trial
from tests.faults.workload import std

FULL_S = 15.0
_SHRINK = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=10).execute('PRAGMA wal_checkpoint(TRUNCATE)')"


@pytest.fixture(scope="module")
def small() -> Iterator[Fleet]:
    """A fleet each of whose nodes has small disks of its own."""
    with Fleet(Sizes(small_disks=True)) as fleet:
        yield fleet


@pytest.mark.parametrize("kind", [FaultKind.INODES_FULL, FaultKind.DISK_FULL])
def test_t43_tmp_full(kind: FaultKind, small: Fleet, tmp_path: Path) -> None:
    """Cron starts nothing without /tmp; the timers do not need it, and no fire notices."""
    with Trial(small, tmp_path / "history") as trial:
        std(trial, jobs=6)
        trial.post("tick", schedule="*/2 * * * * *")
        trial.post("minute", schedule="* * * * *")
        owner = trial.owner("tick")
        wait_starts(trial, "tick", 2)
        since_s = time.time()
        with trial.fault(kind, [owner], "tmp"):
            trial.wait(FULL_S)
            assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
        trial.finish(steady_s=15)


@pytest.mark.parametrize("kind", [FaultKind.INODES_FULL, FaultKind.DISK_FULL])
def test_t43_state_full(kind: FaultKind, small: Fleet, tmp_path: Path) -> None:
    """A worker that can write nothing down starts nothing twice, says so, and catches up when there is space."""
    with Trial(small, tmp_path / "history") as trial:
        std(trial, jobs=9)
        trial.post("tick", schedule="*/2 * * * * *", misfire="all", grace_s=60)
        owner = trial.owner("tick")
        wait_starts(trial, "tick", 2)
        worker = small.cluster.workers[owner]
        pid = worker.pid
        shrink_journal(small, owner)
        with trial.fault(kind, [owner], "state"):
            trial.wait(FULL_S)
        healed_s = time.time()
        wait_for(lambda: any(line["wall_s"] > healed_s for line in trial.starts("tick")), "it fires again", 15)
        trial.finish(steady_s=15)
        assert worker.running
        assert worker.pid == pid, "the daemon did not live through it"
        # Without inodes nothing is hindered: journal and folders are made of what is there already.
        assert kind is FaultKind.INODES_FULL or log_events(worker, "journal.fault")


def shrink_journal(fleet: Fleet, worker: str) -> None:
    """Leave the journal no room of its own: SQLite writes for long into what it has taken from the disk before."""
    path = fleet.cluster.daemon_dir(worker) / node_files.JOURNAL
    # In the node, where the disk is: SQLite goes by what a path is in the end, and that of /proc/<pid>/root is `/`.
    fleet.cluster.nodes[worker].run([sys.executable, "-IS", "-c", _SHRINK, str(path)])


@pytest.mark.parametrize("kind", [FaultKind.INODES_FULL, FaultKind.DISK_FULL])
def test_t43_etc_full(kind: FaultKind, small: Fleet, tmp_path: Path) -> None:
    """A crontab that cannot be written stays as it was, whole; new tasks go by timer until there is space."""
    with Trial(small, tmp_path / "history") as trial:
        std(trial, jobs=6)
        for number in range(30):
            trial.post(f"old-{number}", schedule=f"{number} 3 * * *")
        owner = trial.owner("old-0")
        trial.owner("old-29")
        trial.wait(2)
        before = reading.crontabs(small)[owner]
        with trial.fault(kind, [owner], "cron"):
            for number in range(6):
                trial.post(f"new-{number}", schedule="*/3 * * * * *", misfire="all", grace_s=60)
                text = small.cluster.crontab(owner)
                assert text.endswith("\n")
                assert set(before) <= set(reading.tasks_named(text)), "the crontab has lost entries"
            mine = [name for name in trial.jobs if name.startswith("new-") and trial.owner(name) == owner]
            assert mine
            for name in mine:
                wait_starts(trial, name, 2)
            worker = small.cluster.workers[owner]
            wait_for(lambda: log_events(worker, "crontab.fault"), "the log says that the crontab is not written", 15)
            assert set(reading.crontabs(small)[owner]) >= set(before)
        ids = {f"{trial.jobs[name].id}/0" for name in mine}
        wait_for(lambda: ids <= set(reading.crontabs(small)[owner]), "the crontab is up to date again", 20)
        trial.finish(steady_s=15)
