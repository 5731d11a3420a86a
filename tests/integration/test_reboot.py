"""`@reboot` on a node whose boot id changes: the real daemon, and the stand-in that cron calls; all else is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.domain.ids import TaskId, node_shard
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.wire.task import Signer, Task
from cronkeeper_worker import node_files
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.journal import Journal, TaskRow
from tests.harness.folders import make_folder, remove_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts files over those of the kernel")
SIGNER = Signer.from_seed(bytes(32))
NOWHERE = "127.0.0.1:1"
#: In a mount namespace of its own, the node has been started when and as we say.
START_NODE = (
    'mount --bind "$0/boot_id" /proc/sys/kernel/random/boot_id && mount --bind "$0/stat" /proc/stat && exec "$@"'
)


class Machine:
    """A node with one `@reboot` job in its journal that writes down when it was due. Nothing else can be reached."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state_dir, self.done = folder, folder / "state", folder / "done"
        settings: dict[str, Any] = {
            "database_url": f"mysql+pymysql://x:9f3c1b7d20e85a64@{NOWHERE}/x",
            "zookeeper": f"{NOWHERE}/x",
            "blob_url": f"file://{folder}/blobs",
            "state_dir": self.state_dir,
            "worker_id": "w1",
            "verify_keys": (SIGNER.public_bytes.hex(),),
            "cron": "none",
            "claim_wait_s": 0.5,
            "on_stop": "stay",
        }
        config = WorkerConfig(**settings)
        node_files.prepare(self.state_dir)
        node_files.worker_id(self.state_dir, "w1")
        for name in (node_files.AWAY, node_files.START):
            node_files.save_settings(self.state_dir, config, name)
        self.done.touch()
        self.done.chmod(0o666)
        spec = JobSpec(f"echo $CRONKEEPER_FIRE_TIME $CRONKEEPER_SHARD >>{self.done}", "@reboot", JobType.COMMAND)
        saved_ms = self.now_ms() - 600_000
        row = TaskRow(
            TaskId(7, node_shard("w1")), 1, 1, SIGNER.seal(Task(7, 1, JobState.ACTIVE, saved_ms, spec)), saved_ms
        )
        with closing(Journal(self.state_dir / node_files.JOURNAL)) as journal:
            journal.save_tasks([row])
        # What the daemon of the start before has noted.
        self.boot("before", 900)
        note = {"boot_id": "before", "started_ms": saved_ms - 600_000}
        (self.state_dir / "node-start.json").write_text(json.dumps(note))

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot(self, boot_id: str, ago_s: int) -> None:
        (self.folder / "boot_id").write_text(boot_id + "\n")
        (self.folder / "stat").write_text(f"cpu 1 2 3\nbtime {int(time.time()) - ago_s}\n")

    def command(self, *words: str) -> list[str]:
        python = [sys.executable, "-m", *words]
        return ["unshare", "--mount", "sh", "-c", START_NODE, str(self.folder), *python]

    def call_of_cron(self) -> None:
        subprocess.run(self.command("cronkeeper_worker.away", str(self.state_dir), "1"), check=True, timeout=60)

    @contextmanager
    def daemon(self) -> Iterator[None]:
        with (self.folder / "log").open("ab") as log:
            ready = self.times_ready()
            process = subprocess.Popen(self.command("cronkeeper_worker", str(self.state_dir)), stderr=log)
        try:
            until(lambda: self.times_ready() > ready)
            # What it finds due at its start is decided by now.
            time.sleep(1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def times_ready(self) -> int:
        return (self.folder / "log").read_text().count("worker.ready")

    def fires(self) -> list[str]:
        return self.done.read_text().splitlines()


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine(make_folder("reboot"))
    yield found
    for pid in runners(found.state_dir):
        os.kill(pid, signal.SIGKILL)
    remove_folder(found.folder)


def runners(state_dir: Path) -> list[int]:
    """The processes that were started with this state folder: a runner outlives its daemon."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(state_dir).encode() in words:
                found.append(int(entry.name))
    return found


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.1)


def test_each_start_of_the_node_runs_once_with_everything_else_down(machine: Machine) -> None:
    machine.boot("first", 100)
    with machine.daemon():
        until(lambda: len(machine.fires()) == 1, 10)
    with machine.daemon():
        pass
    machine.call_of_cron()
    assert len(machine.fires()) == 1
    machine.boot("second", 50)
    # No daemon comes up: what cron calls each minute finds the start, once.
    machine.call_of_cron()
    machine.call_of_cron()
    with machine.daemon():
        pass
    first, second = machine.fires()
    assert first < second
    assert first.endswith("Z 0")


def test_the_same_boot_id_is_no_start_whatever_the_kernel_says(machine: Machine) -> None:
    machine.boot("before", 10)
    machine.call_of_cron()
    with machine.daemon():
        pass
    assert machine.fires() == []
