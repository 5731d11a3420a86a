"""The supervisor of standalone, over children that do as they are told."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronkeeper_cli.supervisor import shorten_log, wait_before_restart_s
from tests.harness.leftovers import find_tagged
from tests.harness.processes import Process, alive

TAG = "CRONKEEPER_TEST_SUPERVISOR"

PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from cronkeeper_cli.supervisor import Part, Supervisor

def sleeper():
    Path("sleeper").write_text(str(os.getpid()))
    time.sleep(600)
    return 0

def brief():
    with open("brief", "a") as file:
        file.write("x")
    return 7

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"])
    Path("stubborn").write_text(str(os.getpid()))
    while True:
        time.sleep(600)

def once():
    print("done once")
    return 0

supervisor = Supervisor(Path("."), lambda text: print(text, flush=True))
supervisor.catch_signals()
for name in sys.argv[1:]:
    supervisor.start(Part(name=name, run=globals()[name], once=name == "once"))
while not supervisor.stop_asked:
    supervisor.turn(60.0)
supervisor.stop_parts(2.0)
print("stopped", flush=True)
"""

Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    tag = tmp_path.name
    processes: list[Process] = []

    def begin(*parts: str) -> Process:
        root = Path(__file__).resolve().parents[2]
        path = ":".join(str(root / folder) for folder in ("core", "cli"))
        process = Process(
            "supervisor",
            [sys.executable, "program.py", *parts],
            log_path=tmp_path / "supervisor.log",
            env={"PYTHONPATH": path, TAG: tag, "PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
        )
        processes.append(process)
        return process.start()

    yield begin
    for process in processes:
        process.kill()
    deadline = time.monotonic() + 10
    while (left := find_tagged(TAG, tag)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def pid_in(path: Path, other_than: int = 0) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if text and int(text) != other_than:
            return int(text)
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def test_a_killed_part_is_started_again(start: Start, tmp_path: Path) -> None:
    process = start("sleeper")
    first = pid_in(tmp_path / "sleeper")
    Process("kill", ["kill", "-9", str(first)], log_path=tmp_path / "kill.log").start().wait()
    second = pid_in(tmp_path / "sleeper", other_than=first)
    assert alive(second)
    assert "sleeper ended with status -9" in process.log_text()
    process.stop()
    assert process.returncode == 0


def test_a_part_that_keeps_ending_is_started_ever_more_slowly(start: Start, tmp_path: Path) -> None:
    process = start("brief")
    process.wait_until(lambda: len((tmp_path / "brief").read_text()) >= 3, timeout_s=20, what="started three times")
    assert "brief ended with status 7" in process.log_text()
    assert "again in 0.2 s" in process.log_text()
    assert "again in 0.4 s" in process.log_text()
    process.stop()


def test_what_ignores_term_is_killed_with_all_its_children(start: Start, tmp_path: Path) -> None:
    process = start("stubborn", "sleeper")
    stubborn, sleeper = pid_in(tmp_path / "stubborn"), pid_in(tmp_path / "sleeper")
    process.send(signal.SIGINT)
    assert process.wait(20) == 0
    assert "stopped" in process.log_text()
    assert not alive(stubborn)
    assert not alive(sleeper)


def test_a_part_that_runs_once_stays_ended_and_has_its_own_log(start: Start, tmp_path: Path) -> None:
    process = start("once", "sleeper")
    pid_in(tmp_path / "sleeper")
    process.wait_until(lambda: (tmp_path / "once.log").read_text() == "done once\n", timeout_s=10, what="done")
    process.stop()
    assert "once ended" not in process.log_text()


def test_children_do_not_outlive_a_killed_supervisor(start: Start, tmp_path: Path) -> None:
    process = start("sleeper")
    child = pid_in(tmp_path / "sleeper")
    process.kill(group=False)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def test_the_wait_doubles_up_to_a_bound() -> None:
    assert [wait_before_restart_s(failures) for failures in (1, 2, 3, 20)] == [0.2, 0.4, 0.8, 10.0]


def test_a_long_log_begins_anew_and_keeps_what_was(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("a" * 20)
    shorten_log(log, limit_bytes=30)
    assert log.read_text() == "a" * 20
    with log.open("a") as writer:
        shorten_log(log, limit_bytes=10)
        writer.write("b")
    assert (log.read_text(), (tmp_path / "api.log.old").read_text()) == ("b", "a" * 20)
