"""Making the next rows while the database is busy with those before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(make: Callable[[A], B], items: Sequence[A]) -> Generator[B]:
    """Yield what is made of each item, in order; another thread makes the next one while this one is used.

    What `make` raises is raised here, in its place. One item takes no thread, and none outlives the generator.
    """
    if len(items) < 2:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(1, "ahead") as pool:
        made = pool.submit(make, items[0])
        for item in items[1:]:
            found, made = made.result(), pool.submit(make, item)
            yield found
        yield made.result()
