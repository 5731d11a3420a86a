"""Artifacts that are what they should be: a descriptor whose content was hashed, and that is then executed itself."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from cronkeeper_worker.orders import OrderError

#: A file changed this recently may change again without a new timestamp: do not remember its hash.
_SETTLED_NS = 2_000_000_000
_REMEMBERED = 4096


class Verifier:
    """Opens artifacts. A large file is hashed once for each version of it, by inode and times, not at every run."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[int, ...], str] = {}

    def open(self, path: str, sha256: str) -> int:
        """Return a descriptor of the file, whose content has this hash. Raises OrderError, OSError.

        Whatever is put in the file's place afterwards is another file.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OrderError(f"{path} is not a file")
            version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            actual = self._hashes.get(version)
            if actual is None:
                actual = _hash_of(fd)
                if max(found.st_mtime_ns, found.st_ctime_ns) < time.time_ns() - _SETTLED_NS:
                    if len(self._hashes) >= _REMEMBERED:
                        self._hashes.clear()
                    self._hashes[version] = actual
            if actual != sha256:
                raise OrderError(f"the artifact has sha256 {actual}, not {sha256}: it is not run")
        except BaseException:
            os.close(fd)
            raise
        return fd


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return str(_new_sha256(data).hexdigest())


class Digest:
    """SHA-256 of what comes in pieces."""

    def __init__(self) -> None:
        self._total = _new_sha256(b"")

    def update(self, data: bytes) -> None:
        """Take in the next piece."""
        self._total.update(data)

    def hex(self) -> str:
        """Return the hash of all pieces."""
        return str(self._total.hexdigest())


def _hash_of(fd: int) -> str:
    total, offset = _new_sha256(b""), 0
    while block := os.pread(fd, 1 << 20, offset):
        total.update(block)
        offset += len(block)
    return str(total.hexdigest())


def _new_sha256(data: bytes) -> Any:
    """The interpreter's own SHA-256: hashlib would load all of OpenSSL, 4 MiB, into every runner."""
    global _sha256
    if _sha256 is None:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
        except ImportError:
            from hashlib import sha256
        _sha256 = sha256
    return _sha256(data)


_sha256: Any = None
