"""T40: the zone database changes under running workers: some have read the old one, restarted ones read the new one.

A process believes what it has read first until it ends. Whatever two of them believe, a fire time is an instant in UTC
that is decided once, and each process decides by its own database.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Self
from zoneinfo import TZPATH

import pytest

from cronkeeper.domain.instants import parse_rfc3339

ZONE = "Europe/Berlin"
#: Half a day around the change that the new database does not have any more.
START = parse_rfc3339("2026-10-24T20:00:00Z")
HOUR = 3_600_000
SPAN = 20 * 60_000
#: One worker: takes what was decided so far and the spans that are its, and tells what it decides in them.
WORKER = """
import json, os, sys
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.run import Trigger
from cronkeeper_worker.gate import TaskView, decide

spec = JobSpec(executable="true", schedule=sys.argv[1], type=JobType.COMMAND, timezone=sys.argv[2], grace_s=86400)
for line in sys.stdin:
    cursor, now = json.loads(line)
    view = TaskView(TaskId(1, 0), spec, spec.parsed_schedule(), JobState.ACTIVE, cursor)
    verdict = decide(view, now, trigger=Trigger.TIMER)
    fires = [[decision.key.fire_ms, decision.run] for decision in verdict.decisions]
    print(json.dumps([fires, verdict.cursor_ms, verdict.next_ms]), flush=True)
"""


class Worker:
    """A process that decides by the zone database of a folder, as it was when the process first looked."""

    def __init__(self, database: Path, schedule: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, schedule, ZONE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONTZPATH": str(database)},
        )

    def decide(self, cursor_ms: int, now_ms: int) -> tuple[list[int], int, int]:
        """Return the fire times that are decided, the new cursor, and when to look again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([cursor_ms, now_ms]) + "\n")
        self._process.stdin.flush()
        fires, cursor, next_ms = json.loads(self._process.stdout.readline())
        return [fire_ms for fire_ms, _ in fires], cursor, next_ms

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        assert self._process.returncode == 0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    put(tmp_path, ZONE)
    return tmp_path


def put(database: Path, like: str) -> None:
    """Let the zone have the rules of another one from now on, as an update of tzdata does: by a new file."""
    source = next(path for folder in TZPATH if (path := Path(folder, like)).exists())
    (database / ZONE).parent.mkdir(exist_ok=True)
    new = database / "new"
    shutil.copy(source, new)
    new.replace(database / ZONE)


@pytest.mark.parametrize("schedule", ["30 2 * * *", "*/15 2-4 * * *", "0 1-5 * * *", "* * * * *"])
def test_t40_tzdata_update(schedule: str, database: Path) -> None:
    """Workers with the old and the new database take turns at a task: each fire time is decided once, and in order."""
    decided = []
    with Worker(database, schedule) as old:
        _, cursor, _ = old.decide(START, START)
        put(database, "Europe/Moscow")
        with Worker(database, schedule) as new:
            for turn, now in enumerate(range(START + SPAN, START + 12 * HOUR, SPAN)):
                fires, cursor, next_ms = (old, new)[turn % 2].decide(cursor, now)
                assert next_ms > now
                decided += fires
    assert all(before < after for before, after in pairwise(decided)), decided
    assert decided


def test_a_running_worker_keeps_its_database_and_a_restarted_one_has_the_new(database: Path) -> None:
    """Half past two on 25 October is at first in summer time by the old database, an hour earlier by the new one."""
    schedule, until = "30 2 25 10 *", START + 12 * HOUR
    with Worker(database, schedule) as old:
        old.decide(START, START)
        put(database, "Europe/Moscow")
        with Worker(database, schedule) as restarted:
            assert old.decide(START, until)[0] == [parse_rfc3339("2026-10-25T00:30:00Z")]
            assert restarted.decide(START, until)[0] == [parse_rfc3339("2026-10-24T23:30:00Z")]
