"""The daemon's end of the runner: starts one when there is none, hands over orders, and delivers what happens."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cronkeeper.errors import UnavailableError
from cronkeeper_worker import programs, root_part, runner_main
from cronkeeper_worker.orders import (
    Ended,
    Expired,
    Order,
    RunnerEvent,
    RunnerLost,
    SpawnFailed,
    Started,
    check,
    event_from,
)
from cronkeeper_worker.peers import peer_uid

_SEND_TIMEOUT_S = 10.0
_LOOK_S = 0.02
_PLACED_WITHIN_S = 30.0
_PIECE_BYTES = 1 << 20
T = TypeVar("T")

log = logging.getLogger(__name__)


class RunnerClient:
    """One connection to the node's runner. Safe to use from several threads.

    `on_event` is called from one reader thread, in the order of events; it must return soon and may call any method but
    `ensure` and `close`. An event may come twice (after a reconnection): ended runs are told until `ack`.
    """

    def __init__(
        self,
        state_dir: str | Path,
        on_event: Callable[[RunnerEvent], None],
        *,
        python: str = sys.executable,
        idle_s: float = runner_main.IDLE_S,
        signed: bool = False,
    ) -> None:
        self._state_dir = Path(state_dir)
        #: It is a root part: what it is asked for goes by signed tasks, and root alone can start one.
        self.signed = signed
        self._on_event = on_event
        self._python = python
        #: How long a runner that we start stays without a run and without a client.
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._ensuring = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._running: dict[str, Started] = {}
        #: Sent, but neither started nor refused yet: sent again over the next connection.
        self._unanswered: dict[str, Order] = {}
        self._placing = threading.Lock()
        self._placed: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._number = 0
        #: Why runs have no control groups there, as far as it was told.
        self._told = ""

    @property
    def is_connected(self) -> bool:
        """Whether a runner was there at the last look."""
        return self._socket is not None

    def ensure(self, timeout_s: float = 10.0) -> None:
        """Connect, starting a runner when none answers. Cheap when connected already; call it in every turn of a loop.

        A runner of another protocol is told to finish (it stays with its runs until they end, and we hear of those
        through their folders) and a new one is started beside it. Raises UnavailableError after `timeout_s`.
        """
        with self._ensuring:
            if self._socket is not None:
                return
            deadline = time.monotonic() + timeout_s
            problem = "it did not answer"
            started = False
            while time.monotonic() < deadline:
                try:
                    self._connect(deadline)
                    return
                except (FileNotFoundError, ConnectionRefusedError):
                    if not started:
                        self._start_runner()
                        started = True
                except OSError as exc:
                    problem, started = str(exc), False
                time.sleep(_LOOK_S)
            raise UnavailableError(f"no runner in {self._state_dir}: {problem}")

    def start(self, orders: Sequence[Order]) -> None:
        """Hand over orders, all in one message; each is answered by Started, SpawnFailed or Expired.

        Raises OrderError when one of them is unsound: then none was sent. UnavailableError: call `ensure`; what was
        ordered is sent again by itself then. Ordering the same run twice is safe.
        """
        for order in orders:
            check(order)
        with self._lock:
            self._unanswered.update((order.run_id, order) for order in orders)
        self._order(orders)

    def learn(self, sealed: Iterable[bytes]) -> None:
        """Show signed tasks to the root part: it starts no older generation of them any more. UnavailableError."""
        for some in _pieces([envelope.decode("ascii", "replace") for envelope in sealed], len):
            self._send({"op": "learn", "sealed": some})

    def place(self, files: Sequence[str] | None) -> None:
        """Have the root part make these crontab files, and no others, stand there; None: the same ones, anew.

        Raises OSError or ValueError, as `CrontabTarget.install` does.
        """
        with self._placing:
            try:
                self.ensure()
                self._number += 1
                self._send({"op": "crontab", "number": self._number, "files": None if files is None else list(files)})
                answer = self._answer_to(self._number)
            except UnavailableError as exc:
                raise OSError(f"the root part cannot be reached: {exc}") from exc
        if answer["kind"]:
            raise (ValueError if answer["kind"] == "ValueError" else OSError)(str(answer["error"]))

    def _answer_to(self, number: int) -> dict[str, Any]:
        deadline = time.monotonic() + _PLACED_WITHIN_S
        while True:
            try:
                answer = self._placed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise OSError("the root part does not say whether the crontab was written") from None
            if answer["number"] == number:
                return answer

    def cancel(self, run_id: str) -> None:
        """Ask for a run's end; Ended follows. Safe to repeat, and to ask for a run that is over. UnavailableError."""
        self._send({"op": "cancel", "run_id": run_id})

    def ack(self, run_ids: Iterable[str]) -> None:
        """Say that these runs' ends are written down elsewhere: their folders are removed. UnavailableError."""
        self._send({"op": "ack", "run_ids": list(run_ids)})

    def running(self) -> list[Started]:
        """Return the runs that were alive at the last news."""
        with self._lock:
            return list(self._running.values())

    def close(self) -> None:
        """Hang up. The runner and the runs go on. Safe to repeat."""
        with self._ensuring:
            connection, self._socket = self._socket, None
            if connection is not None:
                _shut(connection)
            if self._reader is not None and self._reader is not threading.current_thread():
                self._reader.join()

    def _start_runner(self) -> None:
        if self.signed:
            if os.geteuid() == 0:
                root_part.start(str(self._state_dir), self._python, self._idle_s)
            return  # else it has a parent that starts it again, and root is who starts us
        programs.start_runner(self._python, os.path.abspath(runner_main.__file__), str(self._state_dir), self._idle_s)

    def _connect(self, deadline: float) -> None:
        """Say hello and take in what runs. Raises OSError; FileNotFoundError and ConnectionRefusedError: no runner."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(str(self._state_dir / runner_main.SOCKET))
            lines = _Lines(connection)
            _send(connection, {"op": "hello", "protocol": runner_main.PROTOCOL})
            hello = lines.next()
            if hello["protocol"] != runner_main.PROTOCOL or hello["signed"] is not self.signed:
                _send(connection, {"op": "finish"})
                raise OSError(f"it speaks protocol {hello['protocol']}")
            if peer_uid(connection) != (0 if self.signed else os.geteuid()):
                raise OSError("somebody else answers in the place of our runner")
            message = lines.next()
            running = [event_from(data) for data in message["events"]]
            self._tell(str(message.get("no_control_groups", "")))
            connection.settimeout(_SEND_TIMEOUT_S)
        except BaseException:
            connection.close()
            raise
        if self._reader is not None:
            self._reader.join()
        with self._lock:
            self._running = {event.run_id: event for event in running if isinstance(event, Started)}
            self._socket = connection
        self._reader = threading.Thread(
            target=self._read, args=(connection, lines, running), name="runner-client", daemon=True
        )
        self._reader.start()

    def _tell(self, reason: str) -> None:
        """Say it once: that which leaves a run's session on purpose then outlives the run, whatever ends it."""
        if reason and reason != self._told:
            log.warning(
                "runs have no control groups on this node", extra={"event": "runner.no_groups", "error": reason}
            )
        self._told = reason

    def _read(self, connection: socket.socket, lines: _Lines, running: Sequence[RunnerEvent]) -> None:
        reason = "it hung up"
        try:
            self._deliver(running)
            self._deliver([event_from(data) for data in lines.next()["events"]])
            self._order_again()
            while True:
                message = lines.next()
                if message["op"] == "placed":
                    self._placed.put(message)
                else:
                    self._deliver([event_from(data) for data in message["events"]])
        except (OSError, ValueError, KeyError, UnavailableError) as exc:
            reason = str(exc) or reason
        finally:
            # Also when `on_event` raised: whoever looks sees that nobody listens any more.
            with self._lock:
                # `close` took the socket away: then this end is no news.
                lost = self._socket is connection
                if lost:
                    self._socket = None
            _shut(connection)
        if lost:
            self._on_event(RunnerLost(reason))

    def _order_again(self) -> None:
        with self._lock:
            orders = list(self._unanswered.values())
        if orders:
            self._order(orders)

    def _order(self, orders: Sequence[Order]) -> None:
        if not self.signed:
            self._send({"op": "start", "orders": [order.as_json() for order in orders]})
            return
        for some in _pieces(orders, _size):
            self._send({"op": "start", "orders": [order.as_request() for order in some]})

    def _deliver(self, events: Sequence[RunnerEvent]) -> None:
        with self._lock:
            for event in events:
                match event:
                    case Started():
                        self._running[event.run_id] = event
                        self._unanswered.pop(event.run_id, None)
                    case Ended() | SpawnFailed() | Expired():
                        self._running.pop(event.run_id, None)
                        self._unanswered.pop(event.run_id, None)
                    case RunnerLost():
                        continue
        for event in events:
            self._on_event(event)

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._socket is None:
                raise UnavailableError("there is no connection to the runner")
            try:
                _send(self._socket, message)
            except OSError as exc:
                # Half a message may be out: this connection is of no use any more. The reader tells.
                _shut(self._socket)
                raise UnavailableError(f"the runner cannot be reached: {exc}") from exc


class _Lines:
    """Reads JSON objects, one a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def next(self) -> dict[str, Any]:
        """Return the next object, waiting for it as long as the socket's timeout allows before the first answer.

        Raises OSError (also at the end) and ValueError.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = self._connection.recv(1 << 18)
            except TimeoutError:
                # Silence is what an idle runner has to say; a dead one closes the connection.
                continue
            if not data:
                raise ConnectionResetError("the runner hung up")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("not a message")  # the same to the caller as any other broken line
        return found


def _size(order: Order) -> int:
    return len(order.sealed) + sum(len(secret.value) for secret in order.secrets.values())


def _pieces(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in pieces that a root part takes: it reads no message without end."""
    piece: list[T] = []
    total = 0
    for item in items:
        if piece and total + size(item) > _PIECE_BYTES:
            yield piece
            piece, total = [], 0
        piece.append(item)
        total += size(item)
    if piece:
        yield piece


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
