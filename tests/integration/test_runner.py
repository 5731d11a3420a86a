"""The runner as a process of its own: what survives whose death, and that every end is told once somebody listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronkeeper.errors import UnavailableError
from cronkeeper_worker import run_files, runner_main
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Order, OrderError, RunnerEvent, RunnerLost, SpawnFailed, Started
from cronkeeper_worker.runner_client import RunnerClient
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import Process, alive

# A daemon that orders one run and then waits to be killed.
_DAEMON = """
import sys, time
from cronkeeper_worker.orders import Order
from cronkeeper_worker.runner_client import RunnerClient
client = RunnerClient(sys.argv[1], lambda event: print(event, flush=True))
client.ensure()
client.start([Order(sys.argv[2], "n", command=sys.argv[3])])
time.sleep(600)
"""


class Desk:
    """One client, with everything it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[RunnerEvent] = []
        self.client = RunnerClient(folder, self.events.append)

    def ended(self, run_id: str) -> list[Ended]:
        return [event for event in self.events if isinstance(event, Ended) and event.run_id == run_id]

    def started(self, run_id: str) -> list[Started]:
        return [event for event in self.events if isinstance(event, Started) and event.run_id == run_id]

    def lost(self) -> list[RunnerLost]:
        return [event for event in self.events if isinstance(event, RunnerLost)]

    def begin(self, order: Order) -> Started:
        self.client.start([order])
        until(lambda: self.started(order.run_id))
        return self.started(order.run_id)[0]


