"""The end of the worker's runner, which outlives the worker on purpose: standalone asks it to go as well."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from pathlib import Path
from typing import Any

from cronkeeper_worker.runner_main import PROTOCOL, SOCKET


def finish_runner(state_dir: Path, *, cancel: bool, timeout_s: float) -> list[str]:
    """Have the runner of this folder end, and return the runs that are still in progress after `timeout_s`.

    A runner with runs in progress ends by itself after the last of them; with `cancel` they are ended, too. No runner
    is no error.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(state_dir / SOCKET))
            with connection.makefile("rwb") as stream:
                return _finish(stream, cancel=cancel, timeout_s=timeout_s)
        except OSError:
            return []


def _finish(stream: Any, *, cancel: bool, timeout_s: float) -> list[str]:
    deadline = time.monotonic() + timeout_s
    _send(stream, {"op": "hello", "protocol": PROTOCOL})
    pid = int(_next(stream)["pid"])
    running = {str(event["run_id"]) for event in _next(stream)["events"]}
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            for run_id in running if cancel else ():
                _send(stream, {"op": "cancel", "run_id": run_id})
            _send(stream, {"op": "finish"})
            if running and not cancel:
                return sorted(running)
            select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(pidfd)
    return []


def _send(stream: Any, message: dict[str, object]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _next(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise ConnectionResetError("the runner hung up")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise OSError("the runner speaks another language")
    return found
