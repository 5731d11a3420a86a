"""Files by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlobInfo:
    key: str
    url: str
    size: int


class BlobStore(Protocol):
    """Files by key, write-once: a key is made of the content's sha256, so that overwriting changes nothing."""

    def put(self, key: str, data: bytes) -> BlobInfo:
        """Store an object. Safe to repeat. UnavailableError when the store cannot be reached."""
        ...

    def stat(self, key: str) -> BlobInfo:
        """Raises NotFoundError."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the object in chunks. NotFoundError; UnavailableError, also when it breaks off half-way."""
        ...

    def delete(self, key: str) -> None: ...

    def url_of(self, key: str) -> str: ...

    def key_of(self, url: str) -> str:
        """Return the key behind a URL of this store (`s3://bucket/key`, `file:///...` or the store's http URL).

        Raises ValueError for a URL of anything else: nothing but our own store is ever fetched from.
        """
        ...

    def check(self) -> None:
        """Raise UnavailableError or ConfigError when the store cannot be used."""
        ...
