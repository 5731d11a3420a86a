"""Crontab files, put in place by the root part: in a child of its own, as fsync takes its time and runs do not wait."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronkeeper_worker.executor import Executor

MOST_FILES = 100


class Placing:
    """One child at a time; what it says comes out of the executor's loop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._busy = False

    def place(self, directory: str, fire: str, files: Sequence[str] | None, answer: Callable[[str, str], None]) -> None:
        """Have these files, all calling `fire`, and no others stand there; None: those that stand there, anew.

        `answer` gets the kind of error (`ValueError`, `OSError`, or nothing) and its words.
        """
        if self._busy:
            answer("OSError", "the crontab is being written at the moment")
            return
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
        except OSError as exc:
            answer("OSError", str(exc))
            return
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(reader)
            os.close(writer)
            answer("OSError", str(exc))
            return
        if pid == 0:
            _write(writer, directory, fire, files)
        os.close(writer)
        self._busy = True
        said = bytearray()

        def on_ready() -> None:
            data = os.read(reader, 4096)
            if data:
                said.extend(data)
                return
            self._executor.unwatch(reader)
            os.close(reader)
            self._executor.reap(pid)
            self._busy = False
            answer(*(json.loads(said) if said else ("OSError", "it died while it wrote the crontab")))

        self._executor.watch(reader, on_ready)


def _write(writer: int, directory: str, fire: str, files: Sequence[str] | None) -> None:
    """In the child: never returns, never raises."""
    said = ["OSError", "it cannot be said why"]
    try:
        # 2 MiB that the runner never needs.
        from pathlib import Path

        from cronkeeper_worker.crontab_form import check_calls
        from cronkeeper_worker.crontab_place import SystemFiles

        os.umask(0o022)
        target = SystemFiles(Path(directory), lambda _name, text: check_calls(text, fire))
        if files is None:
            target.renew()
        elif len(files) > MOST_FILES:
            raise ValueError(f"{len(files)} crontab files are more than {MOST_FILES}")
        else:
            target.install(files)
        said = ["", ""]
    except ValueError as exc:
        said = ["ValueError", str(exc)[:500]]
    except BaseException as exc:  # noqa: BLE001  # two parents would be worse than any error
        said = ["OSError", str(exc)[:500]]
    finally:
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
