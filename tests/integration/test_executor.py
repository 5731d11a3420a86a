"""Real processes under the executor: how they begin, what they may, and how they end."""

from __future__ import annotations

import errno
import hashlib
import json
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

from cronkeeper_worker import run_files, spawn
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Expired, Order, RunEvent, Secret, SpawnFailed, Started
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import alive

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: it changes accounts")
#: A plain command line takes the quick way into the process; a limit makes it take the other one.
both_ways = pytest.mark.parametrize("cpu_s", [None, 3600], ids=["quick", "forked"])


class Bench:
    """An executor with everything that it has told so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.executor = Executor(str(folder))
        self.events: list[RunEvent] = []

    def until(self, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"not after {timeout_s:g} s; told so far: {self.events[-5:]}"
            self.events += self.executor.poll(0.2)

    def ended(self, run_id: str) -> Ended | None:
        return next((event for event in self.events if isinstance(event, Ended) and event.run_id == run_id), None)

    def started(self, run_id: str) -> Started | None:
        return next((event for event in self.events if isinstance(event, Started) and event.run_id == run_id), None)

    def failed(self, run_id: str) -> SpawnFailed | None:
        return next((e for e in self.events if isinstance(e, SpawnFailed) and e.run_id == run_id), None)

    def begin(self, order: Order) -> Started:
        self.executor.start(order)
        self.until(lambda: self.started(order.run_id) is not None)
        started = self.started(order.run_id)
        assert started is not None
        return started

    def run(self, order: Order) -> Ended:
        self.executor.start(order)
        self.until(lambda: self.ended(order.run_id) is not None or self.failed(order.run_id) is not None)
        ended = self.ended(order.run_id)
        assert ended is not None, self.failed(order.run_id)
        return ended

    def refuse(self, order: Order) -> str:
        self.executor.start(order)
        self.until(lambda: self.failed(order.run_id) is not None)
        assert self.ended(order.run_id) is None
        failed = self.failed(order.run_id)
        assert failed is not None
        return failed.message

    def output(self, run_id: str) -> bytes:
        return (self.folder / "runs" / run_id / "output").read_bytes()


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = make_folder("executor")
    bench = Bench(folder)
    yield bench
    for run in bench.executor.running():
        os.killpg(run.pid, signal.SIGKILL)
    bench.executor.close()
    remove_folder(folder)


@pytest.fixture
def folder_fd() -> Iterator[int]:
    fd = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


def artifact(folder: Path, name: str, content: bytes) -> dict[str, str]:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o555)
    return {"executable": str(path), "sha256": hashlib.sha256(content).hexdigest()}


# ----------------------------------------------------------------------------------------------------- how it ends


@both_ways
@pytest.mark.parametrize(
    ("command", "exit_code", "ended_by"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exit 137", 137, None),
        ("kill -KILL $$", None, signal.SIGKILL),
        ("kill -SEGV $$", None, signal.SIGSEGV),
    ],
)
def test_exit_code_and_signal_are_told_apart(
    bench: Bench, command: str, exit_code: int | None, ended_by: int | None, cpu_s: int | None
) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command=command, cpu_s=cpu_s))
    assert (ended.exit_code, ended.signal) == (exit_code, ended_by)
    assert not ended.timed_out and not ended.cancelled and not ended.lost


@pytest.mark.parametrize("account", [None, pytest.param("nobody", marks=root_only)])
def test_what_cannot_be_executed_itself_is_the_shells_to_judge(bench: Bench, account: str | None) -> None:
    folder = make_folder("programs")
    folder.chmod(0o755)
    text, program = folder / "text", folder / "program"
    text.write_text("echo $# by a shell; cat $KEY; exit 7\n")
    program.write_text("#!/nowhere/interpreter\n")
    try:
        for path in (text, program):
            path.chmod(0o755)
        secrets = {"KEY": Secret("not a word of the output\n", as_file=True)}
        ended = bench.run(Order("1-0-1-1", "n", command=f"{text} a b", run_as=account, secrets=secrets))
        assert (ended.exit_code, ended.tail) == (7, "2 by a shell\n***")
        ended = bench.run(Order("1-0-2-1", "n", command=str(program), run_as=account))
        assert ended.exit_code == 127 and "not found" in ended.tail
        ended = bench.run(Order("1-0-3-1", "n", command=f"{folder} x", run_as=account))
        assert ended.exit_code == 126 and "Permission denied" in ended.tail
    finally:
        remove_folder(folder)
    ended = bench.run(Order("1-0-4-1", "n", command="/usr/bin/env", run_as=account))
    assert f"PWD={bench.folder / 'runs/1-0-4-1/work'}\n" in ended.tail


def holding(monkeypatch: pytest.MonkeyPatch, said: bytes = b"") -> None:
    """Have the next program that is executed itself stand still before that, as one on a disk that hangs.

    What it has `said` of its reason is all that it will say. SIGCONT lets it go on.
    """
    whole = spawn.fork_and_execute

    def hold(*args: Any) -> int:
        monkeypatch.setattr(spawn, "fork_and_execute", whole)
        argv, environment, _null, output, status, status_end, _account = args
        pid = os.fork()
        if pid == 0:
            os.close(status)
            os.setsid()
            os.dup2(output, 1)
            for number in (signal.SIGTERM, signal.SIGCONT):
                signal.signal(number, lambda *_: None)  # as the runner's own are heard
            os.write(status_end, said)
            os.kill(os.getpid(), signal.SIGSTOP)
            if not said:
                os.execve(argv[0], argv, environment)
            os._exit(255)
        return pid

    monkeypatch.setattr(spawn, "fork_and_execute", hold)


@both_ways
@pytest.mark.parametrize("command", ["/bin/sleep 60", "sleep 60; true"])
def test_a_process_that_cannot_be_watched_does_not_live(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: str, cpu_s: int | None
) -> None:
    made: list[int] = []

    def refuse(pid: int) -> int:
        made.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert "Too many open files" in bench.refuse(Order("1-0-1-1", "n", command=command, cpu_s=cpu_s))
    assert made and not any(map(alive, made))


@pytest.mark.parametrize("said", [b"OSError:", b"OSError:2:"])
def test_who_is_stopped_amid_its_reason_holds_up_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    """Any process of the same account can do that to it, between its fork and its end."""
    holding(monkeypatch, said)
    bench.executor.start(Order("1-0-1-1", "n", command="/bin/true", timeout_s=1))
    assert bench.run(Order("1-0-2-1", "n", command="/bin/true")).exit_code == 0
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    ended = bench.ended("1-0-1-1")
    assert ended is not None and ended.timed_out and ended.exit_code is None
    assert bench.started("1-0-1-1") is None


@pytest.mark.parametrize("by", ["cancel", "time-out"])
def test_a_signal_that_came_before_the_program_was_executed_is_sent_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    holding(monkeypatch)
    order = Order("1-0-1-1", "n", command="/bin/sleep 60", timeout_s=1 if by == "time-out" else None, kill_after_s=600)
    bench.executor.start(order)
    bench.executor.poll(0)
    if by == "cancel":
        bench.executor.cancel("1-0-1-1")
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    ended = bench.ended("1-0-1-1")
    assert ended is not None and ended.signal == signal.SIGTERM
    assert (ended.cancelled, ended.timed_out) == (by == "cancel", by == "time-out")


def test_a_program_that_is_refused_too_late_is_not_begun_again_by_the_shell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("echo executed\n")
    text.chmod(0o755)
    holding(monkeypatch)
    expires = time.clock_gettime(time.CLOCK_BOOTTIME) + 0.5
    bench.executor.start(Order("1-0-1-1", "n", command=str(text), expires_boot_s=expires))
    bench.executor.poll(0)
    time.sleep(0.6)
    (run,) = bench.executor._runs.values()
    os.kill(run.pid, signal.SIGKILL)
    bench.until(lambda: bool(bench.events))
    # Killed before it said anything: for all that is known it was executed.
    assert [type(event) for event in bench.events][:1] == [Started]
    holding(monkeypatch, b"OSError:8:")
    expires = time.clock_gettime(time.CLOCK_BOOTTIME) + 0.5
    bench.executor.start(Order("1-0-2-1", "n", command=str(text), expires_boot_s=expires))
    bench.executor.poll(0)
    time.sleep(0.6)
    os.kill(bench.executor._runs["1-0-2-1"].pid, signal.SIGCONT)
    bench.until(lambda: Expired("1-0-2-1") in bench.events)
    assert not (bench.folder / "runs" / "1-0-2-1").exists()


def test_what_the_shell_is_left_with_holds_up_nobody_and_ends_in_time(bench: Bench, tmp_path: Path) -> None:
    """Descriptors are given away again at once: news of the one before must not be taken for the next one's."""
    text = tmp_path / "text"
    text.write_text("sleep 60\n")
    text.chmod(0o755)
    for number in range(20):
        bench.executor.start(Order(f"1-0-{number}-1", "n", command=str(text), timeout_s=1))
    began = time.monotonic()
    bench.until(lambda: all(bench.ended(f"1-0-{number}-1") for number in range(20)))
    assert time.monotonic() - began < 20
    assert all(ended.timed_out for ended in bench.events if isinstance(ended, Ended))


