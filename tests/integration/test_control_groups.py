"""A run's control group: whoever leaves its session on purpose ends with it, and nobody else does. Real cgroups."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronkeeper_worker import control_groups, run_files
from cronkeeper_worker.orders import Ended, Order, RunnerEvent, Started
from cronkeeper_worker.runner_client import RunnerClient
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import alive
from tests.harness.root_part import runners

pytestmark = pytest.mark.skipif(
    bool(control_groups.missing()), reason=f"takes a cgroup v2 that can be written: {control_groups.missing()}"
)
both_ways = pytest.mark.parametrize("cpu_s", [None, 3600], ids=["quick", "forked"])
#: Forks, leaves its session, and forks again; says who it is by a file in its folder.
_LEAVES = """(setsid sh -c '{trap} echo $$ >{name}.new; mv {name}.new {name}; while :; do sleep 1; done' \
</dev/null >/dev/null 2>&1 &) & """


def leaves(name: str, *, stubborn: bool = False) -> str:
    return _LEAVES.format(name=name, trap="trap : TERM;" if stubborn else "")


class Node:
    """A runner with a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[RunnerEvent] = []
        self.client = RunnerClient(folder, self.events.append, idle_s=0.5)
        self.client.ensure()
        self.base = self.groups()

    def groups(self) -> Path:
        _, _, path = (self.folder / control_groups.NOTE).read_text().rstrip("\n").partition(" ")
        return Path(path)

    def begin(self, run_id: str, command: str, **more: object) -> None:
        self.client.start([Order(run_id, "n", command=command, **more)])  # type: ignore[arg-type]
        until(lambda: any(isinstance(e, Started) and e.run_id == run_id for e in self.events))

    def stray(self, run_id: str, name: str = "stray") -> int:
        path = self.folder / "runs" / run_id / "work" / name
        until(path.exists)
        return int(path.read_text())

    def ended(self, run_id: str) -> Ended:
        def look() -> list[Ended]:
            return [event for event in self.events if isinstance(event, Ended) and event.run_id == run_id]

        until(look)
        return look()[0]

    def runs(self) -> set[str]:
        return {path.name for path in self.base.glob("run-*")}

    def kill_runner(self) -> None:
        (pid,) = runners(self.folder)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not self.client.is_connected)

    def log(self) -> str:
        return (self.folder / "runner.log").read_text()


def until(done: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not after {timeout_s:g} s"
        time.sleep(0.02)


@pytest.fixture
def node() -> Iterator[Node]:
    folder = make_folder("groups")
    node = Node(folder)
    yield node
    node.client.close()
    for path in node.base.glob("run-*"):
        for pid in map(int, (path / "cgroup.threads").read_text().split()):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any("populated 1" in (path / "cgroup.events").read_text() for path in node.base.glob("run-*")))
    until(lambda: not runners(folder))
    remove_folder(folder)
    # A runner that goes home leaves nothing in the kernel; one that was killed is cleaned up after by the next.
    assert not node.base.exists()


# ----------------------------------------------------------------------------------------------------------- the start


@both_ways
def test_a_run_is_in_a_group_of_its_own_from_its_first_instruction(node: Node, cpu_s: int | None) -> None:
    node.begin("1-0-1-1", "cat /proc/self/cgroup", cpu_s=cpu_s)
    told = node.ended("1-0-1-1").tail.splitlines()
    assert f"{told[-1][3:]}".endswith(f"/{node.base.name}/run-1-0-1-1")
    until(lambda: not node.runs())


@both_ways
def test_what_cannot_be_started_leaves_no_group(node: Node, cpu_s: int | None) -> None:
    node.client.start([Order("1-0-1-1", "n", argv=("/none/such",), cpu_s=cpu_s)])
    until(lambda: node.events)
    assert not node.runs()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it changes accounts")
