"""Read by every Python that runs by a node's own clock (tests/harness/clock.py).

Python sleeps until an instant of the monotonic clock, which libfaketime 0.9.10 takes for one of the faked clock: after
a step the call fails. A wait for nothing is not affected.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep  # type: ignore[assignment]
