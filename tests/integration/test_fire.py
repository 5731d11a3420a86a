"""`cronkeeper-fire`, as a crontab entry calls it, against the daemon's ear."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper_worker.fire_listener import FireListener, install_fire
from tests.harness.folders import make_folder, remove_folder

SYSTEM_PYTHON = "/usr/bin/python3"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/", "LOGNAME": "root", "SHELL": "/bin/sh"}


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("fire")
    yield folder
    remove_folder(folder)


@pytest.fixture
def looks(folder: Path) -> Iterator[list[int]]:
    looks: list[int] = []
    listener = FireListener(folder / "fire.sock", looks.append)
    listener.start()
    yield looks
    listener.stop()


def stand_in(folder: Path) -> str:
    """An interpreter that only notes how it was called, in the place of the daemon's."""
    path = folder / "python"
    real = shutil.which(sys.executable)
    path.write_text(f'#!/bin/sh\n[ "$1" = -ISs ] && exec {real} "$@"\necho "$@" >>{folder}/stand-in\n')
    path.chmod(0o755)
    return str(path)


def call(path: Path, number: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([path, str(number)], env=ENVIRONMENT, capture_output=True, timeout=60, check=True)


def test_the_daemon_hears_the_number_and_cron_gets_no_mail(folder: Path, looks: list[int]) -> None:
    done = call(install_fire(folder, sys.executable), 42)
    assert looks == [42]
    assert done.stdout == done.stderr == b""


def test_without_a_daemon_the_stand_in_is_called(folder: Path) -> None:
    path = install_fire(folder, stand_in(folder))
    call(path, 42)
    assert (folder / "stand-in").read_text() == f"-m cronkeeper_worker.away {folder} 42\n"


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "fire.sock"))
    dead.listen()
    dead.close()
    call(install_fire(folder, stand_in(folder)), 7)
    assert (folder / "stand-in").read_text().endswith(" 7\n")


def test_a_daemon_that_does_not_answer_is_stood_in_for(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as wedged:
        wedged.bind(str(folder / "fire.sock"))
        wedged.listen()
        began = time.monotonic()
        call(install_fire(folder, stand_in(folder)), 7)
        assert 2 <= time.monotonic() - began < 30
    assert (folder / "stand-in").read_text().endswith(" 7\n")


def test_a_flood_is_heard_and_becomes_few_looks(folder: Path) -> None:
    heard: list[int] = []
    gate = threading.Event()

    def on_look(number: int) -> None:
        gate.wait(30)
        heard.append(number)

    listener = FireListener(folder / "fire.sock", on_look)
    listener.start()
    clients = []
    try:
        for _ in range(500):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(30)
            client.connect(str(folder / "fire.sock"))
            client.sendall(b"look 5\n")
            clients.append(client)
        gate.set()
        assert {client.recv(16) for client in clients} == {b"ok\n"}
    finally:
        for client in clients:
            client.close()
        listener.stop()
    assert set(heard) == {5}
    assert len(heard) < 500


def test_nonsense_is_hung_up_on_and_disturbs_nobody(folder: Path, looks: list[int]) -> None:
    for nonsense in (b"look\n", b"look -1\n", b"look 1; rm -rf /\n", b"\0" * 64, b"look 99999999999999999999\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(folder / "fire.sock"))
            client.sendall(nonsense)
            assert client.recv(16) == b""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.settimeout(30)
        silent.connect(str(folder / "fire.sock"))
        call(install_fire(folder, sys.executable), 42)
        assert silent.recv(16) == b""
    assert looks == [42]


@pytest.mark.skipif(os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists(), reason="takes root and the system's Python")
def test_another_account_is_not_heard(folder: Path, looks: list[int]) -> None:
    (folder / "fire.sock").chmod(0o666)  # even if the file let it in
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]);"
        "s.sendall(b'look 1\\n'); print(s.recv(16))"
    )
    argv = [SYSTEM_PYTHON, "-ISc", code, str(folder / "fire.sock")]
    heard = subprocess.run(argv, capture_output=True, timeout=60, check=True)
    assert heard.stdout == b"b'ok\\n'\n" and looks == [1]
    refused = subprocess.run(argv, user="nobody", group="nogroup", capture_output=True, timeout=60, check=False)
    assert b"ok" not in refused.stdout and b"No such file" not in refused.stderr
    assert looks == [1]


def test_the_command_is_replaced_whole_and_only_when_it_changes(folder: Path) -> None:
    path = install_fire(folder, sys.executable)
    assert path.stat().st_mode & 0o777 == 0o755
    inode = path.stat().st_ino
    assert install_fire(folder, sys.executable).stat().st_ino == inode
    install_fire(folder, "/usr/bin/python3")
    assert "/usr/bin/python3" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["cronkeeper-fire"]
