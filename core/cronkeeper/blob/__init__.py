"""Object stores, behind `ports.BlobStore`: a folder, or S3 and what speaks like it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cronkeeper.blob import keys
from cronkeeper.errors import ConfigError

if TYPE_CHECKING:
    from cronkeeper.ports import BlobStore


def open_blobs(
    url: str, *, endpoint_url: str = "", access_key: str = "", secret_key: str = "", ca: str = ""
) -> BlobStore:
    """Return the store behind `file:///path` or `s3://bucket[/prefix]`; nothing is contacted yet (see `check`).

    `endpoint_url` is the address of an S3 server other than Amazon's. Without keys, the machine's own credentials are
    used (environment, shared file, instance role). With `ca`, a file, the server's certificate must be signed by that
    CA; without, by a public one. Raises ConfigError.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ConfigError(f"object store: no query or fragment here: {url!r}")
    if parts.scheme == "file":
        from cronkeeper.blob.files import FileBlobStore

        path = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or not path.is_absolute() or ".." in path.parts:
            raise ConfigError(f"object store: must be file:///absolute/path: {url!r}")
        return FileBlobStore(path)
    if parts.scheme == "s3":
        from cronkeeper.blob.s3 import S3BlobStore

        if not parts.netloc or bool(access_key) != bool(secret_key):
            raise ConfigError("object store: s3 needs a bucket, and both keys or none")
        prefix = parts.path.strip("/")
        try:
            prefix = prefix and keys.checked(prefix)
        except ValueError as exc:
            raise ConfigError(f"object store: a prefix that cannot be: {url!r}") from exc
        return S3BlobStore(
            parts.netloc,
            prefix=prefix,
            endpoint_url=endpoint_url.rstrip("/"),
            access_key=access_key,
            secret_key=secret_key,
            ca=ca,
        )
    raise ConfigError(f"object store: must be file:///path or s3://bucket: {url!r}")
