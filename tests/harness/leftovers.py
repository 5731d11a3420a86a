"""Finds and ends the processes of a test run that outlived it, and removes the control groups of dead runners.

`tests/run` exports `CRONKEEPER_TEST_RUN=<id>`, which every process started by a test inherits; so the id in a process's
first environment tells where it comes from, however often it forked or moved to a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cronkeeper_worker import control_groups

RUN_VARIABLE = "CRONKEEPER_TEST_RUN"
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """One process that should be gone: its pid and its command line."""

    pid: int
    command: str


def find_tagged(variable: str, value: str) -> list[Leftover]:
    """Return the living processes, except this one, that were started with `variable`=`value` in their environment."""
    needle = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended meanwhile, or it is not ours to read
            continue
        if needle in environment:
            found.append(Leftover(int(folder.name), command))
    return found


def end(leftovers: list[Leftover]) -> None:
    """Send SIGKILL to each; those that are gone already are no error."""
    for leftover in leftovers:
        try:
            os.kill(leftover.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> int:
    """Wait a moment for what is still on its way out; name and end the rest. Exit status 1 if there was any."""
    run_id = sys.argv[1]
    deadline = time.monotonic() + _SETTLE_S
    while (left := find_tagged(RUN_VARIABLE, run_id)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for leftover in left:
        print(f"left behind by the tests: pid {leftover.pid}: {leftover.command}")
    end(left)
    with contextlib.suppress(OSError):  # a machine without any
        control_groups.tidy()
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
