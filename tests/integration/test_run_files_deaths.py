"""kill -9 between two steps by which a run's folder is used again: whoever comes next finds the truth, or nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cronkeeper_worker import run_files
from cronkeeper_worker.orders import Ended
from cronkeeper_worker.run_folders import Folders

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="takes strace")

FIRST = Ended("1-0-1-1", 1, 3, None, False, False, 40, "{" * 40)
SECOND = Ended("1-0-2-1", 2, 4, None, False, False, 0, "")
START = run_files.RunStart(5, 6, run_files.boot_id(), "n", "d" * 64, 7, None, 10.0)
#: What is not reached any more makes the test red: then these are to be counted anew.
POINTS = [("rename", 1), ("rename", 2), *(("pwrite64", nth) for nth in range(1, 9)), ("unlink", 1), ("unlink", 2)]

_LIVES = """
import os, sys
from cronkeeper_worker import run_files
from cronkeeper_worker.run_folders import Folders
from tests.integration.test_run_files_deaths import FIRST, SECOND, START
folders = Folders(sys.argv[1])
for number, event in enumerate((FIRST, SECOND)):
    folder = folders.make(event.run_id, os.getuid(), os.getgid())
    with run_files.StartNote(folder, START._replace(pid=0, nonce=event.run_id)) as note:
        note.complete(START._replace(nonce=event.run_id))
    open(f"{folder}/{run_files.OUTPUT}", "w").close()
    run_files.write_exit(folder, event, flush=False)
    folders.remove(event.run_id)
"""


@pytest.mark.parametrize(("call", "nth"), POINTS)
def test_a_death_between_two_steps_leaves_the_truth_or_nothing(tmp_path: Path, call: str, nth: int) -> None:
    argv = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    argv += ["-e", f"inject={call}:signal=KILL:when={nth}", sys.executable, "-c", _LIVES, str(tmp_path)]
    root = Path(run_files.__file__).parents[2]
    done = subprocess.run(argv, cwd=root, timeout=60, check=False)
    assert done.returncode in (-9, 137), f"{call} {nth} is not on the way any more"
    for event in (FIRST, SECOND):
        folder = run_files.run_folder(str(tmp_path), event.run_id)
        begun, told = run_files.read_start(folder), run_files.read_exit(folder)
        assert begun is None or begun.nonce == event.run_id
        assert told in (None, event)
        assert told is None or begun is not None, "how it ended is known, but not that it began"
    folders = Folders(str(tmp_path))
    folder = folders.make("1-0-3-1", os.getuid(), os.getgid())
    assert run_files.read_start(folder) is None and run_files.read_exit(folder) is None
    assert not os.path.exists(f"{folder}/{run_files.OUTPUT}")
