"""`deploy/quickstart`, the first screen of the README, on a node whose cron is installed but does not run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cron import Node
from tests.harness.folders import make_folder, remove_folder
from tests.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 280.0

pytestmark = pytest.mark.timeout(700)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("quickstart") as node:
        yield node


@pytest.fixture
def folder() -> Iterator[Path]:
    found = make_folder("quickstart-data")
    yield found
    remove_folder(found)


def quickstart(node: Node, folder: Path) -> str:
    """Run it to its end, and return what it said. Whatever it leaves behind is a fault."""
    before = set(node.pids())
    argv = [
        str(ROOT / "deploy" / "quickstart"),
        "--exit",
        "--port",
        str(free_port()),
        "--data-dir",
        str(folder / "data"),
    ]
    process = node.spawn(argv, {"HOME": str(folder), "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    assert process.wait(WITHIN_S) == 0, process.log_tail()
    deadline = time.monotonic() + 10
    while (left := set(node.pids()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, [shown(pid) for pid in left]
    return process.log_text()


def shown(pid: int) -> str:
    """What this process is, for whoever has to find out why it is still there."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"{pid}: {command} {Path(f'/proc/{pid}/stat').read_text()}"
    except OSError:
        return f"{pid}: gone by now"


def test_it_shows_a_job_at_work_leaves_nothing_running_and_can_be_repeated(node: Node, folder: Path) -> None:
    first = quickstart(node, folder)
    assert "started it (pid" in first
    assert "stopped the cron that was started here" in first
    assert '"status": "scheduled"' in first
    assert "cronkeeper-fire" in first
    assert first.count("succeeded") >= 2
    assert not [path for path, text in node.read_crontabs().items() if b"cronkeeper-fire" in text]
    second = quickstart(node, folder)
    assert "is the same and still there from an earlier start" in second
    assert second.count("succeeded") >= 2