def test_a_cancelled_program_that_is_refused_is_told_as_cancelled(bench: Bench) -> None:
    for number in range(10):
        run_id = f"1-0-{number}-1"
        bench.executor.start(Order(run_id, "n", command="/nowhere/program"))
        bench.executor.poll(0)
        bench.executor.cancel(run_id)
        bench.until(lambda run_id=run_id: bench.ended(run_id) is not None)  # type: ignore[misc]
        ended = bench.ended(run_id)
        # Either the shell has had its say already, or it is told as what it was.
        assert ended is not None and (ended.cancelled or ended.exit_code == 127)


@both_ways
def test_the_notes_of_a_run_tell_the_same_as_the_events(bench: Bench, cpu_s: int | None) -> None:
    ended = bench.run(Order("1-0-1-1", "the-nonce", command="echo hello; exit 4", timeout_s=60, cpu_s=cpu_s))
    folder = str(bench.folder / "runs" / "1-0-1-1")
    start = run_files.read_start(folder)
    started = bench.started("1-0-1-1")
    assert start is not None and started is not None
    assert (start.pid, start.started_ms, start.nonce) == (started.pid, started.started_ms, "the-nonce")
    assert run_files.read_exit(folder) == ended
    assert (ended.exit_code, ended.output_bytes, ended.tail) == (4, 6, "hello\n")
    assert bench.output("1-0-1-1") == b"hello\n"


