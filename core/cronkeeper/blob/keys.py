"""PURE: which keys an object may have, so that no key ever leaves its folder, bucket or prefix."""

from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", re.ASCII)
MAX_KEY = 900


def checked(key: str) -> str:
    """Return the key. Raises ValueError unless it is made of `A-Z a-z 0-9 . _ -` and `/`, with no empty or dot part."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise ValueError(f"not an object's key: {key[:80]!r}")
    return key


def below(base: str, path: str) -> str:
    """Return the key in `path`, which must be `base` with a slash and a key behind it. Raises ValueError."""
    if not path.startswith(base + "/"):
        raise ValueError("not a URL of our object store")
    return checked(path[len(base) + 1 :])
