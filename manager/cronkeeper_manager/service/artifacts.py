"""A job's file: pinned by content before the job is saved, so that what was posted is what runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cronkeeper.domain.job import Artifact, JobSpec, JobType
from cronkeeper.errors import CronkeeperError, FieldError, NotFoundError, ValidationFailedError
from cronkeeper.ports import BlobStore
from cronkeeper_manager.service.rules import FILENAME
from cronkeeper_manager.service.values import Draft


class TooLargeError(CronkeeperError):
    """The file is larger than this installation allows. `field` names where it came in."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Pinned:
    """A spec whose file is known by key, sha256 and size; `data` is still to be stored, if there is any."""

    spec: JobSpec
    data: bytes | None = None


class Artifacts:
    """Pins and stores the files of jobs."""

    def __init__(self, blobs: BlobStore, *, max_bytes: int) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes

    def pin(self, draft: Draft, before: JobSpec | None = None) -> Pinned:
        """Return the draft's spec with its file pinned; `before` is the spec that it replaces.

        A file that is already the job's is not read again. Stores nothing. Raises ValidationFailedError,
        TooLargeError, or UnavailableError when the object store does not answer.
        """
        spec = draft.spec
        if spec.type is JobType.COMMAND:
            fileless = spec.artifact is None and spec.filename is None
            return Pinned(spec if fileless else spec.evolve(artifact=None, filename=None))
        if draft.upload is not None:
            self._check_size(len(draft.upload.data))
            digest = hashlib.sha256(draft.upload.data).hexdigest()
            key = f"artifacts/{digest}/{draft.upload.filename}"
            artifact = Artifact(key, self._blobs.url_of(key), digest, len(draft.upload.data), draft.upload.filename)
            return Pinned(_with(spec, artifact), draft.upload.data)
        known = None if before is None else before.artifact
        if known is not None and known.url == spec.executable and spec.filename in (None, known.filename):
            return Pinned(_with(spec, known))
        return Pinned(_with(spec, self._read(spec)))

    def save(self, pinned: Pinned) -> None:
        """Store the file, if it is not there yet. Its key is made of its content: an orphan is harmless. Idempotent."""
        if pinned.data is not None and pinned.spec.artifact is not None:
            self._blobs.put(pinned.spec.artifact.key, pinned.data)

    def _read(self, spec: JobSpec) -> Artifact:
        """Read an object of our own store once, to pin its sha256 and size."""
        try:
            key = self._blobs.key_of(spec.executable)
        except ValueError as exc:
            raise _refused(f"is not a URL of this installation's object store ({exc})") from exc
        filename = spec.filename or key.rpartition("/")[2]
        if not FILENAME.fullmatch(filename):
            raise ValidationFailedError(
                [FieldError("filename", "is required for this URL", "name the file, as in run.sh")]
            )
        digest, size = hashlib.sha256(), 0
        try:
            self._check_size(self._blobs.stat(key).size)
            for chunk in self._blobs.read(key):
                size += len(chunk)
                self._check_size(size)
                digest.update(chunk)
        except NotFoundError as exc:
            raise _refused("there is no such object in the object store") from exc
        return Artifact(key, self._blobs.url_of(key), digest.hexdigest(), size, filename)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLargeError(f"the file is larger than {self._max_bytes} bytes", "executable")


def _with(spec: JobSpec, artifact: Artifact) -> JobSpec:
    return spec.evolve(executable=artifact.url, filename=artifact.filename, artifact=artifact)


def _refused(message: str) -> ValidationFailedError:
    hint = "send the file itself in BASE64 (with filename), or upload it to the object store first"
    return ValidationFailedError([FieldError("executable", message, hint)])
