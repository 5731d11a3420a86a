"""`cronkeeper standalone` as its users meet it, on a node with a real cron and crontabs of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cron import Node, NodeProcess
from tests.harness.folders import make_folder, remove_folder
from tests.harness.ports import free_port
from tests.harness.processes import alive

ROOT = Path(__file__).resolve().parents[2]
# The libraries, too: the system's Python may have to run without our environment.
PYTHONPATH = ":".join(
    [*(str(ROOT / part) for part in ("core", "api", "manager", "worker", "cli")), sysconfig.get_path("purelib")]
)
LISTING = {"executable": "ls -la", "schedule": "* * * * *", "type": "command"}
READY_WITHIN_S = 60.0
OVER = {"succeeded", "failed", "timed_out", "cancelled", "skipped", "lost"}


class Standalone:
    """One data folder, started and stopped in a node as often as a test likes."""

    def __init__(self, node: Node, folder: Path, *, user: str | None = None, python: str = sys.executable) -> None:
        self.node = node
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self._user = user
        self._python = python
        self._starts = 0
        self.process: NodeProcess | None = None

    def start(self, *options: str, wait: bool = True) -> NodeProcess:
        self._starts += 1
        ready = self.folder / f"ready-{self._starts}"
        where = () if "--ephemeral" in options else ("--data-dir", str(self.data))
        self.process = self.node.spawn(
            [
                *(self._python, "-m", "cronkeeper_cli.main", "standalone", "--port", str(self.port), *where),
                *("--ready-file", str(ready), *options),
            ],
            {
                "PYTHONPATH": PYTHONPATH,
                "HOME": str(self.folder),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "TMPDIR": str(self.folder),
            },
            name=f"standalone-{self._starts}",
            user=self._user,
        )
        if wait:
            self.process.wait_until(ready.exists, timeout_s=READY_WITHIN_S, what="ready")
            told = json.loads(ready.read_text())
            assert told["url"] == f"http://127.0.0.1:{self.port}"
            self.token = Path(told["token_file"]).read_text().strip()
        return self.process

    def stop(self, sig: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C, and wait for the end. What does not end is a fault, and is killed with its node."""
        assert self.process is not None
        self.process.send(sig)
        assert self.process.wait(30) == 0, self.process.log_tail()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def whole(self) -> bool:
        """Say whether the API has both stores and a worker."""
        workers = self.call("GET", "/workers")
        return self.call("GET", "/readyz")["zookeeper"] == "ok" and [worker["state"] for worker in workers] == ["up"]

    def run_now(self, job_id: str, within_s: float = 60.0) -> Any:
        """Run a job and return its run once it is over."""
        asked = self.call("POST", f"/jobs/{job_id}/run", {})
        return self.wait_for(lambda: self._over(asked["id"]), within_s, "the run's end")

    def _over(self, run_id: str) -> Any:
        run = self.call("GET", f"/runs/{run_id}")
        return run if run["state"] in OVER else None

    def wait_for(self, look: Any, within_s: float, what: str) -> Any:
        deadline = time.monotonic() + within_s
        while True:
            try:
                found = look()
            except (urllib.error.URLError, OSError):
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, f"no {what} after {within_s:g} s{self.tail()}"
            time.sleep(0.05)

    def tail(self) -> str:
        logs = self.data / "log"
        texts = (
            [path.read_text(errors="replace")[-2000:] for path in sorted(logs.glob("*.log"))] if logs.exists() else []
        )
        return "\n".join(["", *([self.process.log_tail()] if self.process else []), *texts])

    def entries(self) -> list[str]:
        """Return the crontab lines of ours in the node."""
        text = b"\n".join(self.node.read_crontabs().values()).decode()
        return [line for line in text.splitlines() if "cronkeeper-fire" in line and not line.startswith("#")]

    def pids(self) -> list[int]:
        """Return what runs of this standalone: whatever names its folder, or was forked by it."""
        found = []
        for pid in self.node.pids():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if f"HOME={self.folder}".encode() in environment.split(b"\0"):
                found.append(pid)
        return found


@pytest.fixture
def node() -> Iterator[Node]:
    with Node("standalone") as node:
        yield node


@pytest.fixture
def folder() -> Iterator[Path]:
    found = make_folder("standalone-data")
    yield found
    remove_folder(found)


