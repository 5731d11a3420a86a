"""Python's garbage collector, and work that it can do nothing for."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Where one comes before the other goes, for ever, the collector has its turn so often all the same.
RESTS_S = 10.0

_lock = threading.Lock()
_resting = 0
#: When (monotonic) it was at work last.
_since_s = 0.0


@contextmanager
def without_collector() -> Iterator[None]:
    """Let the collector rest while many objects are made that all live until the end: it would look through all of
    them again and again. Cycles that other threads make meanwhile wait. May be nested, and entered by several threads.
    """
    global _resting, _since_s
    with _lock:
        if not _resting:
            _since_s = time.monotonic()
        _resting += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _resting -= 1
            if not _resting:
                gc.enable()
            due = _resting > 0 and time.monotonic() - _since_s > RESTS_S
            if due:
                _since_s = time.monotonic()
        if due:
            gc.collect()