@both_ways
def test_a_process_is_proven_by_more_than_its_pid(bench: Bench, cpu_s: int | None) -> None:
    bench.begin(Order("1-0-1-1", "n", command="sleep 600", cpu_s=cpu_s))
    start = run_files.read_start(str(bench.folder / "runs" / "1-0-1-1"))
    assert start is not None
    assert run_files.is_alive(start)
    assert not run_files.is_alive(start._replace(start_ticks=start.start_ticks + 1))
    assert not run_files.is_alive(start._replace(boot_id="another boot"))
    os.killpg(start.pid, signal.SIGKILL)
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    assert not run_files.is_alive(start)


def test_a_timeout_is_sigterm_first(bench: Bench) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command="trap 'echo bye; exit 7' TERM; sleep 600 & wait", timeout_s=0.5))
    assert (ended.timed_out, ended.exit_code, ended.tail) == (True, 7, "bye\n")


def test_who_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    order = Order("1-0-1-1", "n", command="trap '' TERM; echo ready; sleep 600; sleep 600", timeout_s=0.5)
    began = time.monotonic()
    ended = bench.run(order._replace(kill_after_s=1.0))
    assert (ended.timed_out, ended.exit_code, ended.signal) == (True, None, signal.SIGKILL)
    assert 1.5 <= time.monotonic() - began < 30


def test_cancel_ends_the_whole_group(bench: Bench) -> None:
    bench.begin(Order("1-0-1-1", "n", command="sleep 600 & echo $!; wait"))
    bench.until(lambda: (bench.folder / "runs/1-0-1-1/output").exists())
    child = int(bench.output("1-0-1-1"))
    bench.executor.cancel("1-0-1-1")
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    ended = bench.ended("1-0-1-1")
    assert ended is not None and ended.cancelled and not ended.timed_out
    bench.until(lambda: bench.executor.idle)
    assert not alive(child)


def test_a_stopped_process_can_be_cancelled(bench: Bench) -> None:
    started = bench.begin(Order("1-0-1-1", "n", command="sleep 600", kill_after_s=600))
    os.killpg(started.pid, signal.SIGSTOP)
    bench.executor.cancel("1-0-1-1")
    bench.until(lambda: bench.ended("1-0-1-1") is not None)


