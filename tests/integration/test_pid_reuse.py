"""A number that belonged to a run and now belongs to somebody else: nobody is ended by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.folders import make_folder, remove_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it makes a namespace of process numbers")

#: Run inside a namespace of its own, whose next number can be set: so a number is really given out again.
_SCENE = """
import json, os, signal, sys, time
from cronkeeper_worker import run_files
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Order
from cronkeeper_worker.orphans import Orphans

folder, when = sys.argv[1:]
RUN = "1-0-1-1"

def spin(executor, done):
    events, deadline = [], time.monotonic() + 60
    while not done(events):
        assert time.monotonic() < deadline, events
        events += executor.poll(0.1)
    return events

def stranger(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    # A leader of its own group, deaf to nothing: whatever is sent to the number or to its group ends it.
    made = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
    assert made == pid, (made, pid)

first = Executor(folder)
first.start(Order(RUN, "n", command="exec sleep 600", kill_after_s=0.2))
spin(first, lambda events: events)
start = run_files.read_start(run_files.run_folder(folder, RUN))
if when == "unwatched":
    first.close()

second = Executor(folder)
orphans = Orphans(second)
if when != "unwatched":
    first.close()
    orphans.scan()
    assert orphans.running()
time.sleep(0.1)  # a start time is told in hundredths of a second
os.killpg(start.pid, signal.SIGKILL)
os.waitpid(start.pid, 0)
stranger(start.pid)
if when == "unwatched":
    orphans.scan()
assert run_files.start_ticks(start.pid) != start.start_ticks
orphans.cancel(RUN)
events = spin(second, lambda events: any(getattr(event, "lost", False) for event in events))
time.sleep(0.5)
found = os.waitpid(start.pid, os.WNOHANG)
os.kill(start.pid, signal.SIGKILL)
second.close()
print(json.dumps({"stranger": list(found), "lost": [event.run_id for event in events]}))
"""


@pytest.mark.parametrize("when", ["unwatched", "watched"])
def test_who_got_the_number_of_a_run_is_never_signalled(when: str) -> None:
    folder = make_folder("reuse")
    try:
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", _SCENE]
        found = subprocess.run(
            [*inside, str(folder), when], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2]
        )
        assert found.returncode == 0, found.stderr
        # It goes on (nothing to wait for), and the run is told as what it is.
        assert found.stdout.strip() == '{"stranger": [0, 0], "lost": ["1-0-1-1"]}'
    finally:
        remove_folder(folder)
