"""The durations of `@every`: `90s`, `5m`, `1h30m`."""

from __future__ import annotations

import re

from cronkeeper.domain.cronfields import ScheduleError

MIN_EVERY_S, MAX_EVERY_S = 1, 366 * 86_400
_EVERY = re.compile(r"(?=\d)((?P<d>\d{1,4})d)?((?P<h>\d{1,5})h)?((?P<m>\d{1,6})m)?((?P<s>\d{1,8})s)?", re.ASCII)


def every_s(text: str) -> int:
    """Return the seconds of what stands after `@every`. Raises ScheduleError, with positions in the whole."""
    match = _EVERY.fullmatch(text)
    if match is None:
        raise ScheduleError(
            f"@every: {text[:20]!r} is not a duration", 7, "write @every 30s, @every 5m or @every 1h30m"
        )
    total = sum(int(match[unit] or 0) * size for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)))
    if not MIN_EVERY_S <= total <= MAX_EVERY_S:
        raise ScheduleError(f"@every: {text} is out of bounds", 7, "write a duration from 1s to 366d")
    return total
