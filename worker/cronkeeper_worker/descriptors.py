"""Free descriptors. Without one, what is there looks as if it were not: an account, a process, a group's members.

Whoever would decide on such an absence asks first. In a process of one thread the answer holds until it opens something
itself; in one of several it holds for no time at all.
"""

from __future__ import annotations

import errno
import os

#: What a look-up or the start of a run may need at once: name services open a handful.
ENOUGH = 16
#: Nothing more can be opened: by this process, or on this machine.
NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})


def need(enough: int = ENOUGH) -> None:
    """Raise OSError, with the kernel's own words, unless there are enough."""
    held: list[int] = []
    try:
        for _ in range(enough):
            held.append(os.eventfd(0))  # noqa: PERF401  # what was opened before one fails is to be closed, too
    finally:
        for fd in held:
            os.close(fd)


def are_free() -> bool:
    """Say whether there are enough."""
    try:
        need()
    except OSError:
        return False
    return True