def test_what_is_cancelled_in_the_queue_never_starts(bench: Bench) -> None:
    bench.executor.start(Order("1-0-1-1", "n", command="echo ran"))
    bench.executor.cancel("1-0-1-1")
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    ended = bench.ended("1-0-1-1")
    assert ended is not None and ended.cancelled
    assert bench.started("1-0-1-1") is None
    assert not (bench.folder / "runs" / "1-0-1-1").exists()


def test_children_left_behind_are_ended_even_if_they_ignore_sigterm(bench: Bench) -> None:
    command = "(trap '' TERM; exec sleep 600) >/dev/null 2>&1 & echo $!; sleep 0.5"
    ended = bench.run(Order("1-0-1-1", "n", command=command, kill_after_s=1.0))
    assert ended.exit_code == 0
    bench.until(lambda: bench.executor.idle)
    assert not alive(int(ended.tail))


def test_a_daemon_that_holds_the_output_does_not_hold_the_run(bench: Bench) -> None:
    began = time.monotonic()
    ended = bench.run(Order("1-0-1-1", "n", command="setsid sleep 600 & echo $!; sleep 0.5"))
    assert ended.exit_code == 0
    assert time.monotonic() - began < 30
    os.kill(int(ended.tail), signal.SIGKILL)  # it left the group on purpose: it is nobody's but the test's


# ---------------------------------------------------------------------------------------------------------- output


def test_a_flood_of_output_is_capped_and_its_end_kept(bench: Bench) -> None:
    ended = bench.run(
        Order("1-0-1-1", "n", command="yes 0123456789 | head -c 20000000; echo; echo the end", output_kb=64)
    )
    assert ended.exit_code == 0
    assert ended.output_bytes == 20_000_000 + len("\nthe end\n")
    kept = bench.output("1-0-1-1")
    assert len(kept) == 64 * 1024 and kept.startswith(b"0123456789\n")
    assert ended.tail.endswith("0123456789\n0123456789\n01\nthe end\n") or ended.tail.endswith("\nthe end\n")
    assert len(ended.tail) == run_files.TAIL_BYTES


def test_a_tail_never_begins_within_a_character(bench: Bench) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command="printf 'é%.0s' $(seq 3000); printf x"))
    assert set(ended.tail) == {"é", "x"}


def test_stdout_and_stderr_come_in_the_order_they_were_written(bench: Bench) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command="echo 1; echo 2 >&2; echo 3; echo 4 >&2"))
    assert ended.tail == "1\n2\n3\n4\n"


# ------------------------------------------------------------------------------------------------------- beginnings


def test_a_run_starts_once_however_often_it_is_ordered(bench: Bench) -> None:
    order = Order("1-0-1-1", "n", command=f"echo x >>{bench.folder}/proof; sleep 0.3")
    bench.executor.start(order)
    bench.executor.start(order)
    bench.run(order)
    bench.executor.start(order)
    bench.until(lambda: sum(isinstance(event, Ended) for event in bench.events) >= 2)
    bench.until(lambda: bench.executor.idle)
    assert (bench.folder / "proof").read_text() == "x\n"
    bench.executor.start(order._replace(nonce="other"))
    bench.until(lambda: bench.failed("1-0-1-1") is not None)
    assert (bench.folder / "proof").read_text() == "x\n"


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order("1-0-1-1", "n", argv=("no-such-program",)), "No such file"),
        (Order("1-0-1-1", "n", command="true", cwd="/no/such/folder"), "cannot enter /no/such/folder"),
        (Order("1-0-1-1", "n", command="true", run_as="no-such-account"), "no account 'no-such-account'"),
        (Order("1-0-1-1", "n", executable="/no/such/file", sha256="0" * 64), "No such file"),
        (Order("1-0-1-1", "n"), "one of command, argv and executable"),
        (Order("1-0-1-1", "n", command="true", env={"A=B": "c"}), "environment variable"),
        (Order("1-0-1-1", "n", command="true\0"), "NUL"),
    ],
)
def test_what_cannot_start_says_why(bench: Bench, order: Order, message: str) -> None:
    assert message in bench.refuse(order)
    assert bench.started(order.run_id) is None
    bench.until(lambda: bench.executor.idle)


