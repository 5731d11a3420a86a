"""Memory that was given back is given back to the kernel, too, whichever thread had it."""

from __future__ import annotations

import subprocess
import sys

#: Threads that each hold 20 MiB in small pieces and let go of them, save one of a hundred. What stays is told in MiB.
_PROGRAM = """
import sys, threading
from cronkeeper.runtime.memory import give_back, one_heap
if sys.argv[1] == "lean":
    one_heap()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
kept = []
def hold():
    pieces = [bytes(2000) for _ in range(10_000)]
    there.wait()
    kept.append(pieces[::100])
    del pieces
there = threading.Barrier(9)
before = resident()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads: thread.start()
there.wait()
for thread in threads: thread.join()
if sys.argv[1] == "lean":
    give_back()
print(resident() - before)
"""


def _stays(how: str) -> float:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_little_stays_of_what_threads_have_let_go_of() -> None:
    lean, plain = _stays("lean"), _stays("plain")
    assert lean < 20
    assert lean < plain / 3
