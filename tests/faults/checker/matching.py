"""Which runs belong to which fires, without a look at their labels."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def match(windows: Sequence[tuple[float, float]], points: Sequence[float]) -> dict[int, int]:
    """Return a greatest matching of windows [start, end] and the points in them, as index of point -> of window.

    Glover's greedy: from left to right, each point takes the open window that ends first.
    """
    order = sorted(range(len(windows)), key=lambda index: windows[index][0])
    open_windows: list[tuple[float, int]] = []
    found: dict[int, int] = {}
    following = 0
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        point = points[index]
        while following < len(order) and windows[order[following]][0] <= point:
            heapq.heappush(open_windows, (windows[order[following]][1], order[following]))
            following += 1
        while open_windows and open_windows[0][0] < point:
            heapq.heappop(open_windows)
        if open_windows:
            found[index] = heapq.heappop(open_windows)[1]
    return found