@pytest.fixture
def standalone(node: Node, folder: Path) -> Standalone:
    return Standalone(node, folder)


def nothing_left(standalone: Standalone, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while (left := standalone.pids()) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in left if alive(pid)]
    assert names == []


def test_from_the_start_to_a_run_and_to_ctrl_c(standalone: Standalone, node: Node) -> None:
    node.start_cron()
    process = standalone.start()
    log = process.log_text()
    assert standalone.token in log
    assert "is in this machine's crontab" in log or "are in this machine's crontab" in log
    job = standalone.call("POST", "/jobs", LISTING)
    assert (job["id"], job["status"], job["executable"]) == ("1", "scheduled", "ls -la")
    run = standalone.run_now("1")
    assert (run["state"], run["exit_code"]) == ("succeeded", 0)
    assert "total" in run["output_tail"]
    entries = standalone.wait_for(standalone.entries, 20, "entry in the crontab")
    assert len(entries) == 1
    assert entries[0].startswith("* * * * * ")
    standalone.stop()
    nothing_left(standalone)
    assert standalone.entries() == []


def test_its_own_cron_fires_the_job(standalone: Standalone, node: Node) -> None:
    node.start_cron()
    standalone.start()
    standalone.call("POST", "/jobs", LISTING)

    def fired() -> Any:
        runs = standalone.call("GET", "/jobs/1/runs")
        return [run for run in runs if run["trigger"] in ("cron", "timer") and run["state"] == "succeeded"]

    run = standalone.wait_for(fired, 100, "scheduled run")[0]
    assert run["fire_time"].endswith(":00Z")
    assert "cronkeeper-fire" in node.cron_log() or run["trigger"] == "timer"
    standalone.stop(signal.SIGTERM)
    nothing_left(standalone)


def test_a_second_start_keeps_jobs_history_and_token(standalone: Standalone) -> None:
    standalone.start()
    token = standalone.token
    standalone.call("POST", "/jobs", {**LISTING, "name": "kept"})
    first = standalone.run_now("1")
    standalone.stop()
    process = standalone.start()
    assert standalone.token == token
    assert token not in process.log_text()
    assert [job["name"] for job in standalone.call("GET", "/jobs")] == ["kept"]
    assert first["id"] in [run["id"] for run in standalone.call("GET", "/jobs/1/runs")]
    standalone.wait_for(standalone.entries, 20, "entry in the crontab")
    assert standalone.run_now("1")["state"] == "succeeded"
    standalone.stop()


def test_secrets_and_data_are_for_our_eyes_only(standalone: Standalone) -> None:
    standalone.start()
    for name in ("admin-token", "signing-key", "zookeeper-password", "cronkeeper.db"):
        assert (standalone.data / name).stat().st_mode & 0o077 == 0, name
    listening = [line for line in socket_table() if line[1] in standalone.pids()]
    assert listening
    assert {address for address, _ in listening} == {"127.0.0.1"}
    standalone.stop()


def socket_table() -> list[tuple[str, int]]:
    """Return (address, pid) of every listening TCP socket that we can see."""
    text = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    found = []
    for line in text.splitlines():
        address = line.split()[3].rpartition(":")[0]
        found += [(address, int(pid)) for pid in re.findall(r"pid=(\d+)", line)]
    return found


@pytest.mark.parametrize("what", ["org.apache.zookeeper", "ck-worker", "ck-manager", "ck-api"])
def test_a_killed_part_is_healed(standalone: Standalone, what: str) -> None:
    process = standalone.start()
    standalone.call("POST", "/jobs", {**LISTING, "schedule": "0 0 1 1 *"})
    assert standalone.run_now("1")["state"] == "succeeded"
    victims = [pid for pid in standalone.pids() if is_part(pid, what)]
    assert victims
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # its parent was first, and took it along
            os.kill(pid, signal.SIGKILL)
    process.wait_until(lambda: "it is started again" in process.log_text(), timeout_s=20, what="noticed")
    standalone.wait_for(standalone.whole, 60, "repair")
    assert standalone.run_now("1")["state"] == "succeeded"
    standalone.stop()
    nothing_left(standalone)


