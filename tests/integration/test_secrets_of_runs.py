"""Secrets on the last step of their way: into the process, and nowhere else."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper_worker import launch, run_files
from cronkeeper_worker.executor import Executor
from cronkeeper_worker.orders import Ended, Order, RunEvent, Secret, Started, order_from
from cronkeeper_worker.orphans import Orphans
from tests.harness.folders import make_folder, remove_folder

VALUE = "c4nary/w0rd+of=this run"
SECRETS = {"PLAIN": Secret(VALUE), "FILED": Secret(VALUE, as_file=True)}
#: A plain command line takes the quick way into the process; a limit makes it take the other one.
both_ways = pytest.mark.parametrize("cpu_s", [None, 3600], ids=["quick", "forked"])
ACCOUNTS = [None, "nobody"] if os.geteuid() == 0 else [None]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = make_folder("secrets")
    yield path
    remove_folder(path)


@pytest.fixture
def executor(folder: Path) -> Iterator[Executor]:
    # As in the runner.
    umask = os.umask(0o077)
    executor = Executor(str(folder))
    yield executor
    os.umask(umask)
    for run in executor.running():
        os.killpg(run.pid, signal.SIGKILL)
    while not executor.idle:
        executor.poll(0.2)
    executor.close()


def until(executor: Executor, kind: type[RunEvent]) -> RunEvent:
    for _ in range(150):
        for event in executor.poll(0.2):
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__} in 30 s")


def run(executor: Executor, order: Order) -> Ended:
    executor.start(order)
    ended = until(executor, Ended)
    assert isinstance(ended, Ended)
    return ended


def everything_under(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@both_ways
@pytest.mark.parametrize("run_as", ACCOUNTS)
def test_a_run_gets_its_secrets_and_nothing_that_stays_has_them(
    executor: Executor, folder: Path, cpu_s: int | None, run_as: str | None
) -> None:
    script = (
        'test "$PLAIN" = "$WANTED" && test "$(cat "$FILED")" = "$WANTED" && stat -c "mode %a of %U" "$FILED" && id -un;'
        ' printf "a:%s:b" "$PLAIN"; printf "%s" "$PLAIN" | base64; tr "\\0" " " < /proc/self/cmdline'
    )
    # What it is compared with reaches the job in another way, so that a mask of the expectation proves nothing.
    wanted = Secret(VALUE)
    order = Order("7-0-1", "n", script, secrets={**SECRETS, "WANTED": wanted}, run_as=run_as, cpu_s=cpu_s)
    ended = run(executor, order)
    assert ended.exit_code == 0
    mode, account, rest = ended.tail.split("\n", 2)
    assert mode == f"mode 400 of {account}"
    assert rest.startswith("a:***:b***\n")
    assert VALUE.encode() not in everything_under(folder)
    assert not (folder / "runs/7-0-1/secrets").exists()


def test_output_that_comes_in_pieces_is_masked(executor: Executor, folder: Path) -> None:
    half = len(VALUE) // 2
    script = f'printf "%s" "${{PLAIN:-}}" | head -c {half}; sleep 0.3; printf "%s" "$PLAIN" | tail -c +{half + 1}; echo'
    ended = run(executor, Order("7-0-1", "n", script, secrets=SECRETS))
    assert (ended.tail, (folder / "runs/7-0-1/output").read_bytes()) == ("***\n", b"***\n")
    assert ended.output_bytes == len(VALUE) + 1


def test_the_end_of_the_output_is_not_lost_when_it_begins_like_a_secret(executor: Executor) -> None:
    assert run(executor, Order("7-0-1", "n", 'printf "see c4na"', secrets=SECRETS)).tail == "see c4na"


def test_a_file_lives_as_long_as_its_run(executor: Executor, folder: Path) -> None:
    executor.start(Order("7-0-1", "n", "sleep 60", secrets=SECRETS))
    until(executor, Started)
    path = folder / "runs/7-0-1/secrets/FILED"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (VALUE, 0o400)
    executor.cancel("7-0-1")
    until(executor, Ended)
    assert not path.exists()


def test_a_file_of_a_run_whose_parent_died_goes_with_the_run(folder: Path) -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(reader)
        dying = Executor(str(folder))
        dying.start(Order("7-0-1", "n", "exec sleep 60", secrets=SECRETS))
        started = until(dying, Started)
        os.write(writer, str(started.pid if isinstance(started, Started) else 0).encode())
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.waitpid(parent, 0)
    executor = Executor(str(folder))
    try:
        orphans = Orphans(executor)
        orphans.scan()
        assert (folder / "runs/7-0-1/secrets/FILED").exists()
        os.kill(pid, signal.SIGKILL)
        until(executor, Ended)
        assert not (folder / "runs/7-0-1/secrets").exists()
    finally:
        executor.close()


def test_a_run_that_cannot_be_executed_leaves_no_file(executor: Executor, folder: Path) -> None:
    executor.start(Order("7-0-1", "n", argv=("/no/such/program",), secrets=SECRETS))
    for _ in range(50):
        if any(True for _ in executor.poll(0.2)):
            break
    assert run_files.read_exit(str(folder / "runs/7-0-1")) is not None
    assert VALUE.encode() not in everything_under(folder)


def test_an_order_does_not_tell_its_secrets() -> None:
    order = Order("7-0-1", "n", "true", secrets=SECRETS)
    assert VALUE not in repr(order)
    assert launch.digest(order) == launch.digest(order._replace(secrets={**SECRETS, "PLAIN": Secret("another value")}))
    assert launch.digest(order) != launch.digest(order._replace(secrets={}))


def test_an_order_keeps_its_secrets_on_the_way_to_the_runner() -> None:
    order = Order("7-0-1", "n", "true", secrets=SECRETS)
    assert order_from({**order.as_json(), "argv": []}) == order
