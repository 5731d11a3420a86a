"""Files that hold 32 secret bytes, in hex: the signing key, and the keys of jobs' secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from cronkeeper.errors import ConfigError
from cronkeeper.wire.sealed import SecretsKeys


def read_key(path: Path) -> bytes:
    """Return the 32 secret bytes. Raises ConfigError for a file that is missing, open to others, or no such key."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not 64 hex digits") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} can be read by others; chmod 600 it, and make a new key if it was open for long")
    try:
        key = bytes.fromhex(text)
    except ValueError as exc:
        raise ConfigError(f"{path} is not 64 hex digits") from exc
    if len(key) != 32 or len(set(key)) < 8:
        raise ConfigError(f"{path} is not 32 random bytes in hex")
    return key


def write_key(path: Path, key: bytes) -> None:
    """Write a new file of mode 0600 that holds the key. Raises ConfigError, also when there is one: none is lost."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc
    with open(fd, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(fd)


def read_secrets_keys(paths: Iterable[str | Path]) -> SecretsKeys:
    """Return the keys of jobs' secrets: the first seals, all open. Raises ConfigError, as `read_key` does."""
    return SecretsKeys([read_key(Path(path)) for path in paths])