def is_part(pid: int, what: str) -> bool:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return name == what or what.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_killed_supervisor_takes_its_parts_with_it_and_the_next_start_goes_on(standalone: Standalone) -> None:
    process = standalone.start()
    standalone.call("POST", "/jobs", LISTING)
    process.kill(group=False)
    standalone.start()
    assert [job["id"] for job in standalone.call("GET", "/jobs")] == ["1"]
    assert standalone.run_now("1")["state"] == "succeeded"
    standalone.stop()
    nothing_left(standalone)


def test_a_run_in_progress_goes_on_to_its_end_and_takes_the_runner_with_it(standalone: Standalone) -> None:
    standalone.start()
    standalone.call("POST", "/jobs", {**LISTING, "executable": "sleep 4", "schedule": "0 0 1 1 *"})
    asked = standalone.call("POST", "/jobs/1/run", {})
    standalone.wait_for(
        lambda: standalone.call("GET", f"/runs/{asked['id']}")["state"] == "running", 30, "run in progress"
    )
    standalone.stop()
    assert standalone.process is not None
    assert asked["id"] in standalone.process.log_text()
    nothing_left(standalone, within_s=30)
    standalone.start()
    run = standalone.wait_for(lambda: standalone._over(asked["id"]), 30, "late report")
    assert (run["state"], run["exit_code"]) == ("succeeded", 0)
    standalone.stop()


def test_a_taken_port_gives_one_clear_line(standalone: Standalone) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", standalone.port))
        other.listen()
        process = standalone.start(wait=False)
        assert process.wait(30) == 1
    said = process.log_text().splitlines()[1:]
    assert said == [f"Error: port {standalone.port} of 127.0.0.1 is taken; choose another one with --port"]
    assert not standalone.data.exists()


def test_two_starts_on_one_folder_are_refused(standalone: Standalone, node: Node) -> None:
    standalone.start()
    second = Standalone(node, standalone.folder)
    process = second.start(wait=False)
    assert process.wait(60) == 1
    assert "another standalone uses" in process.log_text()
    assert standalone.run_now(standalone.call("POST", "/jobs", LISTING)["id"])["state"] == "succeeded"
    standalone.stop()


def test_ephemeral_leaves_nothing(standalone: Standalone) -> None:
    standalone.start("--ephemeral")
    standalone.call("POST", "/jobs", {**LISTING, "executable": "sleep 60"})
    asked = standalone.call("POST", "/jobs/1/run", {})
    standalone.wait_for(
        lambda: standalone.call("GET", f"/runs/{asked['id']}")["state"] == "running", 30, "run in progress"
    )
    assert [path for path in standalone.folder.iterdir() if path.name.startswith("cronkeeper-standalone-")]
    standalone.stop()
    nothing_left(standalone)
    assert not [path for path in standalone.folder.iterdir() if path.name.startswith("cronkeeper-standalone-")]


def test_without_root_the_users_own_crontab_is_used(node: Node, folder: Path) -> None:
    user = "games"
    python = python_for(user)
    if python is None:
        pytest.skip(f"{user} may not use this checkout, or any Python of our version")
    shutil.chown(folder, user)
    standalone = Standalone(node, folder, user=user, python=python)
    standalone.start()
    standalone.call("POST", "/jobs", LISTING)
    # crontab(1) writes a file of another name first.
    own = [f"/var/spool/cron/crontabs/{user}"]
    standalone.wait_for(lambda: standalone.entries() and list(node.read_crontabs()) == own, 20, "entry in the crontab")
    run = standalone.run_now("1")
    assert (run["state"], run["exit_code"]) == ("succeeded", 0)
    standalone.stop()
    nothing_left(standalone)
    assert standalone.entries() == []


def python_for(user: str) -> str | None:
    """Return a Python that the account may use with our code: ours, or else the system's (ours may lie below /root)."""
    account = pwd.getpwnam(user)
    become = ["setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    for python in (sys.executable, "/usr/bin/python3"):
        # Started once more by itself: setpriv still has root's rights when it looks for the program.
        program = (
            "import subprocess, sys, pydantic_core, cronkeeper_cli.main; subprocess.check_call([sys.executable, '-V'])"
        )
        argv = [*become, python, "-c", program]
        try:
            subprocess.run(argv, env={"PYTHONPATH": PYTHONPATH}, capture_output=True, check=True, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None