@pytest.mark.parametrize("run_id", ["", "..", "../x", "a/b", ".hidden", "a\nb", "x" * 200])
def test_a_run_id_cannot_leave_the_folder(bench: Bench, run_id: str) -> None:
    (bench.folder / "x").mkdir()
    assert "not a run id" in bench.refuse(Order(run_id, "n", command="true"))
    bench.executor.forget(run_id)
    assert (bench.folder / "x").exists() and (bench.folder / "runs").exists()


@both_ways
def test_the_environment_is_clean_and_the_descriptors_are_three(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cpu_s: int | None
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "leaked")
    command = "env; echo ---; ls -l /proc/self/fd; echo ---; umask; ulimit -c; readlink /proc/self/fd/0"
    env = {"CRONKEEPER_RUN_ID": "1-0-1-1", "B": "a b"}
    ended = bench.run(Order("1-0-1-1", "n", command=command, env=env, cpu_s=cpu_s))
    printed, fds, rest = ended.tail.split("---\n")
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert names == {"PATH", "HOME", "LOGNAME", "USER", "SHELL", "LANG", "PWD", "CRONKEEPER_RUN_ID", "B"}
    assert "B=a b\n" in printed and "LANG=C.UTF-8\n" in printed
    # ls itself opens the folder as descriptor 3.
    assert len([line for line in fds.splitlines() if "->" in line]) == 4
    assert rest.splitlines() == ["0077", "0", "/dev/null"]


@both_ways
def test_signals_have_their_defaults(bench: Bench, cpu_s: int | None) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command="grep -E '^Sig(Ign|Blk)' /proc/self/status", cpu_s=cpu_s))
    masks = [int(line.split()[1], 16) for line in ended.tail.splitlines()]
    # 32 and 33 are glibc's own; its posix_spawn leaves them ignored.
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]


@both_ways
def test_each_run_has_a_session_and_a_folder_of_its_own(bench: Bench, cpu_s: int | None) -> None:
    command = "pwd; touch file; cut -d' ' -f5,6 /proc/$$/stat; echo $$"
    ended = bench.run(Order("1-0-1-1", "n", command=command, cpu_s=cpu_s))
    folder, group_and_session, pid = ended.tail.splitlines()
    assert folder == str(bench.folder / "runs" / "1-0-1-1" / "work")
    assert group_and_session.split() == [pid, pid]
    assert (bench.folder / "runs/1-0-1-1/work/file").exists()


@both_ways
def test_a_descriptor_that_we_inherited_goes_no_further(bench: Bench, folder_fd: int, cpu_s: int | None) -> None:
    other = Executor(str(bench.folder / "other"))
    other.start(Order("1-0-1-1", "n", command=f"ls /proc/self/fd/{folder_fd}", cpu_s=cpu_s))
    ended: list[Ended] = []
    while not ended:
        ended = [event for event in other.poll(1) if isinstance(event, Ended)]
    other.close()
    assert ended[0].exit_code != 0 and "No such file" in ended[0].tail


def test_limits_hold(bench: Bench) -> None:
    ended = bench.run(Order("1-0-1-1", "n", command="ulimit -t; ulimit -d", cpu_s=30, memory_mb=64))
    assert ended.tail.split() == ["30", str(64 * 1024)]
    burned = bench.run(Order("1-0-1-2", "n", command="while :; do :; done", cpu_s=1))
    assert burned.signal == signal.SIGXCPU


def test_argv_goes_through_no_shell(bench: Bench) -> None:
    assert bench.run(Order("1-0-1-1", "n", argv=("echo", "$HOME; `id`", "*"))).tail == "$HOME; `id` *\n"


# -------------------------------------------------------------------------------------------------------- artifacts


def test_a_script_with_and_one_without_a_first_line(bench: Bench) -> None:
    with_line = artifact(bench.folder, "a", b"#!/bin/sh\necho with $1\n")
    without = artifact(bench.folder, "b", b"echo without $1\n")
    assert bench.run(Order("1-0-1-1", "n", argv=("x y",), **with_line)).tail == "with x y\n"  # type: ignore[arg-type]
    assert bench.run(Order("1-0-1-2", "n", argv=("x y",), **without)).tail == "without x y\n"  # type: ignore[arg-type]


