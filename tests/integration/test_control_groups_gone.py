"""A runner whose control groups are removed under its feet: runs start all the same, each in a group of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper_worker import control_groups, run_files
from tests.harness.folders import make_folder, remove_folder

pytestmark = pytest.mark.skipif(
    bool(control_groups.missing()), reason=f"takes a cgroup v2 that can be written: {control_groups.missing()}"
)

#: In a group that is made for it; what it prints is answered by a line once that group is removed.
_BEGINS = """
import os, sys
from cronkeeper_worker import run_files
from cronkeeper_worker.control_groups import ControlGroups, own_group
folder, origin = sys.argv[1:]
with open(f"{origin}/cgroup.procs", "w") as file:
    file.write("0")
told = []
groups = ControlGroups(folder, run_files.boot_id(), told.append)
"""
_LEAVES = """
def where():
    return os.path.basename(own_group())

base = os.path.dirname(own_group())
def lose_home():
    os.rmdir(f"{base}/runner")

print(flush=True)
input()
"""
#: Then its group is made anew.
_REMAKES = """
with groups.around("1-0-1-1"):
    lose_home()
print(where())
with groups.around("1-0-1-2"):
    print(where(), groups.reason or "-")
print(where(), len(told))
"""
#: Or it cannot be, as the kernel makes no group more.
_STAYS = """
for run in (2, 3):
    os.mkdir(f"{base}/run-1-0-1-{run}")
with groups.around("1-0-1-1"):
    lose_home()
    with open(f"{base}/cgroup.max.descendants", "w") as file:
        file.write("0")
print(where())
for run in (2, 3):
    with groups.around(f"1-0-1-{run}"):
        print(where(), groups.reason or "-")
print(where(), len(told))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("groups-gone")
    yield folder
    remove_folder(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """A group of our own, for the test's groups; with what is left in there it goes."""
    place = Path(control_groups.own_group()) / f"cronkeeper.test-{os.getpid()}"
    place.mkdir()
    yield place
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    place.rmdir()


def scene(folder: Path, origin: Path, code: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _BEGINS + code, str(folder), str(origin)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_where_it_was_started_may_be_gone(folder: Path, place: Path) -> None:
    """As it is when a runner of a unit that has ended goes on elsewhere: in the groups of before."""
    origin, base = place / "origin", place / "cronkeeper.runs-before"
    origin.mkdir()
    base.mkdir()
    note = folder / control_groups.NOTE
    os.mkfifo(note)
    with scene(folder, origin, 'print(groups.reason or "-", own_group())') as process:
        assert process.stdout is not None
        note.write_text(f"{run_files.boot_id()} {base}\n")
        # Once it has left, it waits for somebody who reads its note.
        _remove_when_left(origin)
        with note.open():
            assert process.stdout.readline().split() == ["-", str(base / "runner")]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        pytest.param(_REMAKES, ["runner", "run-1-0-1-2 -", "runner 0"], id="made anew"),
        pytest.param(
            _STAYS,
            ["run-1-0-1-1", "run-1-0-1-2 -", "run-1-0-1-3 -", "run-1-0-1-3 1"],
            id="none is made any more: it goes from one to the next",
        ),
    ],
)
def test_a_run_gets_a_group_of_its_own_though_the_runner_cannot_go_home(
    code: str, lines: list[str], folder: Path, place: Path
) -> None:
    origin, base = place / "origin", place / "cronkeeper.runs-before"
    origin.mkdir()
    base.mkdir()
    (folder / control_groups.NOTE).write_text(f"{run_files.boot_id()} {base}\n")
    with scene(folder, origin, _LEAVES + code) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        _remove_when_left(origin)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read().splitlines() == lines
    assert process.returncode == 0


def _remove_when_left(group: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline, f"{group} is still in use"
            time.sleep(0.02)
        else:
            return
