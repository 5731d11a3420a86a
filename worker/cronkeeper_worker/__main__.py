"""`python -m cronkeeper_worker <state folder>`: the daemon, with the settings that `cronkeeper worker` has checked.

The command line replaces itself by this, so that a daemon which lives for months does not carry it along.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cronkeeper_worker import node_files, root_start
from cronkeeper_worker.config import WorkerConfig


def execute(config: WorkerConfig) -> int:
    """Become the daemon: never returns. Raises ConfigError when the state folder cannot be written."""
    config = root_start.settle(config)
    node_files.prepare(config.state_dir)
    node_files.save_settings(config.state_dir, config, node_files.START)
    os.execv(sys.executable, [sys.executable, "-m", "cronkeeper_worker", str(config.state_dir)])  # noqa: S606


def main(argv: list[str]) -> int:
    """Run the daemon; return the exit status, 2 for settings that cannot be used."""
    from cronkeeper.errors import ConfigError
    from cronkeeper_worker.daemon import run

    try:
        return run(node_files.load_settings(Path(argv[1]), node_files.START))
    except ConfigError as exc:
        print(f"cronkeeper worker: {exc}", file=sys.stderr)  # noqa: T201 - logs are not set up yet
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