def until(done: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not after {timeout_s:g} s"
        time.sleep(0.02)


def runners(folder: Path) -> list[int]:
    """Return the pids of the runners of this state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and any(word.endswith(b"runner_main.py") for word in words):
            found.append(int(path.parent.name))
    # A child that is just being made still shows its parent's command line.
    return [pid for pid in found if alive(pid) and parent_of(pid) not in found]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("runner")
    yield folder
    for pid in runners(folder):
        os.kill(pid, signal.SIGKILL)
    for path in (folder / "runs").glob("*"):
        start = run_files.read_start(str(path))
        if start is not None and run_files.is_alive(start):
            os.killpg(start.pid, signal.SIGKILL)
    remove_folder(folder)


@pytest.fixture
def desk(folder: Path) -> Iterator[Desk]:
    desk = Desk(folder)
    desk.client.ensure()
    yield desk
    desk.client.close()


def kill_runner(folder: Path) -> None:
    (pid,) = runners(folder)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))


def test_a_run_is_told_from_start_to_end(desk: Desk, folder: Path) -> None:
    started = desk.begin(Order("1-0-1-1", "n", command="echo hello; sleep 0.5; exit 3"))
    assert desk.client.running() == [started]
    until(lambda: desk.ended("1-0-1-1"))
    (ended,) = desk.ended("1-0-1-1")
    assert (ended.exit_code, ended.tail, ended.lost) == (3, "hello\n", False)
    assert desk.client.running() == []
    assert (folder / "runs/1-0-1-1/output").read_text() == "hello\n"
    desk.client.ack(["1-0-1-1"])
    until(lambda: not (folder / "runs/1-0-1-1").exists())


def test_an_end_is_told_again_until_it_is_acknowledged(desk: Desk, folder: Path) -> None:
    desk.begin(Order("1-0-1-1", "n", command="true"))
    until(lambda: desk.ended("1-0-1-1"))
    desk.client.close()
    second = Desk(folder)
    second.client.ensure()
    until(lambda: second.ended("1-0-1-1"))
    assert second.ended("1-0-1-1") == desk.ended("1-0-1-1")
    second.client.ack(["1-0-1-1"])
    until(lambda: not (folder / "runs/1-0-1-1").exists())
    second.client.close()
    third = Desk(folder)
    third.client.ensure()
    third.begin(Order("1-0-2-1", "n", command="true"))
    assert not third.ended("1-0-1-1")
    third.client.close()


def test_the_daemon_is_killed_and_the_run_goes_on(folder: Path) -> None:
    proof = folder / "proof"
    command = f"echo begun >>{proof}; sleep 2; echo done >>{proof}; exit 5"
    daemon = Process(
        "daemon",
        [sys.executable, "-c", _DAEMON, str(folder), "1-0-1-1", command],
        log_path=folder / "daemon.log",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with daemon:
        daemon.wait_until(proof.exists, timeout_s=30, what="running its job")
        daemon.kill()
    desk = Desk(folder)
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert [event.exit_code for event in desk.ended("1-0-1-1")] == [5]
    assert proof.read_text() == "begun\ndone\n"
    desk.client.close()


def test_the_runner_is_killed_and_the_run_is_told_as_lost_when_it_ends(desk: Desk, folder: Path) -> None:
    started = desk.begin(Order("1-0-1-1", "n", command="sleep 600"))
    kill_runner(folder)
    until(desk.lost)
    assert not desk.client.is_connected
    with pytest.raises(UnavailableError):
        desk.client.start([Order("1-0-2-1", "n", command="true")])
    assert alive(started.pid)
    desk.client.ensure()
    until(lambda: desk.client.running() == [started])
    # What could not be sent is sent by itself.
    until(lambda: desk.ended("1-0-2-1"))
    assert not desk.ended("1-0-1-1")
    os.killpg(started.pid, signal.SIGKILL)
    until(lambda: desk.ended("1-0-1-1"))
    (ended,) = desk.ended("1-0-1-1")
    assert (ended.lost, ended.exit_code, ended.signal) == (True, None, None)
    assert desk.client.running() == []


def test_a_run_that_lost_its_runner_can_be_cancelled(desk: Desk, folder: Path) -> None:
    started = desk.begin(Order("1-0-1-1", "n", command="trap '' TERM; sleep 600; sleep 600", kill_after_s=1.0))
    kill_runner(folder)
    until(desk.lost)
    desk.client.ensure()
    desk.client.cancel("1-0-1-1")
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].cancelled
    assert not alive(started.pid)


def test_a_run_that_lost_its_runner_still_has_its_timeout(desk: Desk, folder: Path) -> None:
    desk.begin(Order("1-0-1-1", "n", command="sleep 600", timeout_s=1.0))
    kill_runner(folder)
    until(desk.lost)
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].timed_out


def test_what_ended_while_nobody_watched_is_found(desk: Desk, folder: Path) -> None:
    desk.begin(Order("1-0-1-1", "n", command="sleep 0.5"))
    kill_runner(folder)
    until(desk.lost)
    start = run_files.read_start(str(folder / "runs/1-0-1-1"))
    assert start is not None
    until(lambda: not run_files.is_alive(start))
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].lost


def forget_the_process(folder: Path) -> None:
    """Leave what a runner leaves that is killed after it made a process and before it wrote down which."""
    path = folder / "start.json"
    start = json.loads(path.read_text())
    path.write_text(json.dumps({**start, "pid": 0, "start_ticks": 0, "started_ms": start["started_ms"] - 60_000}))


def test_a_process_that_its_runner_had_no_time_to_write_down_is_found(desk: Desk, folder: Path) -> None:
    started = desk.begin(Order("1-0-1-1", "n", command="sleep 600"))
    kill_runner(folder)
    until(desk.lost)
    forget_the_process(folder / "runs/1-0-1-1")
    desk.client.ensure()
    assert [(event.run_id, event.pid) for event in desk.client.running()] == [("1-0-1-1", started.pid)]
    os.killpg(started.pid, signal.SIGKILL)
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].lost


def lose_without_a_trace(desk: Desk, folder: Path) -> None:
    """Kill the runner and then run 1-0-1-1, of whose process nothing was written down."""
    started = desk.begin(Order("1-0-1-1", "n", command="sleep 600"))
    kill_runner(folder)
    until(desk.lost)
    forget_the_process(folder / "runs/1-0-1-1")
    os.killpg(started.pid, signal.SIGKILL)
    until(lambda: not alive(started.pid))


def test_a_process_that_was_not_written_down_and_is_gone_is_lost(desk: Desk, folder: Path) -> None:
    """It may have run: nobody must be told that it was never started."""
    lose_without_a_trace(desk, folder)
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].lost


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it changes accounts")
def test_nobody_of_another_account_is_taken_for_a_run(desk: Desk, folder: Path) -> None:
    """It would be watched in the run's place, and ended with its cancel, by root."""
    lose_without_a_trace(desk, folder)
    with subprocess.Popen(
        ["/bin/sleep", "600"], env={"CRONKEEPER_RUN_ID": "1-0-1-1"}, start_new_session=True, user="nobody"
    ) as pretender:
        desk.client.ensure()
        desk.client.cancel("1-0-1-1")
        until(lambda: desk.ended("1-0-1-1"))
        assert desk.ended("1-0-1-1")[0].lost and pretender.poll() is None
        pretender.kill()


def test_a_run_made_by_another_process_is_left_to_it_to_tell(desk: Desk, folder: Path) -> None:
    """That is `cronkeeper-fire` at work; its exit code is the truth."""
    other = Executor(str(folder))
    other.start(Order("1-0-1-1", "n", command="sleep 1; exit 9"))
    while not other.running():
        other.poll(0.1)
    desk.client.close()
    second = Desk(folder)
    second.client.ensure()
    until(lambda: second.client.running())
    while not other.idle:
        other.poll(0.1)
    other.close()
    until(lambda: second.ended("1-0-1-1"))
    assert [(event.exit_code, event.lost) for event in second.ended("1-0-1-1")] == [(9, False)]
    second.client.close()


def test_a_run_whose_runner_died_before_it_began_is_lost_and_not_refused(folder: Path) -> None:
    """A runner killed between making the folder and letting the process go leaves a folder without a start. Nobody runs
    again what could not be started; what is lost is run again, if its job wants that."""
    Executor(str(folder)).close()
    (folder / "runs/1-0-1-1/work").mkdir(parents=True)
    desk = Desk(folder)
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].lost
    assert not desk.started("1-0-1-1")
    desk.client.close()


