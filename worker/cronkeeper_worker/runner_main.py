"""The runner: the small process that is the parent of all runs on a node, and outlives the worker daemon.

    python -ISs runner_main.py <state folder> [<idle seconds> [stay]]

It detaches itself (unless told to stay), refuses to be there twice (flock on runner.lock), listens on runner.sock
(owner only) and ends by itself once it has had neither a run nor a client for a minute (or as told). All it knows is in
the runs' folders too, so it may be killed at any time.

Where root has laid down rules (`root.json`), it is the root part of the node: it takes calls from the daemon's account,
starts signed tasks only (see `warrants.py`), and puts crontab files in place. It believes nothing that it cannot check.

Messages are JSON objects, one a line. First the client says `{"op": "hello", "protocol": 5}`, and the runner answers
with its own protocol, its pid and everything that runs; then come all ends that nobody acknowledged. `hello` and
`finish` are the same in every protocol. A runner that is told `finish` gives up its socket and its lock at once, stays
with its own runs until they have ended, and goes; a newer runner adopts them meanwhile by their folders.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import gc
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Under -I the interpreter has no path to us. At its end the folder shadows nothing of the standard library, and
# cronkeeper_worker/__init__.py holds a docstring only: nothing heavy comes in.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cronkeeper_worker import programs, root_artifacts, root_rules  # noqa: E402
from cronkeeper_worker.executor import Executor  # noqa: E402
from cronkeeper_worker.orders import AccountError, OrderError, RunEvent, SpawnFailed, event_to_json, order_from  # noqa: E402
from cronkeeper_worker.orphans import Orphans  # noqa: E402
from cronkeeper_worker.peers import peer_uid  # noqa: E402
from cronkeeper_worker.root_crontab import Placing  # noqa: E402
from cronkeeper_worker.warrants import Warrants  # noqa: E402

PROTOCOL = 5
SOCKET, LOCK, LOG = "runner.sock", "runner.lock", "runner.log"
IDLE_S = 60.0
_READ_BYTES = 1 << 18
_MAX_LINE = 1 << 26
#: From a daemon that is not believed.
_MAX_FOREIGN_LINE, _MAX_CLIENTS = 1 << 23, 64
#: What a client may leave unread before it is cut off; on its return it is told everything anew.
_MAX_UNREAD = 1 << 26
_EPOLLIN, _EPOLLOUT = 1, 4
#: While nobody can be let in, for want of descriptors, the door is tried again after so long.
_DOOR_S = 0.1
_MAX_LOG = 1 << 20


class _Client:
    __slots__ = ("fd", "greeted", "incoming", "outgoing", "socket", "uid")

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self.fd = fd
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.greeted = False
        self.uid = peer_uid(self.socket)


class Runner:
    """Serves clients and drives the executor, in one thread."""

    def __init__(self, state_dir: str, lock_fd: int, idle_s: float, rules: root_rules.Rules | None = None) -> None:
        self._state_dir = state_dir
        self._idle_s = idle_s
        self._lock_fd = lock_fd
        self._rules = rules
        self._warrants = Warrants(state_dir, rules) if rules is not None else None
        group, processes = (-1, 0) if rules is None else (rules.gid, rules.processes)
        self._executor = Executor(state_dir, group=group, processes=processes, log=_log)
        self._placing = Placing(self._executor)
        self._orphans = Orphans(self._executor)
        self._clients: dict[int, _Client] = {}
        self._listener: _socket.socket | None = None
        self._idle_since = time.monotonic()
        self._finishing = False
        #: Set by SIGTERM; obeyed within the 5 s of a turn.
        self.asked_to_finish = False

    def run(self) -> None:
        """Serve until there is nothing more to do."""
        self._listen()
        self._orphans.finish_off(self._orphans.scan())
        gc.collect()
        gc.freeze()  # the collector would touch, and so copy, every page after each fork
        while not self._done():
            events = self._executor.poll(min(5.0, self._idle_s))
            if events:
                self._broadcast(events)
            for client in list(self._clients.values()):
                if client.outgoing:
                    self._flush(client)
            if self.asked_to_finish:
                self._give_up_name()
            # While somebody listens, the event reaches a journal in no time; otherwise our note is all there is.
            self._executor.flush_exits = not self._clients
        self._executor.groups.close()

    def _done(self) -> bool:
        if not (self._executor.idle and self._orphans.idle):
            self._idle_since = time.monotonic()
            return False
        if self._finishing:
            return not any(client.outgoing for client in self._clients.values())
        if self._clients:
            self._idle_since = time.monotonic()
        if time.monotonic() - self._idle_since < self._idle_s:
            return False
        self._give_up_name()
        return True

    # -------------------------------------------------------------------------------------------------------- socket

    def _listen(self) -> None:
        path = os.path.join(self._state_dir, SOCKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a runner that was killed: we hold the lock
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
        listener.bind(path)
        if self._rules is not None:
            os.chown(path, 0, self._rules.gid)
        os.chmod(path, 0o600 if self._rules is None else 0o660)
        listener.listen(16)
        self._listener = listener
        self._executor.watch(listener.fileno(), self._accept)

    def _open_door(self) -> None:
        if self._listener is not None:
            self._executor.watch(self._listener.fileno(), self._accept)

    def _give_up_name(self) -> None:
        """Make room for another runner. The socket goes before the lock: nobody else's socket is ever removed."""
        self._finishing = True
        if self._listener is not None:
            self._executor.unwatch(self._listener.fileno())
            os.unlink(os.path.join(self._state_dir, SOCKET))
            self._listener.close()
            self._listener = None
            # Our children hold it, too: to close it would not do.
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
            os.close(self._lock_fd)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # `socket` would cost 1 MiB
        except BlockingIOError:
            return
        except OSError:
            # Whoever waits keeps the next turn from waiting.
            self._executor.unwatch(self._listener.fileno())
            self._executor.timers.after(_DOOR_S, self._open_door)
            return
        client = _Client(fd)
        known = (0, os.geteuid() if self._rules is None else self._rules.uid)
        if client.uid not in known or len(self._clients) >= _MAX_CLIENTS:
            client.socket.close()
            return
        self._clients[fd] = client
        self._executor.watch(fd, lambda: self._on_ready(client))

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.fd, None) is not None:
            self._executor.unwatch(client.fd)
            client.socket.close()

    def _on_ready(self, client: _Client) -> None:
        try:
            data = client.socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._flush(client)
            return
        except OSError:
            data = b""
        client.incoming += data
        if not data or len(client.incoming) > (_MAX_LINE if self._rules is None else _MAX_FOREIGN_LINE):
            self._drop(client)
            return
        *lines, rest = client.incoming.split(b"\n")
        client.incoming = bytearray(rest)
        for line in lines:
            try:
                self._obey(client, json.loads(line))
            except Exception as exc:  # noqa: BLE001  # whatever a client says, the others' parent lives on
                # It does not speak our language. Nothing it said before is undone.
                _log(f"a client was cut off: {exc!r}")
                self._drop(client)
                return

    def _send(self, client: _Client, message: dict[str, object]) -> None:
        client.outgoing += json.dumps(message).encode() + b"\n"
        if len(client.outgoing) > _MAX_UNREAD:
            self._drop(client)

    def _flush(self, client: _Client) -> None:
        try:
            if client.outgoing:
                sent = client.socket.send(client.outgoing)
                del client.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.fd in self._clients:
            mask = _EPOLLIN | _EPOLLOUT if client.outgoing else _EPOLLIN
            self._executor.watch(client.fd, lambda: self._on_ready(client), mask=mask)

    # ------------------------------------------------------------------------------------------------------ messages

    def _obey(self, client: _Client, message: dict[str, object]) -> None:
        handlers = {
            "hello": self._hello,
            "start": self._start,
            "cancel": self._cancel,
            "ack": self._ack,
            "learn": self._learn,
            "crontab": self._crontab,
            "finish": self._finish,
        }
        handlers[str(message["op"])](client, message)

    def _hello(self, client: _Client, message: dict[str, object]) -> None:
        signed = self._warrants is not None
        self._send(client, {"op": "hello", "protocol": PROTOCOL, "pid": os.getpid(), "signed": signed})
        if message["protocol"] != PROTOCOL or self._finishing:
            return
        self._read_rules()
        ended = [*self._orphans.scan(), *self._executor.unwritten.values()]
        running: list[RunEvent] = [*self._executor.running(), *self._orphans.running()]
        self._send(
            client,
            {
                "op": "running",
                "events": [event_to_json(event) for event in running],
                "no_control_groups": self._executor.groups.reason,
            },
        )
        self._send(client, {"op": "events", "events": [event_to_json(event) for event in ended]})
        client.greeted = True

    def _read_rules(self) -> None:
        """Root may have laid down others since: whoever does so starts the daemon, which says hello."""
        if self._warrants is None or self._rules is None:
            return
        rules = root_rules.load(self._state_dir)
        if rules is not None:
            self._warrants.adopt(rules)
            self._rules = rules
        root_artifacts.tidy(self._state_dir)

    def _start(self, client: _Client, message: dict[str, object]) -> None:
        for data in _list(message["orders"]):
            try:
                order = order_from(data) if self._warrants is None else self._warrants.order(data)
            except (OrderError, OSError) as exc:
                if self._warrants is not None:
                    _log(f"an order was refused: {exc}")
                run_id, nonce = str(data["run_id"]), str(data["nonce"])
                # What was started by a task that is over meanwhile was started.
                if self._warrants is None or not self._executor.recall(run_id, nonce):
                    now_ms, account = time.time_ns() // 1_000_000, isinstance(exc, AccountError)
                    self._executor.tell(SpawnFailed(run_id, str(exc), now_ms, account))
            else:
                self._executor.start(order)

    def _learn(self, client: _Client, message: dict[str, object]) -> None:
        for sealed in _list(message["sealed"]):
            if self._warrants is not None:
                try:
                    self._warrants.learn(sealed)
                except OrderError as exc:
                    _log(f"a task was refused: {exc}")

    def _crontab(self, client: _Client, message: dict[str, object]) -> None:
        files, number = message["files"], message["number"]
        texts = None if files is None else [str(text) for text in _list(files)]

        def answer(kind: str, error: str) -> None:
            if client.fd in self._clients:
                self._send(client, {"op": "placed", "number": number, "kind": kind, "error": error})

        if self._rules is None or not self._rules.cron_dir:
            answer("OSError", "this node has no crontab files")
        else:
            fire = os.path.join(self._state_dir, "bin", "cronkeeper-fire")
            self._placing.place(self._rules.cron_dir, fire, texts, answer)

    def _cancel(self, client: _Client, message: dict[str, object]) -> None:
        self._executor.cancel(str(message["run_id"]))
        self._orphans.cancel(str(message["run_id"]))

    def _ack(self, client: _Client, message: dict[str, object]) -> None:
        for run_id in _list(message["run_ids"]):
            if not self._orphans.knows(str(run_id)):
                self._executor.forget(str(run_id))

    def _finish(self, client: _Client, message: dict[str, object]) -> None:
        if self._rules is None or client.uid == 0:  # who cannot start a root part may not send one away
            self._give_up_name()

    def _broadcast(self, events: list[RunEvent]) -> None:
        message: dict[str, object] = {"op": "events", "events": [event_to_json(event) for event in events]}
        for client in list(self._clients.values()):
            if client.greeted:
                self._send(client, message)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is missing")
    return value


