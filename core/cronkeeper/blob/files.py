"""Objects in a folder: durable once `put` has returned, readable by our own user only.

Every step down from the folder refuses symbolic links, so whoever plants one leads us nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cronkeeper.blob import keys
from cronkeeper.errors import ConfigError, ConflictError, CronkeeperError, NotFoundError, UnavailableError
from cronkeeper.ports import BlobInfo

CHUNK_BYTES = 262_144
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileBlobStore:
    """`ports.BlobStore` in the folder `root` (absolute), which is made when it is missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> BlobInfo:
        *folders, name = keys.checked(key).split("/")
        # No key has this character, so a file that a crash left behind is never taken for an object.
        temporary = f"~{secrets.token_hex(8)}"
        with self._errors(key):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._folder(folders, create=True) as folder:
                try:
                    _write(folder, temporary, data)
                    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise
                os.fsync(folder)
        return BlobInfo(key, self.url_of(key), len(data))

    def stat(self, key: str) -> BlobInfo:
        with self._errors(key), self._opened(key) as fd:
            return BlobInfo(key, self.url_of(key), os.fstat(fd).st_size)

    def read(self, key: str) -> Iterator[bytes]:
        with self._errors(key), self._opened(key) as fd:
            while chunk := os.read(fd, CHUNK_BYTES):
                yield chunk

    def delete(self, key: str) -> None:
        *folders, name = keys.checked(key).split("/")
        try:
            with self._errors(key), self._folder(folders) as folder:
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
        except NotFoundError:
            return

    def url_of(self, key: str) -> str:
        return f"{self._root.as_uri()}/{keys.checked(key)}"

    def key_of(self, url: str) -> str:
        # As text, not as a URL: the standard parser drops line breaks and would let two texts mean one key.
        for base in (self._root.as_uri(), f"file://{self._root}"):
            if url.startswith(base + "/"):
                return keys.below(base, url)
        raise ValueError("not a URL of our object store")

    def check(self) -> None:
        with self._errors(str(self._root)):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.scandir(self._root) as entries:
                next(entries, None)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        *folders, name = keys.checked(key).split("/")
        with self._folder(folders) as folder:
            # A pipe in the object's place must not hang us, nor a folder be read.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            if not os.path.isfile(fd):
                raise FileNotFoundError(errno.ENOENT, "not a plain file", name)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _folder(self, names: list[str], *, create: bool = False) -> Iterator[int]:
        """Open the folder below the root, one name after the other."""
        here = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                if create:
                    _make_folder(here, name)
                there = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = there
            yield here
        finally:
            os.close(here)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise _translated(exc, what) from exc


def _make_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return
    os.fsync(parent)


def _write(folder: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]
        os.fsync(fd)


def _translated(exc: OSError, what: str) -> CronkeeperError:
    # A link or a file where a folder should be (ELOOP, ENOTDIR): there is no such object behind it.
    if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return NotFoundError(f"object store: no {what}")
    if exc.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return ConflictError(f"object store: {what} is a folder of other objects")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigError(f"object store: no right to use {what}: {exc.strerror}")
    return UnavailableError(f"object store: {what}: {exc.strerror}")
