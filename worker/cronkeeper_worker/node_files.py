"""The worker's state directory: what lies where, who the worker is, and the lock that keeps daemon and cron apart."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from cronkeeper.domain.ids import is_worker_id
from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.root_rules import is_split

JOURNAL = "journal.db"
ARTIFACTS = "artifacts"
LOCK = "daemon.lock"
AWAY, START = "away.json", "start.json"
_ID = "worker-id"


def prepare(state_dir: Path) -> None:
    """Create the directory. Others may pass through it (runs have folders of their own below), not look into it.

    With a root part, runs are root's business: then nobody else has any in here.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    state_dir.chmod(0o700 if is_split(str(state_dir)) else 0o711)


def worker_id(state_dir: Path, configured: str) -> str:
    """Return this node's stable name: the configured one, or one made once and kept on disk.

    Raises ConfigError when the directory belongs to another worker: two daemons must never share a name or a journal.
    """
    path = state_dir / _ID
    kept = path.read_text().strip() if path.exists() else ""
    if kept and configured and kept != configured:
        raise ConfigError(f"worker_id: {state_dir} belongs to worker {kept!r}, not to {configured!r}")
    name = kept or configured or f"{_host()}-{secrets.token_hex(3)}"
    if not is_worker_id(name):
        raise ConfigError(f"worker_id: {name!r} in {path} is not a worker's name")
    if not kept:
        write_private(path, name.encode() + b"\n")
    return name


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only this account may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def save_settings(state_dir: Path, config: WorkerConfig, name: str = AWAY) -> None:
    """Leave the settings for `cronkeeper-fire` (AWAY), or for the daemon that is about to be executed (START)."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found[field.name] = value if isinstance(value, (str, bool, int, float, tuple, dict)) else str(value)
    write_private(state_dir / name, json.dumps(found).encode())


def drop_settings(state_dir: Path) -> None:
    """This node leaves: a `cronkeeper-fire` that cron has just started finds nothing to stand in for."""
    (state_dir / AWAY).unlink(missing_ok=True)


def load_settings(state_dir: Path, name: str = AWAY) -> WorkerConfig:
    """Return what `save_settings` left. Raises ConfigError when no daemon has ever run here."""
    try:
        data = json.loads((state_dir / name).read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"no worker has been started with state directory {state_dir}") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"{state_dir / name} is damaged; start the worker once")
    return load(WorkerConfig, file=None, environ={}, flags=data, judge=False)


class NodeLock:
    """Held by the daemon while it lives, and by `cronkeeper-fire` while it decides in the daemon's place."""

    def __init__(self, state_dir: Path) -> None:
        self._descriptor = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def acquire(self, timeout_s: float) -> bool:
        """Try to take the lock for so long; say whether it is ours."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.05)
            else:
                return True

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def _host() -> str:
    name = "".join(char if char.isalnum() or char in "-_" else "-" for char in socket.gethostname().split(".")[0])
    return name.strip("-_")[:48] or "node"
