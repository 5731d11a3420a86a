"""The node's copies of jobs' files: fetched ahead of time, named by their content, verified when they arrive.

The executor verifies each copy once more, on the very descriptor that it executes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from cronkeeper.domain.job import Artifact
from cronkeeper.errors import CronkeeperError, NotFoundError, UnavailableError
from cronkeeper.ports import BlobStore

log = logging.getLogger(__name__)

#: While a file cannot be had, it is asked for again after so long.
RETRY_S = 5.0
#: How long any file may take, and how many bytes a second there must be beyond that.
PATIENCE_S, SLOWEST_BYTES_S = 10.0, 50_000


class ArtifactCache:
    """`folder/<sha256>`, read-only files owned by this process's user. Fetching happens in a thread of its own."""

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs
        self._wanted: dict[str, Artifact] = {}
        #: How often in a row each file could not be fetched.
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        # Runs under other accounts execute these files through a descriptor, but interpreters open them by path.
        folder.chmod(0o755)

    def path(self, artifact: Artifact) -> Path:
        """Return where the copy is, or will be."""
        return self._folder / artifact.sha256

    def has(self, artifact: Artifact) -> bool:
        """Say whether the copy is here."""
        return self.path(artifact).is_file()

    def want(self, artifacts: Iterable[Artifact]) -> None:
        """Set what this node shall hold; what is missing is fetched in the background, the rest is removed."""
        with self._lock:
            self._wanted = {artifact.sha256: artifact for artifact in artifacts}
        self._wake.set()

    def run(self) -> None:
        """Fetch and tidy until stopped: the body of a thread."""
        while not self._stopping.is_set():
            self._wake.clear()
            with self._lock:
                wanted = dict(self._wanted)
            # What failed before waits behind what did not: one bad file must not hold up the others.
            missing = sorted(
                (artifact for artifact in wanted.values() if not self.has(artifact)),
                key=lambda artifact: self._failures.get(artifact.sha256, 0),
            )
            failed = [artifact for artifact in missing if not self._fetch(artifact)]
            self._failures = {item.sha256: self._failures.get(item.sha256, 0) + 1 for item in failed}
            tidied = self._tidy(set(wanted))
            self._wake.wait(60.0 if tidied and not failed else RETRY_S)

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def _fetch(self, artifact: Artifact) -> bool:
        try:
            self._download(artifact)
        except (CronkeeperError, OSError) as exc:
            log.warning(
                "an artifact cannot be fetched",
                extra={
                    "event": "artifact.gone" if isinstance(exc, NotFoundError) else "artifact.away",
                    "key": artifact.key,
                    "error": str(exc),
                },
            )
            return False
        log.info("an artifact was fetched", extra={"event": "artifact.fetched", "key": artifact.key})
        return True

    def _download(self, artifact: Artifact) -> None:
        partial = self._folder / f".{artifact.sha256}.part"
        digest, size = hashlib.sha256(), 0
        # A server that gives a byte now and then never times out: a file may take what its size takes, and no longer.
        deadline_s = time.monotonic() + PATIENCE_S + artifact.size / SLOWEST_BYTES_S
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in self._blobs.read(artifact.key):
                size += len(chunk)
                if size > artifact.size:
                    break
                if time.monotonic() > deadline_s:
                    raise UnavailableError(f"object {artifact.key} comes too slowly: {size} of {artifact.size} bytes")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size != artifact.size or digest.hexdigest() != artifact.sha256:
            partial.unlink()
            raise NotFoundError(f"object {artifact.key} is not the file that was submitted (sha256 or size differ)")
        partial.chmod(0o555)
        partial.rename(self.path(artifact))

    def _tidy(self, wanted: set[str]) -> bool:
        """Remove what is not wanted any more; say whether that could be done."""
        try:
            for path in self._folder.iterdir():
                if path.name not in wanted and not path.name.startswith("."):
                    path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("artifacts cannot be removed", extra={"event": "artifact.stays", "error": str(exc)})
            return False
        return True
