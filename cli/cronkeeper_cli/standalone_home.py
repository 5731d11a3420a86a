"""The data folder of `cronkeeper standalone`: what is in it, its secrets, and its lock."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cronkeeper_cli.failures import EXIT_USAGE, CommandError

# It stands in URLs, in crontab lines and in a shell script: characters that mean nothing in any of them.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]*", re.ASCII)
_LOCK_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """What was made at the first start. `first` says that it was made just now."""

    admin_token: str
    signing_seed: str
    zookeeper_password: str
    first: bool

    def __repr__(self) -> str:
        return "Secrets(***)"


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything is."""

    path: Path

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.path / 'cronkeeper.db'}"

    @property
    def blob_url(self) -> str:
        return f"file://{self.path / 'objects'}"

    @property
    def zookeeper_dir(self) -> Path:
        return self.path / "zookeeper"

    @property
    def worker_dir(self) -> Path:
        return self.path / "worker"

    @property
    def log_dir(self) -> Path:
        return self.path / "log"

    @property
    def token_file(self) -> Path:
        return self.path / "admin-token"

    @property
    def signing_key_file(self) -> Path:
        return self.path / "signing-key"

    @property
    def secrets_key_file(self) -> Path:
        return self.path / "secrets-key"

    def prepare(self) -> None:
        """Make the folders. Raises CommandError when that cannot be done."""
        try:
            # Runs of other accounts (when we are root) pass through it to their own folder, and may list nothing.
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
            if os.geteuid() == 0:
                self.path.chmod(0o711)
                self.worker_dir.mkdir(exist_ok=True, mode=0o711)
            for folder in (self.log_dir, self.zookeeper_dir, self.path / "objects"):
                folder.mkdir(exist_ok=True, mode=0o700)
        except OSError as exc:
            raise CommandError(
                f"cannot use the data folder {self.path}: {exc.strerror}\n"
                "  hint: name another one with --data-dir, or use --ephemeral",
                EXIT_USAGE,
            ) from exc

    def lock(self) -> IO[bytes]:
        """Take the folder for this process. Raises CommandError when another one has it."""
        file = (self.path / "lock").open("ab")
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # One that was killed a moment ago takes its children with it, but they need that moment.
                if time.monotonic() > deadline:
                    file.close()
                    raise CommandError(
                        f"another standalone uses {self.path}; stop it, or name another --data-dir"
                    ) from None
                time.sleep(0.02)
            else:
                return file

    def secrets(self) -> Secrets:
        """Return the secrets, made at the first call. Raises CommandError when a file was opened to others."""
        first = not self.token_file.exists()
        _secret(self.secrets_key_file, lambda: secrets.token_hex(32))
        return Secrets(
            admin_token=_secret(self.token_file, lambda: "ck_" + secrets.token_urlsafe(32)),
            signing_seed=_secret(self.signing_key_file, lambda: secrets.token_hex(32)),
            zookeeper_password=_secret(self.path / "zookeeper-password", lambda: secrets.token_hex(32)),
            first=first,
        )


def find_home(data_dir: str | None, *, ephemeral: bool, environ: Mapping[str, str], root: bool) -> Home:
    """Return the data folder that was asked for; a fresh temporary one for `ephemeral`.

    Raises CommandError (usage) for a path that could not stand in a crontab line.
    """
    if ephemeral and data_dir:
        raise CommandError("--ephemeral and --data-dir exclude each other", EXIT_USAGE)
    if ephemeral:
        path = Path(tempfile.mkdtemp(prefix="cronkeeper-standalone-"))
    elif data_dir:
        path = Path(os.path.abspath(data_dir))
    elif root:
        path = Path("/var/lib/cronkeeper")
    else:
        base = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "share")
        path = Path(base) / "cronkeeper"
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise CommandError(
            f"the data folder {str(path)!r} cannot stand in a crontab line\n"
            "  hint: name one of letters, digits, '_', '.', '-' and '/' with --data-dir",
            EXIT_USAGE,
        )
    return Home(path)


def _secret(path: Path, make: Callable[[], str]) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        value = make()
        _write_secret(path, value)
        return value
    if mode & 0o077:
        raise CommandError(f"others may read {path}; run: chmod 600 {path}", EXIT_USAGE)
    return path.read_text().strip()


def _write_secret(path: Path, value: str) -> None:
    # Whole or not at all: half a key would lock everybody out for good.
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
