"""This very process without a free descriptor, for the length of a `with`."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_descriptors(left: int = 0) -> Iterator[None]:
    """Let this process open nothing more, or no more than so many files at once."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is one of numbers, and the lowest that is free is given out first.
    numbers = [os.eventfd(0) for _ in range(left + 1)]
    for number in numbers:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (numbers[-1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