def _lock(state_dir: str) -> int | None:
    """Take the runner's lock; None when another runner has it. The kernel gives it back when we die."""
    fd = os.open(os.path.join(state_dir, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _redirect(state_dir: str) -> None:
    """Point stdin to nowhere, and what Python itself may print to a small log."""
    path = os.path.join(state_dir, LOG)
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log).st_size > _MAX_LOG:
        os.ftruncate(log, 0)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fd in (null, log):
        if fd > 2:
            os.close(fd)


def _log(sentence: str) -> None:
    with contextlib.suppress(OSError):
        # Whoever has us complain again and again fills no disk.
        if os.fstat(2).st_size > _MAX_LOG:
            os.ftruncate(2, 0)
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}", file=sys.stderr, flush=True)  # noqa: T201


def main(state_dir: str, idle_s: float = IDLE_S, *, stay: bool = False) -> int:
    """Detach and serve. Exit status 0, also when another runner is there already."""
    if not stay:
        programs.detach()
    rules = root_rules.load(state_dir) if os.geteuid() == 0 else None
    os.umask(0o077 if rules is None else 0o027)
    lock_fd = _lock(state_dir)
    if lock_fd is None:
        return 0
    _redirect(state_dir)
    os.chdir("/")
    runner = Runner(state_dir, lock_fd, idle_s, rules)

    def finish(*_: object) -> None:
        runner.asked_to_finish = True

    # Whoever means the daemon does not mean the runs: asked to end, we end when the last run has. (A handler, because
    # the jobs would inherit an ignored signal.)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, finish)
    runner.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:3]), stay=sys.argv[3:] == ["stay"]))
