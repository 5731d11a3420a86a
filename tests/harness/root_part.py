"""A node's folder with a root part of its own, and nothing else of a worker. Needs root, and the daemon's account."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pwd
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cronkeeper.domain.job import Artifact, JobSpec, JobState, JobType
from cronkeeper.runtime.config import load
from cronkeeper.wire.task import Signer, Task
from cronkeeper_worker import root_start, run_files, runner_main
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.orders import TOLD, Ended, RunnerEvent, SpawnFailed, Started
from cronkeeper_worker.runner_client import RunnerClient
from tests.harness.accounts import DAEMON, as_account
from tests.harness.processes import alive

SIGNER, FOREIGN = Signer.from_seed(b"x" * 31 + b"y"), Signer.from_seed(b"x" * 31 + b"z")
TOLD_NOW = {"CRONKEEPER_FIRE_TIME": "2026-03-01T00:00:00Z", "CRONKEEPER_WORKER": "w1", "CRONKEEPER_FENCE": "7"}
PLAIN = JobSpec("id -un; id -Gn", "* * * * *", JobType.COMMAND)


def sealed(spec: JobSpec, *, job_id: int = 7, generation: int = 1, signer: Signer = SIGNER) -> str:
    return signer.seal(Task(job_id, generation, JobState.ACTIVE, 0, spec)).decode()


def request(envelope: str, run_id: str = "7-0-60000-1", **changes: Any) -> dict[str, Any]:
    told = {name: TOLD_NOW[name] for name in TOLD}
    whole = {"run_id": run_id, "nonce": "n", "sealed": envelope, "told": told, "secrets": {}, "expires_boot_s": None}
    return {**whole, **changes}


class House:
    """A node's folder with its root part; `desk` is what an honest daemon hears, as root may listen, too."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "state"
        self.cron_d = folder / "cron.d"
        self.cron_d.mkdir()
        self.entry = pwd.getpwnam(DAEMON)
        flags = {
            "database_url": "sqlite:////nowhere", "zookeeper": "127.0.0.1:1/x", "blob_url": "file:///nowhere",
            "state_dir": self.top, "cron": "system", "cron_dir": self.cron_d, "verify_keys": SIGNER.public_bytes.hex(),
            "node_accounts": ("daemon",),
        }  # fmt: skip
        self.config = load(WorkerConfig, file=None, environ={}, flags=flags)
        self.events: list[RunnerEvent] = []
        self.own = self.lay_out()
        self.client = RunnerClient(self.top, self.events.append, signed=True)
        self.client.ensure()

    def lay_out(self, **changes: Any) -> Path:
        config = dataclasses.replace(self.config, **changes)
        return root_start.lay_out(self.top, config, self.entry.pw_uid, self.entry.pw_gid)

    def say(self, *messages: object, wait_s: float = 0.0) -> Any:
        """Say something to the root part as the daemon's account; return what was answered to the hello."""
        return as_account(DAEMON, lambda: talk(self.top, *messages, wait_s=wait_s))

    def order(self, *requests: dict[str, Any]) -> None:
        assert not isinstance(self.say({"op": "start", "orders": list(requests)}), BaseException)

    def told(self, kind: type[RunnerEvent], run_id: str = "7-0-60000-1") -> Any:
        def look() -> list[RunnerEvent]:
            return [e for e in self.events if isinstance(e, kind) and getattr(e, "run_id", None) == run_id]

        return until(look)[0]

    def ran(self, run_id: str = "7-0-60000-1") -> str:
        """Return what the run printed."""
        ended = self.told(Ended, run_id)
        assert (ended.exit_code, ended.signal) == (0, None), ended
        return str(ended.tail)

    def refused(self, *requests: dict[str, Any]) -> str:
        """Order it, and return why it was refused; nothing of it was started."""
        self.order(*requests)
        message = self.told(SpawnFailed, requests[-1]["run_id"]).message
        assert not [event for event in self.events if isinstance(event, Started)]
        assert not list((self.top / "runs").iterdir())
        self.events.clear()
        return str(message)

    def plant(self, data: bytes) -> Artifact:
        """Put a file where the daemon keeps what it has fetched."""
        digest = hashlib.sha256(data).hexdigest()

        def write() -> None:
            (self.own / "artifacts").mkdir(exist_ok=True)
            (self.own / "artifacts" / digest).write_bytes(data)

        assert as_account(DAEMON, write) is None
        return Artifact(f"artifacts/{digest}/x", "s3://b/x", digest, len(data), "x")

    def pid(self) -> int:
        (pid,) = runners(self.top)
        return pid

    def end(self) -> None:
        self.client.close()
        for pid in (*keepers(self.top), *runners(self.top)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in (self.top / "runs").glob("*"):
            start = run_files.read_start(str(path))
            if start is not None and start.pid and run_files.is_alive(start):
                os.killpg(start.pid, signal.SIGKILL)


def talk(top: Path, *messages: object, wait_s: float = 0.0) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(top / runner_main.SOCKET))
        stream = connection.makefile("rwb")
        stream.write(json.dumps({"op": "hello", "protocol": runner_main.PROTOCOL}).encode() + b"\n")
        stream.flush()
        answers = [json.loads(stream.readline()) for _ in range(3)]
        for message in messages:
            stream.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        stream.flush()
        time.sleep(wait_s)
        return answers


def until(look: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not after {timeout_s:g} s"
        time.sleep(0.02)
    return found


def runners(top: Path) -> list[int]:
    return [pid for pid, words in processes() if f"{top}".encode() in words and any(map(is_main, words[:4]))]


def keepers(top: Path) -> list[int]:
    return [pid for pid, words in processes() if words[0] == b"/bin/sh" and f"{top}".encode() in words]


def is_main(word: bytes) -> bool:
    return word.endswith(b"/runner_main.py")


def processes() -> Iterator[tuple[int, list[bytes]]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if len(words) > 1 and alive(int(path.parent.name)):
                yield int(path.parent.name), words
