"""What the C library does with memory that Python gives back: by default it keeps most of it, in a heap per thread."""

from __future__ import annotations

import contextlib
import os
from typing import Any

#: mallopt's numbers, as in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
#: Where the C library begins; left alone it grows with the largest piece that was ever given back, up to 32 MiB.
_LARGE = 131_072


def one_heap() -> None:
    """Have one heap for all threads, which need the interpreter's lock anyway, and whatever is large apart from it.

    To be called before there are threads. With another C library than glibc it does nothing.
    """
    library = _glibc()
    if library is not None:
        for what, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _LARGE), (_MMAP_THRESHOLD, _LARGE)):
            library.mallopt(what, value)


def give_back() -> None:
    """Give the kernel what is free in the heap, wherever it lies: for after much was held that is let go of again.

    Some milliseconds for 100 MiB, in which other threads may have to wait for memory.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    with contextlib.suppress(ValueError, OSError, ImportError):
        if os.confstr("CS_GNU_LIBC_VERSION"):
            import ctypes

            return ctypes.CDLL(None)
    return None
