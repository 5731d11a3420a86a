"""The daemon's end of the runner: starts one when there is none, hands over orders, and delivers what happens."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cronkeeper.errors import UnavailableError
from cronkeeper_worker import launch, runner_main
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

_SEND_TIMEOUT_S = 10.0
_LOOK_S = 0.02


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
    ) -> None:
        self._state_dir = Path(state_dir)
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
        self._send({"op": "start", "orders": [order.as_json() for order in orders]})

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
        launch.start_runner(self._python, os.path.abspath(runner_main.__file__), str(self._state_dir), self._idle_s)

    def _connect(self, deadline: float) -> None:
        """Say hello and take in what runs. Raises OSError; FileNotFoundError and ConnectionRefusedError: no runner."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(str(self._state_dir / runner_main.SOCKET))
            lines = _Lines(connection)
            _send(connection, {"op": "hello", "protocol": runner_main.PROTOCOL})
            hello = lines.next()
            if hello["protocol"] != runner_main.PROTOCOL:
                _send(connection, {"op": "finish"})
                raise OSError(f"it speaks protocol {hello['protocol']}")
            running = [event_from(data) for data in lines.next()["events"]]
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

    def _read(self, connection: socket.socket, lines: _Lines, running: Sequence[RunnerEvent]) -> None:
        reason = "it hung up"
        try:
            self._deliver(running)
            self._deliver([event_from(data) for data in lines.next()["events"]])
            self._order_again()
            while True:
                self._deliver([event_from(data) for data in lines.next()["events"]])
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
            self._send({"op": "start", "orders": [order.as_json() for order in orders]})

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


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
