"""Signals: the first TERM or INT asks for a clean end, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType


def on_terminate(stop: Callable[[], None]) -> None:
    """Call `stop` (which must only set events) on SIGTERM or SIGINT. Main thread only."""
    asked = False

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(130)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