@both_ways
def test_another_account_cannot_leave_its_group(node: Node, cpu_s: int | None) -> None:
    places = f"{node.base}/runner {node.base} {node.base.parent}"
    leave = f"for p in {places}; do echo $$ > $p/cgroup.threads; done; mkdir {node.base}/run-1-0-1-1/mine"
    text = f"{leave}; cat /proc/self/cgroup"
    node.begin("1-0-1-1", text, run_as="nobody", cpu_s=cpu_s)
    tail = node.ended("1-0-1-1").tail
    assert tail.count("Permission denied") == 4
    assert tail.rstrip().endswith("/run-1-0-1-1")


_BOUNDED = """
import sys
from cronkeeper_worker import run_files
from cronkeeper_worker.control_groups import ControlGroups, own_group
groups = ControlGroups(sys.argv[1], run_files.boot_id())
print(own_group())
with groups.around("1-0-1-1"):
    pass
groups.limit("1-0-1-1", 100)
try:
    with open(f"{own_group()}/../run-1-0-1-1/pids.max") as file:
        print(file.read())
finally:
    groups.remove("1-0-1-1")
    groups.close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="takes strace")
def test_a_run_is_bounded_where_the_kernel_can_and_else_nothing_is_tried(tmp_path: Path) -> None:
    """A file that is not there takes the kernel longer to find than one that is."""
    calls = tmp_path / "calls"
    argv = ["strace", "-qq", "-o", str(calls), "-e", "trace=openat", sys.executable, "-c", _BOUNDED, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    asked = [line for line in calls.read_text().splitlines() if "pids.max" in line and "O_WRONLY" in line]
    if done.returncode == 0:
        assert done.stdout.split()[1] == "100"
    else:
        assert "FileNotFoundError" in done.stderr and not asked


# ------------------------------------------------------------------------------------------------------------- the end


@both_ways
@pytest.mark.parametrize("stubborn", [False, True], ids=["obedient", "stubborn"])
def test_who_leaves_the_session_is_dead_after_a_cancel(node: Node, cpu_s: int | None, stubborn: bool) -> None:
    node.begin("1-0-1-1", leaves("stray", stubborn=stubborn) + "sleep 600", cpu_s=cpu_s, kill_after_s=1.0)
    stray = node.stray("1-0-1-1")
    node.client.cancel("1-0-1-1")
    assert node.ended("1-0-1-1").cancelled
    until(lambda: not alive(stray), timeout_s=5)
    until(lambda: not node.runs(), timeout_s=5)


def test_sigterm_comes_first_for_who_has_left_too(node: Node) -> None:
    trap = 'trap "echo cleaned up >told; exit" TERM'
    text = f"(setsid sh -c '{trap}; echo $$ >stray; while :; do sleep 0.1; done' &) & sleep 600"
    node.begin("1-0-1-1", text, kill_after_s=20.0)
    stray = node.stray("1-0-1-1")
    node.client.cancel("1-0-1-1")
    until(lambda: not alive(stray), timeout_s=10)
    assert (node.folder / "runs" / "1-0-1-1" / "work" / "told").read_text() == "cleaned up\n"
    node.ended("1-0-1-1")


def test_who_leaves_the_session_is_dead_after_a_time_out(node: Node) -> None:
    node.begin("1-0-1-1", leaves("stray", stubborn=True) + "sleep 600", timeout_s=1.0, kill_after_s=1.0)
    stray = node.stray("1-0-1-1")
    assert node.ended("1-0-1-1").timed_out
    until(lambda: not alive(stray), timeout_s=5)
    until(lambda: not node.runs(), timeout_s=5)


def test_who_is_somebody_else_every_moment_is_killed_frozen(node: Node) -> None:
    """Whoever reads who is there, and then kills those, may come too late: so first, none of them makes another."""
    hop = "import os\nos.setsid()\nwhile not os.path.exists('stop'):\n    if os.fork():\n        os._exit(0)\n"
    node.begin("1-0-1-1", f'for i in 1 2 3 4; do {sys.executable} -IS -c "{hop}" & done; sleep 600')
    groups = control_groups.ControlGroups(str(node.folder), run_files.boot_id())
    (runner,) = runners(node.folder)
    try:
        time.sleep(0.5)
        os.kill(runner, signal.SIGSTOP)
        groups.kill("1-0-1-1")
        assert (node.base / "run-1-0-1-1" / "cgroup.freeze").read_text() == "1\n"
        time.sleep(0.2)
        groups.kill("1-0-1-1")
        until(lambda: not groups.populated("1-0-1-1"), timeout_s=1)
    finally:
        os.kill(runner, signal.SIGCONT)
        (node.folder / "runs" / "1-0-1-1" / "work" / "stop").touch()
        groups.close()


def test_two_runs_do_not_touch_each_other(node: Node) -> None:
    for run_id in ("1-0-1-1", "1-0-1-11"):
        node.begin(run_id, leaves("stray", stubborn=True) + "sleep 600", kill_after_s=0.5)
    one, other = node.stray("1-0-1-1"), node.stray("1-0-1-11")
    node.client.cancel("1-0-1-1")
    until(lambda: not alive(one))
    until(lambda: node.runs() == {"run-1-0-1-11"})
    assert alive(other)
    assert len(node.client.running()) == 1
    node.client.cancel("1-0-1-11")
    until(lambda: not alive(other))


def test_who_outlives_a_run_that_ended_by_itself_goes_on_and_is_told(node: Node) -> None:
    """As under cron: a job may start a service, if it takes the trouble to leave its session."""
    node.begin("1-0-1-1", leaves("stray") + "while [ ! -e stray ]; do sleep 0.1; done")
    stray = node.stray("1-0-1-1")
    assert node.ended("1-0-1-1").exit_code == 0
    until(lambda: "1-0-1-1 has ended and left" in node.log())
    assert alive(stray)
    assert node.runs() == {"run-1-0-1-1"}


def test_one_without_strays_is_not_told(node: Node) -> None:
    node.begin("1-0-1-1", "sleep 600 & sleep 0.2")
    node.ended("1-0-1-1")
    until(lambda: not node.runs())
    assert "left" not in node.log()


# ---------------------------------------------------------------------------------------------- the death of the runner


def test_a_run_that_lost_its_runner_is_ended_with_all_that_left_it(node: Node) -> None:
    node.begin("1-0-1-1", leaves("stray", stubborn=True) + "sleep 600", kill_after_s=0.5)
    stray = node.stray("1-0-1-1")
    node.kill_runner()
    node.client.ensure()
    assert node.groups() == node.base
    node.client.cancel("1-0-1-1")
    assert node.ended("1-0-1-1").lost
    until(lambda: not alive(stray), timeout_s=5)
    until(lambda: not node.runs(), timeout_s=5)


def test_a_runner_that_is_started_from_elsewhere_finds_the_groups_of_before(node: Node) -> None:
    """As by cron, whose own group is another than the service's."""
    node.begin("1-0-1-1", leaves("stray", stubborn=True) + "sleep 600", kill_after_s=0.5)
    stray = node.stray("1-0-1-1")
    node.kill_runner()
    here = Path(control_groups.own_group())
    elsewhere = here / f"elsewhere-{os.getpid()}"
    elsewhere.mkdir()
    try:
        (elsewhere / "cgroup.procs").write_text(f"{os.getpid()}")
        node.client.ensure()
    finally:
        (here / "cgroup.procs").write_text(f"{os.getpid()}")
    assert node.groups() == node.base
    node.begin("1-0-2-1", "sleep 600", kill_after_s=0.5)
    assert node.runs() == {"run-1-0-1-1", "run-1-0-2-1"}
    for run_id in ("1-0-1-1", "1-0-2-1"):
        node.client.cancel(run_id)
    until(lambda: not alive(stray), timeout_s=5)
    until(lambda: not node.runs(), timeout_s=5)
    node.client.close()
    until(lambda: not runners(node.folder))
    elsewhere.rmdir()