def test_cancel_reaches_the_run(desk: Desk) -> None:
    desk.begin(Order("1-0-1-1", "n", command="sleep 600"))
    desk.client.cancel("1-0-1-1")
    desk.client.cancel("no-such-run")
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].cancelled


def test_orders_that_make_no_sense_are_refused_before_they_are_sent(desk: Desk) -> None:
    with pytest.raises(OrderError):
        desk.client.start([Order("1-0-1-1", "n", command="true"), Order("../x", "n", command="true")])
    desk.begin(Order("1-0-2-1", "n", command="true"))
    assert not desk.started("1-0-1-1")


def test_there_is_one_runner_however_many_ask_for_it(folder: Path) -> None:
    desks = [Desk(folder) for _ in range(6)]
    threads = [threading.Thread(target=desk.client.ensure) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(runners(folder)) == 1)
    assert all(desk.client.is_connected for desk in desks)
    for desk in desks:
        desk.client.close()


def test_a_runner_of_another_protocol_keeps_its_runs_and_makes_room(desk: Desk, folder: Path) -> None:
    """The old runner is told to finish over the wire, as a newer client would; the new one hears the true exit code."""
    started = desk.begin(Order("1-0-1-1", "n", command="sleep 2; exit 6"))
    (old,) = runners(folder)
    with socket.socket(socket.AF_UNIX) as newer:
        newer.connect(str(folder / runner_main.SOCKET))
        newer.sendall(b'{"op": "hello", "protocol": 99}\n')
        hello = json.loads(newer.makefile().readline())
        assert hello == {"op": "hello", "protocol": runner_main.PROTOCOL, "pid": old, "signed": False}
        newer.sendall(b'{"op": "finish"}\n')
        until(lambda: not (folder / runner_main.SOCKET).exists())
    second = Desk(folder)
    second.client.ensure()
    assert len(runners(folder)) == 2
    assert second.client.running() == [started]
    until(lambda: second.ended("1-0-1-1"))
    assert second.ended("1-0-1-1")[0].exit_code == 6
    until(lambda: old not in runners(folder))
    second.client.close()


# 4: it gives no run a control group, and does not say so.
@pytest.mark.parametrize("protocol", [0, 4])
def test_a_client_tells_a_runner_of_another_protocol_to_finish_and_starts_its_own(folder: Path, protocol: int) -> None:
    heard: list[bytes] = []
    path = folder / runner_main.SOCKET
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(path))
    old.listen()

    def serve() -> None:
        connection, _ = old.accept()
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            hello = {"op": "hello", "protocol": protocol, "pid": 1, "signed": False}
            connection.sendall(json.dumps(hello).encode() + b"\n")
            heard.append(lines.readline())
            path.unlink()
            old.close()

    thread = threading.Thread(target=serve)
    thread.start()
    desk = Desk(folder)
    desk.client.ensure()
    thread.join(30)
    assert heard == [b'{"op": "finish"}\n']
    desk.begin(Order("1-0-1-1", "n", command="true"))
    desk.client.close()


