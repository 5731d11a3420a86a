"""What the harness can do to one node: set its clock, fill its disks, stop and go on with all of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.nemesis_nodes import fill, use_inodes
from tests.harness.clock import OwnClock
from tests.harness.cron import CRON_D, Node
from tests.harness.processes import ServerError

#: Prints the wall clock, the boot-time clock, and how long a sleep of half a second took.
CLOCKS = (
    "import time; a = time.monotonic(); time.sleep(0.5); "
    "print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic() - a)"
)
#: Says `ok` for each second in which it could run.
TICK = "import time\nwhile True: print('ok', flush=True); time.sleep(0.1)"


@pytest.mark.parametrize("offset_s", [600.0, -600.0])
def test_a_node_has_a_wall_clock_of_its_own(tmp_path: Path, offset_s: float) -> None:
    clock = OwnClock(tmp_path / "clock")
    with Node("clocked", folder=tmp_path / "node", env=clock.environment) as node:
        argv = [sys.executable, "-c", CLOCKS]
        wall_s, boot_s, slept_s = map(float, node.run(argv).split())
        assert abs(wall_s - time.time()) < 60
        clock.set(offset_s)
        wall_s, boot_s, slept_s = map(float, node.run(argv).split())
        assert abs(wall_s - time.time() - offset_s) < 60
        assert abs(boot_s - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
        assert 0.4 < slept_s < 30
        clock.set(0.0)
        assert abs(float(node.run(["date", "+%s"])) - time.time()) < 60


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Node]:
    disks = {"/tmp": "size=256k,nr_inodes=30,mode=1777", CRON_D: "size=64k,nr_inodes=10,mode=0755"}
    with Node("small", folder=tmp_path / "node", disks=disks, keep=tmp_path) as node:
        yield node


@pytest.mark.parametrize("use_up", [fill, use_inodes])
@pytest.mark.parametrize("folder", ["/tmp", CRON_D])
def test_a_disk_of_a_node_can_be_filled_and_no_other(small: Node, folder: str, use_up: Callable[[Path], None]) -> None:
    write = f"echo 12345 > {folder}/file"
    small.run(["sh", "-c", write])
    assert (small.inside(folder) / "file").read_text() == "12345\n"
    assert not Path(folder, "file").exists()
    small.run(["rm", f"{folder}/file"])
    use_up(small.inside(folder))
    with pytest.raises(ServerError, match="ended with status"):
        small.run(["sh", "-c", write])
    small.run(["sh", "-c", f"echo fine > {small.folder}/kept"])
    assert (small.folder / "kept").read_text() == "fine\n"
    small.run(["rm", "-rf", f"{folder}/.ballast"])
    small.run(["sh", "-c", write])


def test_a_node_stops_as_a_whole_and_goes_on(tmp_path: Path) -> None:
    with Node("paused", folder=tmp_path / "node") as node:
        ticking = node.spawn([sys.executable, "-c", TICK])
        ticking.wait_until(lambda: ticking.log_text().count("ok") > 2, timeout_s=30, what="ticking")
        node.pause()
        time.sleep(0.3)
        before = ticking.log_text()
        time.sleep(1)
        assert ticking.log_text() == before
        node.resume()
        ticking.wait_until(lambda: len(ticking.log_text()) > len(before), timeout_s=30, what="ticking again")