def test_a_run_that_lost_its_runner_times_out_with_all_that_left_it(node: Node) -> None:
    node.begin("1-0-1-1", leaves("stray", stubborn=True) + "sleep 600", timeout_s=2.0, kill_after_s=0.5)
    stray = node.stray("1-0-1-1")
    node.kill_runner()
    node.client.ensure()
    assert node.ended("1-0-1-1").timed_out
    until(lambda: not alive(stray), timeout_s=5)


def test_a_runner_that_dies_in_the_grace_leaves_the_rest_to_the_next(node: Node) -> None:
    node.begin("1-0-1-1", leaves("stray", stubborn=True) + "sleep 600", kill_after_s=3.0)
    stray = node.stray("1-0-1-1")
    node.client.cancel("1-0-1-1")
    until(lambda: run_files.read_exit(str(node.folder / "runs" / "1-0-1-1")) is not None)
    assert alive(stray)
    node.kill_runner()
    node.client.ensure()
    until(lambda: not alive(stray), timeout_s=8)
    until(lambda: not node.runs(), timeout_s=5)


def test_a_runner_that_dies_as_it_kills_leaves_the_rest_to_the_next(node: Node) -> None:
    node.begin("1-0-1-1", leaves("stray") + "while [ ! -e stray ]; do sleep 0.1; done")
    stray = node.stray("1-0-1-1")
    node.ended("1-0-1-1")
    node.client.ack(["1-0-1-1"])
    node.kill_runner()
    (node.base / "run-1-0-1-1" / "cgroup.freeze").write_text("1")
    node.client.ensure()
    until(lambda: not alive(stray), timeout_s=5)
    until(lambda: not node.runs(), timeout_s=5)