def test_a_binary_runs(bench: Bench) -> None:
    program = artifact(bench.folder, "echo", Path("/bin/echo").read_bytes())
    assert bench.run(Order("1-0-1-1", "n", argv=("hi",), **program)).tail == "hi\n"  # type: ignore[arg-type]


def test_a_changed_artifact_is_not_run(bench: Bench) -> None:
    order = Order("1-0-1-1", "n", **artifact(bench.folder, "a", b"#!/bin/sh\necho good\n"))  # type: ignore[arg-type]
    assert bench.run(order).tail == "good\n"
    path = Path(order.executable)
    path.chmod(0o755)
    path.write_bytes(b"#!/bin/sh\necho evil\n")
    assert "sha256" in bench.refuse(order._replace(run_id="1-0-2-1"))


def test_what_is_swapped_in_after_the_check_is_not_what_runs(bench: Bench) -> None:
    """The job waits for its own swap: the interpreter opens the script only after the file's name leads elsewhere."""
    gate = bench.folder / "gate"
    os.mkfifo(gate)
    # An interpreter that waits before it reads the script which it was given.
    interpreter = bench.folder / "interpreter"
    interpreter.write_text(f'#!/bin/sh\ncat {gate} >/dev/null\nexec /bin/sh "$1"\n')
    interpreter.chmod(0o755)
    good = artifact(bench.folder, "job", f"#!{interpreter}\necho good\n".encode())
    bench.begin(Order("1-0-1-1", "n", **good))  # type: ignore[arg-type]
    evil = bench.folder / "evil"
    evil.write_text("#!/bin/sh\necho evil\n")
    evil.rename(bench.folder / "job")
    gate.write_text("")
    bench.until(lambda: bench.ended("1-0-1-1") is not None)
    ended = bench.ended("1-0-1-1")
    assert ended is not None and ended.tail == "good\n"


# --------------------------------------------------------------------------------------------------------- accounts


@root_only
@both_ways
def test_another_account_has_nothing_of_ours(bench: Bench, cpu_s: int | None) -> None:
    secret = bench.folder / "secret"
    secret.mkdir(mode=0o700)
    (secret / "key").write_text("the secret")
    command = (
        f"id -u; id -g; id -G; grep -E '^(NoNewPrivs|CapEff|CapPrm)' /proc/self/status; cat {secret}/key; pwd;"
        f" touch mine; cat ../start.json; ls -l /proc/self/fd | grep -c ' -> '; echo $HOME $USER"
    )
    ended = bench.run(Order("1-0-1-1", "n", command=command, run_as="nobody", cpu_s=cpu_s))
    lines = ended.tail.splitlines()
    assert lines[:3] == ["65534", "65534", "65534"]
    assert [line.split()[1] for line in lines[3:6]] == ["0" * 16, "0" * 16, "1"]
    assert "the secret" not in ended.tail and ended.tail.count("Permission denied") == 2
    assert lines[7] == str(bench.folder / "runs/1-0-1-1/work")
    assert (bench.folder / "runs/1-0-1-1/work/mine").stat().st_uid == 65534
    assert lines[-2:] == ["4", "/nonexistent nobody"]


