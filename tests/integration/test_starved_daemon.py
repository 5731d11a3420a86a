"""Those who serve others while nothing can be opened: they live, rest between two tries, and go on."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.blob import open_blobs
from cronkeeper_worker.artifacts import ArtifactCache
from cronkeeper_worker.fire_listener import FireListener
from cronkeeper_worker.orders import RunnerEvent
from cronkeeper_worker.runner_client import RunnerClient
from cronkeeper_worker.runner_main import PROTOCOL
from tests.harness.folders import make_folder, remove_folder
from tests.harness.starved import no_descriptors

STARVED_S = 1.0


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("starved")
    yield folder
    remove_folder(folder)


def test_who_fetches_files_lives_through_it(folder: Path) -> None:
    cache = ArtifactCache(folder / "artifacts", open_blobs(f"file://{folder}/blobs"))
    (folder / "artifacts" / "stray").touch()
    thread = threading.Thread(target=cache.run)
    with no_descriptors():
        thread.start()
        time.sleep(STARVED_S)
    assert thread.is_alive()
    assert (folder / "artifacts" / "stray").exists()
    cache.want([])
    while (folder / "artifacts" / "stray").exists() and thread.is_alive():
        time.sleep(0.05)
    cache.stop()
    thread.join(30)
    assert not (folder / "artifacts" / "stray").exists()


def test_the_ear_for_cron_rests_and_hears_later(folder: Path) -> None:
    looks: list[int] = []
    listener = FireListener(folder / "fire.sock", looks.append)
    listener.start()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            with no_descriptors():
                client.connect(str(folder / "fire.sock"))
                client.sendall(b"look 7\n")
                busy_s = time.process_time()
                time.sleep(STARVED_S)
                assert time.process_time() - busy_s < STARVED_S / 2
            assert client.recv(16) == b"ok\n"
    finally:
        listener.stop()
    assert looks == [7]


def test_the_runner_rests_and_lets_in_later(folder: Path) -> None:
    events: list[RunnerEvent] = []
    client = RunnerClient(folder, events.append, idle_s=0.5)
    client.ensure()
    try:
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(30)
            pid = _runner(folder)
            time.sleep(0.3)  # it has noticed that we who asked are gone
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
            lowest = next(number for number in range(limits[1]) if number not in used)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, limits[1]))
            other.connect(str(folder / "runner.sock"))
            other.sendall(json.dumps({"op": "hello", "protocol": PROTOCOL}).encode() + b"\n")
            busy_s = _busy_s(pid)
            time.sleep(STARVED_S)
            assert _busy_s(pid) - busy_s < STARVED_S / 2
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            assert json.loads(other.makefile().readline())["pid"] == pid
    finally:
        client.close()


def _runner(folder: Path) -> int:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(30)
        asking.connect(str(folder / "runner.sock"))
        asking.sendall(json.dumps({"op": "hello", "protocol": PROTOCOL}).encode() + b"\n")
        return int(json.loads(asking.makefile().readline())["pid"])


def _busy_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