def test_what_a_death_left_is_removed_by_the_next_start_here_or_beside(node: Node) -> None:
    node.begin("1-0-1-1", "sleep 0.5")
    node.kill_runner()
    until(lambda: "populated 0" in (node.base / "run-1-0-1-1" / "cgroup.events").read_text())
    beside = make_folder("groups-beside")
    other = Node(beside)
    assert not node.base.exists()
    assert other.base.exists()
    node.client.ensure()
    until(lambda: not node.runs())
    assert other.base.exists(), "the groups of a runner that lives were removed"
    other.client.close()
    until(lambda: not runners(beside))
    remove_folder(beside)
    assert not other.base.exists()
    node.ended("1-0-1-1")


# ------------------------------------------------------------------------------------------------------- without groups

_ALONE = """
import sys, time
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Order
executor = Executor(sys.argv[1])
print(executor.groups.reason)
executor.start(Order("1-0-1-1", "n", command="sleep 600 & echo $!", kill_after_s=0.5))
executor.start(Order("1-0-1-2", "n", command="sleep 600", timeout_s=0.5, cpu_s=60))
found = []
while len(found) < 2:
    found += [event for event in executor.poll(0.2) if isinstance(event, Ended)]
while not executor.idle:
    executor.poll(0.2)
print(sorted((event.exit_code, event.timed_out) for event in found if event.exit_code is not None), len(found))
print(*(event.tail for event in found))
executor.close()
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="takes root and unshare")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("umount -l -a -t cgroup2", "no cgroup v2 is mounted here"),
        ("for m in $(findmnt -rno TARGET -t cgroup2); do mount -o remount,bind,ro $m; done", "Read-only file system"),
    ],
    ids=["none", "read-only"],
)
def test_without_groups_runs_start_and_end_as_ever(make: str, reason: str) -> None:
    folder = make_folder("groups-none")
    line = f'{make}; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", line, "sh", sys.executable, "-c", _ALONE, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    first, second, child = done.stdout.split("\n")[:3]
    assert first.startswith(reason)
    assert second == "[(0, False)] 2"
    assert not alive(int(child.split()[0]))
    remove_folder(folder)
