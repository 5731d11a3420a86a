"""A wall clock of a node's own, which a test can set forth and back while programs run by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.harness.cron import find_faketime

_SITE = Path(__file__).with_name("clock_site")


class OwnClock:
    """The machine's clock plus `offset_s`; the monotonic and the boot-time clock are the machine's.

    It is for programs that are started with `environment`: a worker, its runner, cron. The jobs themselves get a clean
    environment, and with it the machine's clock.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset_s = 0.0
        self.set(0.0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs to run by this clock."""
        return {
            "LD_PRELOAD": str(find_faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(_SITE),
            # libfaketime's semaphore is closed to other accounts, and it ends whoever inherits one that he cannot open.
            "CRONKEEPER_DAEMON_ACCOUNT": "root",
        }

    def set(self, offset_s: float) -> None:
        """Let it be so many seconds ahead of the machine's clock, from now on; negative is behind."""
        self.offset_s = offset_s
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+g}\n")
        new.replace(self._file)
