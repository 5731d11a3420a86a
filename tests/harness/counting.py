"""Counts what this process asks for: statements of MySQL, requests of ZooKeeper, and, by strace, syncs and processes.

Nothing is replaced: the counters listen at the real connections. So the figures are those of the product, and the same
on a slow machine as on a fast one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.protocol.serialization import Sync, Transaction
from sqlalchemy import Engine, event

_SYSTEM_CALLS = "fsync,fdatasync,fork,vfork,clone,clone3,execve"
_CALL = re.compile(r"^\d+ +(?P<name>\w+)\(")
_EXECUTED = re.compile(r"^\d+ +(execve\(.*|<\.\.\. execve resumed>.*)= 0$")
_WRITES = ("Create", "Create2", "SetData", "Delete")
_PATIENCE_S = 10.0


@dataclass(slots=True)
class Counts:
    """What was asked while it counted. A transaction of ZooKeeper is one request and as many writes as it holds."""

    statements: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    writes: int = 0

    @property
    def sql(self) -> int:
        return len(self.statements)

    @property
    def zookeeper(self) -> int:
        return self.requests.total()

    @property
    def kinds(self) -> Counter[str]:
        """The statements by their beginnings: how many values one has makes no difference."""
        return Counter(" ".join(statement.split())[:80] for statement in self.statements)


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count, in all threads of this process. The session's own signs of life are left out: they go by time."""
    counts, lock, original = Counts(), threading.Lock(), KazooClient._call

    def on_statement(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        with lock:
            counts.statements.append(statement)

    def call(self: KazooClient, request: Any, answer: Any) -> Any:
        if not isinstance(request, Sync):
            operations = request.operations if isinstance(request, Transaction) else [request]
            with lock:
                counts.requests[type(request).__name__] += 1
                counts.writes += sum(type(one).__name__ in _WRITES for one in operations)
        return original(self, request, answer)

    event.listen(Engine, "before_cursor_execute", on_statement)
    KazooClient._call = call
    try:
        yield counts
    finally:
        KazooClient._call = original
        event.remove(Engine, "before_cursor_execute", on_statement)


@dataclass(slots=True)
class SystemCalls:
    """What this process and all its offspring asked of the kernel."""

    syncs: int = 0
    forks: int = 0
    execs: int = 0


@contextlib.contextmanager
def traced(log: Path) -> Iterator[SystemCalls]:
    """Have strace watch this process and what it starts from now on; the figures are there after the `with`."""
    found = SystemCalls()
    argv = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={_SYSTEM_CALLS}", "-p", str(os.getpid())]
    tracer = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while _untraced():
            assert tracer.poll() is None and time.monotonic() < deadline, "strace does not watch us"
            time.sleep(0.01)
        yield found
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(_PATIENCE_S)
    for line in log.read_text().splitlines():
        found.execs += _EXECUTED.match(line) is not None
        call = _CALL.match(line)
        if call is None:
            continue
        found.syncs += call["name"] in ("fsync", "fdatasync")
        found.forks += call["name"] in ("fork", "vfork", "clone", "clone3") and "CLONE_THREAD" not in line


def _untraced() -> list[str]:
    """Return the threads of this process that nobody traces."""
    tasks = [path.read_text() for path in Path("/proc/self/task").glob("*/status")]
    return [text for text in tasks if "\nTracerPid:\t0\n" in text]