@root_only
def test_what_nobody_needs_a_shell_for_is_executed_itself_and_no_less_barred(bench: Bench) -> None:
    status = bench.run(Order("1-0-1-1", "n", command="/usr/bin/cat /proc/self/status", run_as="nobody")).tail
    facts = {line.partition(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert facts["Uid"] == facts["Gid"] == ["65534"] * 4
    assert (facts["Groups"], facts["NoNewPrivs"]) == (["65534"], ["1"])
    assert {facts[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    # It is the very child of this process: no shell has made it, and it leads its session.
    started = bench.started("1-0-1-1")
    assert started is not None
    assert (facts["Pid"], facts["PPid"]) == ([str(started.pid)], [str(os.getpid())])
    # Nothing of that has come over us, or over what root runs.
    for command in ("/usr/bin/cat /proc/self/status", "cat /proc/self/status"):
        after = bench.run(Order(f"1-0-{len(command)}-1", "n", command=command)).tail
        assert "NoNewPrivs:\t0\n" in after and "Uid:\t0\t0\t0\t0\n" in after


@root_only
def test_another_account_gets_the_defaults_of_signals(bench: Bench, tmp_path: Path) -> None:
    """A shell that starts something in the background has it ignore SIGINT and SIGQUIT; nohup adds SIGHUP."""
    script = tmp_path / "other.py"
    script.write_text(
        "import sys\n"
        "from cronkeeper_worker.executor import Executor\nfrom cronkeeper_worker.orders import Ended, Order\n"
        "other = Executor(sys.argv[1])\nother.start(Order('1-0-1-1', 'n', command=sys.argv[2], run_as='nobody'))\n"
        "ended = []\nwhile not ended:\n    ended = [one for one in other.poll(1) if isinstance(one, Ended)]\n"
        "print(ended[0].tail)\n"
    )
    command = f"{sys.executable} {script} {bench.folder / 'other'} '/bin/cat /proc/self/status'"
    ignored = f"trap '' HUP INT QUIT USR1; exec {command}"
    told = subprocess.run(["/bin/sh", "-c", ignored], capture_output=True, text=True, check=True, timeout=60).stdout
    facts = dict(line.split(":\t") for line in told.splitlines() if line.startswith("Sig"))
    assert int(facts["SigIgn"], 16) & 0x7FFFFFFF == int(facts["SigBlk"], 16) == 0


@root_only
def test_an_account_that_cannot_be_entered_says_why(bench: Bench) -> None:
    """It may have as many processes as it is given, and has them: seen at the exec after the change of accounts."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    bench.executor.start(Order("1-0-1-1", "n", command="/bin/sleep 60", run_as="nobody"))
    bench.until(lambda: bench.started("1-0-1-1") is not None)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
    try:
        assert bench.refuse(Order("1-0-2-1", "n", command="/bin/true", run_as="nobody")) == (
            "cannot execute: Resource temporarily unavailable"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)


@root_only
def test_another_account_runs_an_artifact_that_it_cannot_reach(bench: Bench) -> None:
    cache = bench.folder / "cache"
    cache.mkdir(mode=0o700)
    for number, content in enumerate([b"#!/bin/sh\nid -u\n", b"id -u\n"]):
        order = Order(f"1-0-{number}-1", "n", run_as="nobody", **artifact(cache, str(number), content))  # type: ignore[arg-type]
        assert bench.run(order).tail == "65534\n"


@root_only
def test_a_folder_that_the_account_cannot_enter_is_told(bench: Bench) -> None:
    closed = bench.folder / "closed"
    closed.mkdir(mode=0o700)
    order = Order("1-0-1-1", "n", command="true", run_as="nobody", cwd=str(closed))
    assert bench.refuse(order) == f"cannot enter {closed}: Permission denied"


@root_only
def test_a_job_cannot_forge_its_own_end(bench: Bench) -> None:
    command = "cd ..; echo '{}' >exit.json; rm -f start.json; mv work elsewhere; ln -s /etc/passwd output; exit 5"
    ended = bench.run(Order("1-0-1-1", "n", command=command, run_as="nobody"))
    assert ended.exit_code == 5
    folder = bench.folder / "runs" / "1-0-1-1"
    assert sorted(path.name for path in folder.iterdir()) == ["exit.json", "output", "start.json", "work"]
    assert json.loads((folder / "exit.json").read_text())["exit_code"] == 5


def test_a_note_that_a_crash_of_the_machine_brought_back_refuses_no_order(bench: Bench) -> None:
    order = Order("1-0-1-1", "n", command="exit 3")
    bench.run(order)
    note = bench.folder / "runs/1-0-1-1/start.json"
    proof = json.loads(note.read_text())
    bench.events.clear()
    note.write_text(json.dumps({**proof, "nonce": "of another run", "boot_id": "before"}))
    assert bench.run(order).exit_code == 3
    note.write_text(json.dumps({**proof, "nonce": "of another run"}))
    bench.events.clear()
    assert "another order" in bench.refuse(order)


@root_only
def test_a_used_folder_goes_to_the_same_account_only(bench: Bench) -> None:
    """Folders are used again, and a process that stayed behind may still stand in one."""
    bench.run(Order("1-0-1-1", "n", command="true", run_as="nobody"))
    inode = (bench.folder / "runs/1-0-1-1/work").stat().st_ino
    bench.executor.forget("1-0-1-1")
    bench.run(Order("1-0-2-1", "n", command="true"))
    assert (bench.folder / "runs/1-0-2-1/work").stat().st_ino != inode
    bench.run(Order("1-0-3-1", "n", command="true", run_as="nobody"))
    again = bench.folder / "runs/1-0-3-1"
    assert (again / "work").stat().st_ino == inode
    start = run_files.read_start(str(again))
    assert start is not None and start.pid == getattr(bench.started("1-0-3-1"), "pid", 0)


def test_used_folders_outlive_their_executor(bench: Bench) -> None:
    """And one that was killed before it cleaned them: the next run must not find another run's notes."""
    bench.run(Order("1-0-1-1", "n", command="echo old; exit 3"))
    inode = (bench.folder / "runs/1-0-1-1/work").stat().st_ino
    (bench.folder / "runs/1-0-1-1").rename(bench.folder / "spare/dirty")
    (bench.folder / "spare/nonsense").write_text("")
    other = Bench(bench.folder)
    other.begin(Order("1-0-2-1", "n", command="sleep 600"))
    folder = bench.folder / "runs/1-0-2-1"
    assert (folder / "work").stat().st_ino == inode
    assert run_files.read_exit(str(folder)) is None and not (folder / "output").exists()
    other.executor.cancel("1-0-2-1")
    other.until(lambda: other.executor.idle)
    other.executor.close()


def test_forgetting_removes_whatever_a_job_left(bench: Bench) -> None:
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    command = f"mkdir -p a/b/c; touch a/b/file; ln -s {outside} link; ln -s {outside} a/b/link; chmod 0 a/b/c"
    bench.run(Order("1-0-1-1", "n", command=command))
    bench.executor.forget("1-0-1-1")
    bench.until(lambda: bench.executor.idle)
    assert not (bench.folder / "runs" / "1-0-1-1").exists()
    assert (outside / "precious").read_text() == "stays"
    bench.executor.forget("1-0-1-1")
    assert bench.executor.idle


def test_a_living_run_is_not_forgotten(bench: Bench) -> None:
    bench.begin(Order("1-0-1-1", "n", command="sleep 600"))
    bench.executor.forget("1-0-1-1")
    assert (bench.folder / "runs/1-0-1-1/start.json").exists()


# ------------------------------------------------------------------------------------------------------------- many


@pytest.mark.parametrize("account", [None, pytest.param("nobody", marks=root_only)])
def test_a_thousand_runs_at_once_all_start_and_end_once(bench: Bench, account: str | None) -> None:
    began = time.monotonic()
    for number in range(1000):
        bench.executor.start(Order(f"1-0-{number}-1", "n", command=f"echo {number}", run_as=account))
    bench.until(lambda: sum(isinstance(event, Ended) for event in bench.events) >= 1000, timeout_s=120)
    took = time.monotonic() - began
    started = [event.run_id for event in bench.events if isinstance(event, Started)]
    ended = {event.run_id: event for event in bench.events if isinstance(event, Ended)}
    assert len(started) == len(set(started)) == len(ended) == 1000
    assert all(event.exit_code == 0 and event.tail == f"{run_id.split('-')[2]}\n" for run_id, event in ended.items())
    assert took < 60
    assert bench.executor.idle


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_an_order_that_comes_too_late_starts_nothing_and_may_come_again(bench: Bench) -> None:
    mark = bench.folder / "ran"
    late = Order("late", "n", command=f"touch {mark}", expires_boot_s=boot_s() - 0.01)
    bench.executor.start(late)
    bench.until(lambda: Expired("late") in bench.events)
    assert not mark.exists()
    assert not Path(run_files.run_folder(str(bench.folder), "late")).exists()
    assert bench.run(late._replace(expires_boot_s=boot_s() + 60)).exit_code == 0
    assert mark.exists()


def test_an_order_that_comes_again_too_late_is_answered_by_what_became_of_it(bench: Bench) -> None:
    order = Order("again", "n", command="exit 3", expires_boot_s=boot_s() + 60)
    assert bench.run(order).exit_code == 3
    bench.events.clear()
    bench.executor.start(order._replace(expires_boot_s=boot_s() - 1))
    bench.until(lambda: bench.ended("again") is not None)
    assert bench.ended("again").exit_code == 3  # type: ignore[union-attr]
    assert Expired("again") not in bench.events
