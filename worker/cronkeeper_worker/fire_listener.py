"""The daemon's ear for `cronkeeper-fire`, and the command itself as it stands in the crontab."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cronkeeper_worker import fire
from cronkeeper_worker.peers import peer_uid

_LOOK = re.compile(rb"look ([0-9]{1,18})\n", re.ASCII)
#: Who connects and says nothing is hung up on.
_SPEAK_S = 1.0
#: While nobody can be let in, for want of descriptors, the door is tried again after so long.
_DOOR_S = 0.1
_BACKLOG = 1024


def fire_path(top: Path) -> Path:
    """Return the path of the command that crontab entries call."""
    return top / "bin" / "cronkeeper-fire"


def install_fire(top: Path, python: str, split: tuple[Path, int, int] | None = None) -> Path:
    """Write the command that crontab entries call, and return its path. Safe to repeat; replaced whole.

    `python` is the daemon's own interpreter, which the stand-in needs when the daemon is away. `split` is the daemon's
    folder and account, where it is not ours.
    """
    path = fire_path(top)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    argv = [python, "-ISs", os.path.abspath(fire.__file__), str(top if split is None else split[0]), python]
    words = shlex.join(argv if split is None else [*argv, str(top), *map(str, split[1:])])
    # A shell costs 1 ms; but the first line of a Python script would have room for 127 characters of a path only.
    text = f'#!/bin/sh\nexec {words} "$1"\n'
    if path.exists() and path.read_text() == text:
        return path
    temporary = path.with_name(".cronkeeper-fire.tmp")
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.rename(path)
    return path


class FireListener:
    """Answers `cronkeeper-fire` on a Unix socket of this account: only root and the account itself may ask.

    `on_look` gets the number in the crontab line, from the listener's thread; it must return at once. Calls that come
    together with the same number are one call: a look finds everything that is due, however often it is asked for.
    """

    def __init__(self, path: Path, on_look: Callable[[int], None]) -> None:
        self._path = path
        self._on_look = on_look
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._wake_in, self._wake_out = -1, -1
        self._clients: dict[int, tuple[socket.socket, float]] = {}

    def start(self) -> None:
        """Listen, in place of whoever did before (the node's lock is ours). Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        # Created with the access it keeps: there is no moment in which others could connect.
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        self._socket = listener
        self._wake_in, self._wake_out = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="fire-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering: from now on `cronkeeper-fire` stands in for us. Safe to repeat."""
        if self._thread is None or self._socket is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.write(self._wake_out, b"x")
        self._thread.join()
        self._thread = None
        self._socket.close()
        for client, _ in self._clients.values():
            client.close()
        self._clients.clear()
        os.close(self._wake_in)
        os.close(self._wake_out)

    def _serve(self) -> None:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_in, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(1000 * _SPEAK_S if self._clients else None)}
            if self._wake_in in ready:
                return
            looks = [self._hear(poll, fd) for fd in ready if fd in self._clients]
            self._answer([look for look in looks if look is not None])
            if self._socket.fileno() in ready:
                self._accept(poll)
            self._hang_up_on_the_silent(poll)

    def _accept(self, poll: select.poll) -> None:
        assert self._socket is not None
        for _ in range(_BACKLOG):
            try:
                client, _address = self._socket.accept()
            except BlockingIOError:  # nobody is waiting any more
                return
            except OSError:
                # Whoever waits keeps the next turn from waiting.
                time.sleep(_DOOR_S)
                return
            if peer_uid(client) not in (0, os.geteuid()):
                client.close()
                continue
            client.setblocking(False)
            self._clients[client.fileno()] = (client, time.monotonic() + _SPEAK_S)
            poll.register(client, select.POLLIN)

    def _hear(self, poll: select.poll, fd: int) -> tuple[int, socket.socket] | None:
        client, _deadline = self._clients.pop(fd)
        poll.unregister(fd)
        try:
            match = _LOOK.fullmatch(client.recv(64))
        except OSError:
            match = None
        if match is None:
            client.close()
            return None
        return int(match[1]), client

    def _answer(self, looks: list[tuple[int, socket.socket]]) -> None:
        for number in sorted({number for number, _ in looks}):
            self._on_look(number)
        for _number, client in looks:
            with contextlib.suppress(OSError):
                client.send(b"ok\n")
            client.close()

    def _hang_up_on_the_silent(self, poll: select.poll) -> None:
        now = time.monotonic()
        for fd in [fd for fd, (_, deadline) in self._clients.items() if deadline < now]:
            client, _ = self._clients.pop(fd)
            poll.unregister(fd)
            client.close()
