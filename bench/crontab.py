"""How long a worker takes to render and install the crontab of 10,000 tasks, and then an edit of one of them.

    .venv/bin/python -m bench.crontab [TASKS] [FOLDER]

Twice: with some 500 distinct schedules, as fleets have them, and with a schedule of its own for each task. The files
are really written, synced and renamed into a folder (a new one, unless told), as into /etc/cron.d. Each whole crontab
is installed by a keeper that knows nothing yet, and the first also reads the clock changes of the zones. Wall time is
measured, and processor time beside it: minimum, median and maximum of 7 crontabs and 35 edits.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper.runtime.clock import SystemClock
from cronkeeper_worker.crontab_file import SystemCrontab
from cronkeeper_worker.crontab_keeper import CrontabKeeper
from cronkeeper_worker.gate import TaskView
from cronkeeper_worker.tasks import Installed

CRONTABS, EDITS = 7, 5
FIRE = Path("/var/lib/cronkeeper/worker/bin/cronkeeper-fire")


def some(number: int) -> tuple[str, str]:
    """Return one of about 500 schedules: hourly and daily, at intervals, on weekdays, in two zones."""
    kind, place = number % 10, number // 10 * 7
    zone = "Europe/Berlin" if number % 5 == 0 else "UTC"
    if kind < 4:
        return f"{place % 60} * * * *", zone
    if kind < 7:
        return f"{place % 60} {place % 24} * * *", zone
    if kind == 7:
        return ("*/5 * * * *", "*/15 * * * *", "* * * * *", "@every 90s", "*/10 * * * * *")[place % 5], zone
    if kind == 8:
        return f"{place % 60} {6 + place % 12} * * 1-5", zone
    return f"{place % 60} {place % 5} {1 + place % 28} * *", zone


def own(number: int) -> tuple[str, str]:
    """Return a schedule that no other task has."""
    return f"{number % 60} {number // 60 % 24} {1 + number // 1440 % 28} * *", "UTC"


def item(number: int, schedule: tuple[str, str]) -> Installed:
    """Return an installed task."""
    text, zone = schedule
    spec = JobSpec("true", text, JobType.COMMAND, timezone=zone)
    view = TaskView(TaskId(number + 1, 0), spec, parse_schedule(text, zone), JobState.ACTIVE, 0)
    return Installed(view, 1, 1, 1)


def figures(title: str, wall: Sequence[float], spent: Sequence[float]) -> str:
    """Return a line of the result, in milliseconds."""
    found = [f"{min(one):,.0f} / {statistics.median(one):,.0f} / {max(one):,.0f}" for one in (wall, spent)]
    return f"{title}: {found[0]} ms of wall time, {found[1]} ms of processor time\n"


def timed(do: Callable[[], bool]) -> tuple[float, float]:
    """Return the milliseconds of wall time and of processor time that it takes."""
    began, began_cpu = time.perf_counter(), time.process_time()
    assert do()
    return (time.perf_counter() - began) * 1000, (time.process_time() - began_cpu) * 1000


def measure(title: str, items: list[Installed], folder: Path, another: Callable[[int], tuple[str, str]]) -> None:
    """Install, edit, print."""
    distinct = len({one.view.schedule for one in items})
    whole, edits = [], []
    for turn in range(CRONTABS):
        target = SystemCrontab(folder)
        target.remove_all()
        keeper = CrontabKeeper(target, FIRE, "UTC", SystemClock())
        whole.append(timed(lambda: keeper.install(items)))  # noqa: B023
        for number in range(turn, len(items), len(items) // EDITS):
            before = items[number]
            items[number] = replace(before, view=replace(before.view, schedule=parse_schedule(*another(number))))
            edits.append(timed(lambda: keeper.install(items)))  # noqa: B023
            items[number] = before
    lines = sum(path.read_text().count("\n") for path in folder.iterdir())
    sys.stdout.write(f"{title}: {len(items):,} tasks, {distinct:,} distinct schedules, {lines:,} lines\n")
    for name, found in (("  the whole crontab", whole), ("  an edit of one task", edits)):
        sys.stdout.write(figures(name, *zip(*found, strict=True)))
    SystemCrontab(folder).remove_all()


def main(tasks: int, folder: Path) -> None:
    """Measure both mixes."""
    common = [item(number, some(number)) for number in range(tasks)]
    measure("usual", common, folder, lambda number: (f"{number % 60} {number % 24} 3 * 2", "UTC"))
    distinct = [item(number, own(number)) for number in range(tasks)]
    measure("each its own", distinct, folder, lambda number: (f"{number % 60} {number % 24} 29 2 *", "UTC"))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(count, Path(made))
