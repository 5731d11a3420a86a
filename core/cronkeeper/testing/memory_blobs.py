"""An object store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from cronkeeper.blob import keys
from cronkeeper.errors import NotFoundError, UnavailableError
from cronkeeper.ports import BlobInfo

_BASE = "s3://memory"
_CHUNK_BYTES = 262_144


class MemoryBlobs:
    """`ports.BlobStore` in memory. Set `away` and every call raises UnavailableError, as when the store is down."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> BlobInfo:
        url = self.url_of(key)
        self.check()
        with self._lock:
            self.objects[key] = bytes(data)
        return BlobInfo(key, url, len(data))

    def stat(self, key: str) -> BlobInfo:
        return BlobInfo(key, self.url_of(key), len(self._find(key)))

    def read(self, key: str) -> Iterator[bytes]:
        data = self._find(key)
        for start in range(0, len(data), _CHUNK_BYTES):
            self.check()
            yield data[start : start + _CHUNK_BYTES]

    def delete(self, key: str) -> None:
        keys.checked(key)
        self.check()
        with self._lock:
            self.objects.pop(key, None)

    def url_of(self, key: str) -> str:
        return f"{_BASE}/{keys.checked(key)}"

    def key_of(self, url: str) -> str:
        return keys.below(_BASE, url)

    def check(self) -> None:
        if self.away:
            raise UnavailableError("object store: away")

    def _find(self, key: str) -> bytes:
        keys.checked(key)
        self.check()
        with self._lock:
            data = self.objects.get(key)
        if data is None:
            raise NotFoundError(f"object store: no {key}")
        return data
