"""Many runs of one account at one time: one process makes all of theirs, and whoever hurts it hurts nobody else."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cronkeeper_worker import control_groups, litter, our_process, run_files, together
from cronkeeper_worker.accounts import Account
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.launched import Job
from cronkeeper_worker.orders import Ended, Expired, Order, RunEvent, Secret, SpawnFailed, Started
from cronkeeper_worker.remains import boot_s
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import alive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it changes accounts")

_MANY = 12


class Herd:
    """An executor, and what it has told of each run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.executor = Executor(str(folder), log=self.said.append)
        self.events: list[RunEvent] = []

    def run(self, commands: list[str], *, run_as: str = "nobody", timeout_s: float = 30.0) -> list[Ended | SpawnFailed]:
        """Order all of them at once, and return how they ended, in their order."""
        first = len(self.events)
        names = [f"{first + 1}-0-{number}-1" for number in range(len(commands))]
        for name, command in zip(names, commands, strict=True):
            self.executor.start(Order(name, "n", command=command, run_as=run_as, kill_after_s=1))
        self.until(lambda: all(self.end(name) for name in names), timeout_s)
        return [end for name in names if (end := self.end(name)) is not None]

    def until(self, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"not after {timeout_s:g} s; told so far: {self.events[-5:]}"
            self.events += self.executor.poll(0.2)

    def end(self, name: str) -> Ended | SpawnFailed | None:
        return next((e for e in self.events if isinstance(e, (Ended, SpawnFailed)) and e.run_id == name), None)


@pytest.fixture
def herd() -> Iterator[Herd]:
    folder = make_folder("together")
    herd = Herd(folder)
    yield herd
    for run in herd.executor.running():
        os.killpg(run.pid, signal.SIGKILL)
    herd.executor.close()
    remove_folder(folder)


@pytest.fixture
def litters(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were made together, each time."""
    sizes: list[int] = []
    make = litter.make

    def counted(*args: object) -> tuple[list[litter.Outcome], bool]:
        sizes.append(len(args[0]))  # type: ignore[arg-type]
        return make(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(litter, "make", counted)
    return sizes


def exits(ends: list[Ended | SpawnFailed]) -> list[int | None]:
    return [end.exit_code if isinstance(end, Ended) else None for end in ends]


def test_each_is_what_it_would_be_alone(herd: Herd, litters: list[int]) -> None:
    facts = "cat /proc/self/status; umask; ulimit -n; ulimit -c; pwd; ls /proc/self/fd; cat /proc/self/cgroup"
    ends = herd.run([facts, *[f"echo {number}; exit {number}" for number in range(1, _MANY)]])
    assert litters == [_MANY]
    assert exits(ends) == list(range(_MANY))
    assert [end.tail for end in ends[1:] if isinstance(end, Ended)] == [f"{number}\n" for number in range(1, _MANY)]
    alone = herd.run([facts])
    assert litters == [_MANY]
    # What the kernel counts differs; what it sets must not.
    told = [_settings(end) for end in (ends[0], alone[0])]
    assert told[0] == told[1]
    assert {"Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "Umask:\t0077"} <= set(told[0])


def _settings(end: Ended | SpawnFailed) -> list[str]:
    assert isinstance(end, Ended)
    kept = ("Umask", "Uid", "Gid", "Groups", "Sig", "Shd", "Cap", "NoNewPrivs", "Seccomp", "Threads", "CoreDumping")
    # Two real-time signals are the C library's own: posix_spawn ignores them, and the C library of a job sets them.
    tail = end.tail.replace(end.run_id, "RUN").replace("SigIgn:\t0000000180000000", "SigIgn:\t0000000000000000")
    lines = tail.splitlines()
    last = next(number for number, line in enumerate(lines) if line.startswith("nonvoluntary"))
    return [line for line in lines[:last] if line.startswith(kept) and not line.startswith("SigQ")] + lines[last + 1 :]


def test_they_are_our_children_and_lead_sessions(herd: Herd, litters: list[int]) -> None:
    for number in range(_MANY):
        herd.executor.start(Order(f"1-0-{number}-1", "n", command="/bin/sleep 60", run_as="nobody", timeout_s=60))
    herd.until(lambda: len(herd.executor.running()) == _MANY)
    assert litters == [_MANY]
    for run in herd.executor.running():
        with open(f"/proc/{run.pid}/stat") as file:
            parent, group, session = file.read().rpartition(")")[2].split()[1:4]
        assert (int(parent), int(group), int(session)) == (os.getpid(), run.pid, run.pid)
        start = run_files.read_start(str(herd.folder / "runs" / run.run_id))
        assert start is not None and run_files.is_alive(start) and start.pid == run.pid
    for number in range(_MANY):
        herd.executor.cancel(f"1-0-{number}-1")
    herd.until(lambda: all(herd.end(f"1-0-{number}-1") for number in range(_MANY)))
    ends = [herd.end(f"1-0-{number}-1") for number in range(_MANY)]
    assert all(isinstance(end, Ended) and end.cancelled and end.signal == signal.SIGTERM for end in ends)


def test_what_cannot_be_executed_is_told_as_if_it_were_alone(herd: Herd, litters: list[int], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("echo by a shell\n")
    text.chmod(0o755)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder != Path("/tmp") and folder != Path("/"):
            folder.chmod(0o755)
    ends = herd.run(["/bin/true", "/nowhere/program x", str(text), "/etc", "exit 3", "/bin/false"])
    assert litters == [6]
    assert exits(ends) == [0, 127, 0, 126, 3, 1]
    assert isinstance(ends[2], Ended) and ends[2].tail == "by a shell\n"


def test_who_kills_what_makes_them_hurts_nobody(herd: Herd, litters: list[int]) -> None:
    """Each job tries to kill its parent, which is of its account for a moment, and then us."""
    ends = herd.run(["kill -9 $PPID; exit 7"] * 40)
    assert litters and herd.said == ["runs of nobody are made one by one for a minute: not all could be made together"]
    assert exits(ends).count(7) >= 40 - len(litters), "one that was about to be made is lost, if there is one"
    assert all(isinstance(end, Ended) and (end.lost or end.exit_code == 7) for end in ends)


def test_who_stops_what_makes_them_holds_nobody_up(herd: Herd, litters: list[int]) -> None:
    begun_s = time.monotonic()
    ends = herd.run(["kill -STOP $PPID; exit 7"] * 40)
    assert 1 <= len(litters) <= 2 and time.monotonic() - begun_s < 15, "one is stopped, and then there is none"
    assert exits(ends).count(7) >= 40 - len(litters)
    assert all(isinstance(end, Ended) and (end.lost or end.exit_code == 7) for end in ends)


def test_nobody_waits_for_a_second_one_that_is_stopped(
    herd: Herd, litters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped between two jobs: what has become of each is known, and yet everybody has waited."""
    us, calls = os.getpid(), list[int]()

    def stops(_order: Order) -> bool:
        if os.getpid() != us:
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGSTOP)
        return False

    monkeypatch.setattr(together, "has_expired", stops)
    assert exits(herd.run(["exit 7"] * _MANY)) == [7] * _MANY
    assert litters == [_MANY] and len(herd.said) == 1


def test_without_one_that_makes_them_each_is_made_alone(
    herd: Herd, litters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no such account any more")

    monkeypatch.setattr(herd.executor._launcher, "become", fails)
    assert exits(herd.run([f"exit {number}" for number in range(_MANY)])) == list(range(_MANY))
    assert litters == [_MANY]
    assert exits(herd.run(["exit 1"] * _MANY)) == [1] * _MANY
    assert litters == [_MANY], "for a minute nobody tries again"
    herd.executor._launcher._together._slow_until.clear()
    monkeypatch.undo()
    assert exits(herd.run(["exit 1"] * _MANY)) == [1] * _MANY


def test_what_is_too_late_is_not_made(herd: Herd, litters: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is good when it is looked at, and not any more when its turn comes; those beside it go on."""
    prepare = herd.executor._launcher.prepare

    def slow(*args: Any, **more: Any) -> Job:
        time.sleep(0.05)
        return prepare(*args, **more)

    monkeypatch.setattr(herd.executor._launcher, "prepare", slow)
    for number in range(_MANY):
        expires_s = boot_s() + (0.2 if number % 2 else 60)
        herd.executor.start(Order(f"1-0-{number}-1", "n", command="exit 4", run_as="nobody", expires_boot_s=expires_s))
    herd.until(lambda: sum(isinstance(event, (Ended, Expired)) for event in herd.events) == _MANY)
    expired = [event.run_id for event in herd.events if isinstance(event, Expired)]
    assert expired == [f"1-0-{number}-1" for number in range(1, _MANY, 2)]
    assert sorted(os.listdir(herd.folder / "runs")) == sorted(f"1-0-{number}-1" for number in range(0, _MANY, 2))
    assert litters == [_MANY] and not herd.said


def test_who_waits_for_those_before_it_is_not_started_late(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, too: to look an account up may take a network's time."""
    find = herd.executor._launcher._accounts.get
    asked: list[str | None] = []

    def slow(name: str | None) -> Account:
        asked.append(name)
        time.sleep(0.2)
        return find(name)

    monkeypatch.setattr(herd.executor._launcher._accounts, "get", slow)
    for number in range(3):
        order = Order(f"1-0-{number}-1", "n", command="exit 4", run_as="nobody", expires_boot_s=boot_s() + 0.3)
        herd.executor.start(order)
    herd.until(lambda: sum(isinstance(event, (Ended, Expired)) for event in herd.events) == 3)
    assert asked and sum(isinstance(event, Expired) for event in herd.events) == 3


def test_one_order_twice_is_one_run(herd: Herd, tmp_path: Path) -> None:
    for _ in range(3):
        for number in range(4):
            herd.executor.start(Order(f"1-0-{number}-1", "n", command="echo once >>mine; cat mine", run_as="nobody"))
    herd.until(lambda: all(herd.end(f"1-0-{number}-1") for number in range(4)) and herd.executor.idle)
    ends = [herd.end(f"1-0-{number}-1") for number in range(4)]
    assert [end.tail for end in ends if isinstance(end, Ended)] == ["once\n"] * 4
    assert all(isinstance(e, (Started, Ended)) for e in herd.events)


def test_secrets_reach_their_own_run_only(herd: Herd) -> None:
    for number in range(_MANY):
        secrets = {"TOKEN": Secret(f"secret-{number}", as_file=number % 2 == 1)}
        command = 'cat "$TOKEN" 2>/dev/null || echo "$TOKEN"'
        herd.executor.start(
            Order(
                f"1-0-{number}-1", "n", command=f"({command}) | sed s/secret/known/", run_as="nobody", secrets=secrets
            )
        )
    herd.until(lambda: all(herd.end(f"1-0-{number}-1") for number in range(_MANY)))
    for number in range(_MANY):
        end = herd.end(f"1-0-{number}-1")
        assert isinstance(end, Ended) and end.tail.strip() == f"known-{number}"


def test_with_few_descriptors_they_are_made_one_by_one(herd: Herd, litters: list[int]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 130, before[1]))
    try:
        ends = herd.run(["exit 1"] * 32)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert exits(ends) == [1] * 32 and not litters


@pytest.mark.parametrize("command", ["sleep 1; exit 7", "exit 7"], ids=["alive", "ended"])
def test_a_job_whose_maker_died_before_it_said_so_is_found(
    herd: Herd, litters: list[int], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Among our children, by its control group: an ended one is there until we reap it."""
    make_one = litter._make_one

    def make_and_die(job: litter.Wanted, null_fd: int) -> tuple[int, int]:
        make_one(job, null_fd)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(litter, "_make_one", make_and_die)
    ends = herd.run([command] * _MANY)
    assert exits(ends) == [7] * _MANY
    assert litters == [_MANY] and len(herd.said) == 1


def test_nobody_is_taken_for_a_job(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the run's name in its environment, leads a session and stands in the run's folder, and is no child of
    ours: a batch is killed just then."""

    def die(_job: litter.Wanted, _null_fd: int) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(litter, "_make_one", die)
    pretender = subprocess.Popen(["/bin/sleep", "60"], env={"CRONKEEPER_RUN_ID": "1-0-0-1"}, start_new_session=True)
    try:
        ends = herd.run(["exit 7"] * _MANY)
        assert [end.lost for end in ends if isinstance(end, Ended)] == [True] + [False] * (_MANY - 1)
        assert exits(ends) == [None] + [7] * (_MANY - 1)
        assert pretender.poll() is None
    finally:
        pretender.kill()
        pretender.wait()


def test_a_run_without_a_group_is_in_nobody_elses(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = herd.executor.groups
    if groups.reason:
        pytest.skip(groups.reason)
    made = control_groups._make

    def fails_for_one(path: str) -> None:
        if path.endswith("1-0-1-1"):
            raise OSError(28, "No space left on device")
        made(path)

    monkeypatch.setattr(control_groups, "_make", fails_for_one)
    ends = herd.run(["cat /proc/self/cgroup"] * _MANY)
    told = [end.tail.splitlines()[-1].rpartition("/")[2] for end in ends if isinstance(end, Ended)]
    assert told == ["run-1-0-0-1", "runner", *[f"run-1-0-{number}-1" for number in range(2, _MANY)]]


def test_what_cannot_be_watched_is_not_told_as_never_started(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is a moment old: it may have done all that it was to do."""
    opened = os.pidfd_open

    def fails_once(pid: int) -> int:
        monkeypatch.setattr(os, "pidfd_open", opened)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "pidfd_open", fails_once)
    ends = herd.run(["exit 7"] * _MANY)
    assert [isinstance(end, Ended) and end.lost for end in ends] == [True] + [False] * (_MANY - 1)
    assert exits(ends)[1:] == [7] * (_MANY - 1)


def test_a_text_that_is_none_hurts_its_own_run_only(herd: Herd, litters: list[int]) -> None:
    for number in range(_MANY):
        env = {"TEXT": "\ud800"} if number == 3 else {}
        herd.executor.start(Order(f"1-0-{number}-1", "n", command="exit 7", run_as="nobody", env=env))
    herd.until(lambda: all(herd.end(f"1-0-{number}-1") for number in range(_MANY)))
    ends = [end for number in range(_MANY) if (end := herd.end(f"1-0-{number}-1")) is not None]
    assert isinstance(ends.pop(3), SpawnFailed) and exits(ends) == [7] * (_MANY - 1)
    assert litters == [_MANY - 1] and not herd.said


@pytest.mark.parametrize("before", ["", "os.kill(maker, signal.SIGSTOP)"], ids=["at-work", "stopped"])
def test_nothing_more_is_made_once_the_runner_is_dead(herd: Herd, tmp_path: Path, before: str) -> None:
    """Nor does its maker stay: it would hold nothing up, but be there for ever."""
    script = tmp_path / "other.py"
    script.write_text(
        "import sys, os, time, signal\n"
        "from cronkeeper_worker import litter\n"
        "from cronkeeper_worker.executor import Executor\nfrom cronkeeper_worker.orders import Order\n"
        "make_one = litter._make_one\n"
        "def slow(job, null):\n    made = make_one(job, null)\n    time.sleep(0.02)\n    return made\n"
        "litter._make_one = slow\n"
        "listen = litter._listen\n"
        f"def die(words, maker):\n    os.read(words, 1)\n    {before or 'pass'}\n    print(maker, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "litter._listen = die\n"
        "other = Executor(sys.argv[1])\n"
        "for number in range(12):\n"
        "    other.start(Order(f'1-0-{number}-1', 'n', command=f'touch made; exec sleep 1', run_as='nobody'))\n"
        "other.poll(1)\n"
    )
    place = herd.folder / "other"
    done = subprocess.run(
        [sys.executable, str(script), str(place)], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    maker = int(done.stdout)
    deadline = time.monotonic() + 10
    while alive(maker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(os.listdir(place / "runs")) == 12
    assert len(list(place.glob("runs/*/*/made"))) <= 3


def test_nothing_is_left_open(herd: Herd) -> None:
    herd.run(["exit 1"] * _MANY)
    before, children = sorted(os.listdir("/proc/self/fd")), our_process.children()
    herd.run(["exit 1", "/nowhere/x", "kill -9 $PPID"] * _MANY)
    herd.until(lambda: herd.executor.idle)
    assert sorted(os.listdir("/proc/self/fd")) == before
    # One that was being made when its maker was killed may have come to us unknown.
    herd.executor.remains._reap_strays()
    assert our_process.children() <= children


def test_a_root_job_is_never_among_them(herd: Herd, litters: list[int]) -> None:
    ends = herd.run(["grep NoNewPrivs /proc/self/status"] * _MANY, run_as="root")
    assert not litters
    assert {end.tail for end in ends if isinstance(end, Ended)} == {"NoNewPrivs:\t0\n"}
