"""What a daemon asks of the stores at its start: does one of them answer, and refuse what we shall have to do?

`python -m cronkeeper_worker.canary <state folder>` is the part that asks S3: in a process of its own, for the daemon of
a node without artifacts is not to carry the 30 MB of that library.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.loop import spawn_thread
from cronkeeper.stores import send_database_canary, send_object_canary
from cronkeeper_worker import node_files
from cronkeeper_worker.config import WorkerConfig

log = logging.getLogger(__name__)


def send_canaries(config: WorkerConfig, end: Callable[[BaseException], None]) -> None:
    """Ask MySQL, and raise ConfigError if it refuses us; then ask the object store meanwhile, and call `end`.

    No fire waits for the object store: a run without artifacts does not need it.
    """
    send_database_canary(config, "worker")
    spawn_thread("canary", lambda: _ask_object_store(config), end)


def _ask_object_store(config: WorkerConfig) -> None:
    if not config.blob_url.startswith("s3://"):
        send_object_canary(config, writes=False)
        return
    argv = [sys.executable, "-m", "cronkeeper_worker.canary", str(config.state_dir)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 2:
        raise ConfigError(done.stderr.strip())
    if done.returncode != 0:
        log.warning("the object store was not asked", extra={"event": "canary.failed", "error": done.stderr[-500:]})


def main(argv: list[str]) -> int:
    """Read the object; return 2 if the object store refuses us, with its words on stderr."""
    try:
        send_object_canary(node_files.load_settings(Path(argv[1]), node_files.START), writes=False)
    except ConfigError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - for the daemon
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
