"""T35: Debian's real cron through both clock changes, beside our evaluator.

Once on a clock that runs sixty times too fast, as nothing is stopped or stepped there; and once on a clock that stands
still while cron works (tests/golden/stepped.py), for every line of the golden file. All other zones: tests/soak.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.domain.schedule import parse_schedule
from tests.golden import plan
from tests.golden.codec import FOLDER, minute_text, parse_minute, read_golden
from tests.golden.stepped import prepare, record
from tests.harness.cron import Node

ZONE = "Europe/Berlin"
SPEED = 60
#: The minute in which cron starts (it runs nothing in it), the last one that counts, and what is due near there.
CHANGES = {
    "spring": (
        "2024-03-31T00:55Z",
        "2024-03-31T01:03Z",
        ("58 1 * * *", "30 2 * * *", "*/15 2 * * *", "* 2 * * *", "0 3 * * *", "2 3 * * *", "*/2 * * * *", "0 0 * * *"),
    ),
    "autumn": (
        "2024-10-27T00:55Z",
        "2024-10-27T01:04Z",
        ("58 2 * * *", "2 2 * * *", "*/2 2 * * *", "0 2 * * *", "@hourly", "*/3 * * * *", "0 3 * * *", "57 * * * *"),
    ),
}
ATTEMPTS = 4
#: Minute and expression of each fire.
Fires = set[tuple[str, str]]


def expected(expressions: tuple[str, ...], first_s: int, last_s: int) -> Fires:
    return {
        (minute_text(ms // 1000), expression)
        for expression in expressions
        for ms in parse_schedule(expression, ZONE).fire_times(first_s * 1000 - 1, last_s * 1000)
    }


def fires_at_speed(
    folder: Path, expressions: tuple[str, ...], start_s: int, last_s: int
) -> set[tuple[str, str]] | None:
    """Let cron run from one minute to another; return what it fired, or None if the machine was too busy to tell.

    The line that fires every minute tells which minute it was for the others: cron starts them together.
    """
    lines = dict(enumerate(("* * * * *", *expressions)))
    with Node("dst", folder=folder) as node:
        prepare(node)
        fires = folder / "fires"
        text = "".join(f"{line} root echo {number} $(date +\\%s.\\%N) >>{fires}\n" for number, line in lines.items())
        (node.cron_d / "dst").write_text(text)
        process = node.start_cron(faketime=f"{start_s - int(time.time()):+d} x{SPEED}", timezone=ZONE)
        minutes = (last_s - start_s) // 60
        deadline = time.monotonic() + 6 * minutes
        while len(ticks := [at for number, at in read(fires) if number == 0]) < minutes + 1:
            assert process.running, process.log_tail()
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        started = read(fires)
    if any(not 0.5 < after - before < 1.5 for before, after in itertools.pairwise(ticks)):
        return None
    found = set()
    for number, at in started:
        nearest = min(range(len(ticks)), key=lambda tick: abs(ticks[tick] - at))
        if number and nearest < minutes:
            found.add((minute_text(start_s + 60 * (nearest + 1)), lines[number]))
    return found


def read(fires: Path) -> list[tuple[int, float]]:
    """Return line and real time of each start that was written down, oldest first."""
    if not fires.exists():
        return []
    words = [line.split() for line in fires.read_text().splitlines()]
    return sorted(((int(pair[0]), float(pair[1])) for pair in words if len(pair) == 2), key=lambda start: start[1])


@pytest.mark.parametrize("change", CHANGES)
def test_t35_cron_at_sixty_times_speed_does_what_we_say(change: str, tmp_path: Path) -> None:
    start, last, expressions = CHANGES[change]
    start_s, last_s = parse_minute(start), parse_minute(last)
    attempts = (fires_at_speed(tmp_path / str(number), expressions, start_s, last_s) for number in range(ATTEMPTS))
    found = next((fires for fires in attempts if fires is not None), None)
    assert found is not None, f"cron could not keep pace in {ATTEMPTS} attempts: the machine is too busy"
    assert found == expected(expressions, start_s + 60, last_s)
    assert {expression for _, expression in found} < set(expressions)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node("dst-stepped") as node:
        prepare(node)
        yield node


@pytest.mark.parametrize("day", [day for zone, day in plan.CHANGES if zone == ZONE])
def test_cron_says_again_what_the_golden_file_says(day: str, node: Node) -> None:
    change = plan.find_change(ZONE, day)
    golden = read_golden(FOLDER / "changes.golden")[change.window]
    start_s, until_s = change.at_s - 2 * 3600, change.at_s + 2 * 3600
    for expressions in plan.crontabs(change):
        found = record(node, expressions, timezone=ZONE, start_s=start_s, until_s=until_s)
        assert found == {
            expression: [at for at in golden[expression] if start_s <= at < until_s] for expression in expressions
        }
