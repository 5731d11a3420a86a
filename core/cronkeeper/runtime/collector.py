"""Python's garbage collector, and work that it can do nothing for."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_resting = 0


@contextmanager
def without_collector() -> Iterator[None]:
    """Let the collector rest while many objects are made that all live until the end: it would look through all of
    them again and again. Cycles that other threads make meanwhile wait. May be nested, and entered by several threads.
    """
    global _resting
    with _lock:
        _resting += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _resting -= 1
            if not _resting:
                gc.enable()