def test_a_runner_without_work_and_without_a_daemon_goes_home(folder: Path) -> None:
    events: list[RunnerEvent] = []
    client = RunnerClient(folder, events.append, idle_s=1.0)
    client.ensure()
    client.start([Order("1-0-1-1", "n", command="sleep 3")])
    until(lambda: events)
    client.close()
    (pid,) = runners(folder)
    start = run_files.read_start(str(folder / "runs/1-0-1-1"))
    assert start is not None
    until(lambda: not run_files.is_alive(start))
    assert runners(folder) == [pid]
    until(lambda: not runners(folder))
    assert not (folder / runner_main.SOCKET).exists()
    # What it knew is still there to be told.
    desk = Desk(folder)
    desk.client.ensure()
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].exit_code == 0
    desk.client.close()


def test_a_client_that_talks_nonsense_is_cut_off_alone(desk: Desk, folder: Path) -> None:
    for nonsense in (b"\n", b"[]\n", b'{"op": "no such"}\n', b'{"op": "start", "orders": 1}\n', b"\xff\xfe\n"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(str(folder / runner_main.SOCKET))
            stranger.sendall(nonsense)
            assert stranger.recv(100) == b""
    desk.begin(Order("1-0-1-1", "n", command="true"))


def test_sigterm_lets_the_runs_end_first(desk: Desk, folder: Path) -> None:
    desk.begin(Order("1-0-1-1", "n", command="sleep 1; exit 8"))
    (pid,) = runners(folder)
    os.kill(pid, signal.SIGTERM)
    until(lambda: desk.ended("1-0-1-1"))
    assert desk.ended("1-0-1-1")[0].exit_code == 8
    until(lambda: not runners(folder))


def test_the_runner_is_small_and_loads_nothing_of_ours_but_its_own(desk: Desk, folder: Path) -> None:
    for number in range(50):
        desk.client.start([Order(f"1-0-{number}-1", "n", command="echo x")])
    until(lambda: sum(isinstance(event, Ended) for event in desk.events) == 50)
    (pid,) = runners(folder)
    status = Path(f"/proc/{pid}/status").read_text()
    resident_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident_kib < 20 * 1024
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "libssl" not in maps and "libcrypto" not in maps and "site-packages" not in maps
    assert (folder / runner_main.SOCKET).stat().st_mode & 0o777 == 0o600
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_thousand_orders_in_one_message_run_once_each(desk: Desk, folder: Path) -> None:
    orders = [Order(f"1-0-{number}-1", "n", command=f"echo {number} >>{folder}/proof") for number in range(1000)]
    desk.client.start(orders)
    until(lambda: sum(isinstance(event, Ended) for event in desk.events) >= 1000, timeout_s=120)
    assert sorted(map(int, (folder / "proof").read_text().split())) == list(range(1000))
    desk.client.ack([order.run_id for order in orders])
    until(lambda: not any((folder / "runs").iterdir()), timeout_s=60)


@pytest.mark.parametrize(
    ("run_as", "in_the_air"),
    [
        (None, 2),
        # Those that are made together are all in the air at once.
        pytest.param("nobody", 33, marks=pytest.mark.skipif(os.geteuid() != 0, reason="takes root")),
    ],
)
def test_a_thousand_orders_survive_the_death_of_the_runner_among_them(
    desk: Desk, folder: Path, run_as: str | None, in_the_air: int
) -> None:
    """Killed in the middle: whatever was started ran once, what was not is started by the next runner."""
    folder.chmod(0o711)
    (folder / "proof").touch()
    (folder / "proof").chmod(0o666)
    orders = [
        Order(f"1-0-{number}-1", "n", command=f"echo {number} >>{folder}/proof", run_as=run_as) for number in range(300)
    ]
    desk.client.start(orders)
    until(lambda: sum(isinstance(event, Started) for event in desk.events) > 50)
    kill_runner(folder)
    until(desk.lost)
    desk.client.ensure()
    told = {order.run_id for order in orders}
    until(
        lambda: told == {event.run_id for event in desk.events if isinstance(event, (Ended, SpawnFailed))},
        timeout_s=120,
    )
    ran = (folder / "proof").read_text().split()
    assert len(ran) == len(set(ran))
    # The few that were in the air at that moment may not have been executed; nobody is told that those succeeded.
    executed = {f"1-0-{number}-1" for number in ran}
    failed = {event.run_id for event in desk.events if isinstance(event, SpawnFailed)}
    lost = {event.run_id for event in desk.events if isinstance(event, Ended) and event.lost}
    assert executed | failed | lost == told
    assert not executed & failed
    assert len(told - executed) <= in_the_air
