"""The signed task: all that a worker needs to run a job, signed (Ed25519) where the authenticated request was accepted.

One envelope serves all shards of a job; the znode's name says which shard. The job's row in MySQL and the task's znodes
hold the same bytes, so the leader heals znodes by copying and never signs anything.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cronkeeper.domain.job import JobSpec, JobState, spec_from_dict
from cronkeeper.errors import SignatureError, WireFormatError
from cronkeeper.wire.codec import dumps, loads
from cronkeeper.wire.envelope import CONTEXT, VERSION, ForgedError, key_id_of, ring, verify
from cronkeeper.wire.spec_text import spec_text

#: So many digests take 6.4 MB.
_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True)
class Task:
    """What the envelope says. The job's generation never goes back: a worker refuses an older one."""

    job_id: int
    generation: int
    state: JobState
    effective_from_ms: int
    spec: JobSpec


class Signer:
    """Signs tasks. `key_id` is derived from the public key, so that verifiers can hold several while keys rotate."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_bytes = private_key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_bytes)

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """Make a signer from 32 secret bytes. Raises ValueError for any other length."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def seal(self, task: Task) -> bytes:
        """Return the task's envelope."""
        return self._sealed(body_text(task))

    def reseal(self, raw: bytes, *, job_id: int, verifier: Verifier) -> bytes:
        """Return an envelope of the very same content, byte for byte, signed by this key.

        Raises what `Verifier.open` raises: whatever is not rightly signed already is never signed here.
        """
        verifier.open(raw, job_id=job_id)
        return self._sealed(str(loads(raw, version=VERSION, what="task")["body"]))

    def _sealed(self, body: str) -> bytes:
        signature = self._private_key.sign(CONTEXT + body.encode())
        # Canonical JSON, put together: only the body has anything to be quoted.
        sig = base64.b64encode(signature)
        return b'{"body":%b,"key":"%b","sig":"%b","v":%d}' % (dumps(body), self.key_id.encode(), sig, VERSION)


class Verifier:
    """Opens envelopes signed by any of the given public keys (32 raw bytes each).

    The keys stay the same as long as it lives, so an envelope whose signature was good once is not verified again: the
    very same bytes, by their SHA-256; so many of them are `remembered`.
    """

    def __init__(self, public_keys: list[bytes], *, remembered: int = _REMEMBERED) -> None:
        self._keys = ring(public_keys)
        self._remembered = remembered
        self._good: set[bytes] = set()

    def open(self, raw: bytes, *, job_id: int) -> Task:
        """Return the task, once its signature and its job are right.

        Raises SignatureError (forged, altered, of another job, or by a key we do not hold: refuse and report) or
        WireFormatError (not an envelope of a format we know).
        """
        outer = loads(raw, version=VERSION, what="task")
        body, key_id, sig = outer.get("body"), outer.get("key"), outer.get("sig")
        if not (isinstance(body, str) and isinstance(key_id, str) and isinstance(sig, str)):
            raise WireFormatError("task: body, key or sig is missing")
        digest = hashlib.sha256(raw).digest()
        if digest not in self._good:
            try:
                verify(self._keys, key_id, sig, body)
            except ForgedError as exc:
                raise SignatureError(f"task of job {job_id}: {exc}") from exc
            self._remember(digest)
        task = _task(loads(body.encode(), version=VERSION, what="task body"))
        if task.job_id != job_id:
            raise SignatureError(f"task of job {job_id}: the envelope belongs to job {task.job_id}")
        return task

    def _remember(self, digest: bytes) -> None:
        if len(self._good) >= self._remembered:
            self._good.clear()
        self._good.add(digest)


def body_of(raw: bytes) -> dict[str, Any]:
    """Return what an envelope says, whoever signed it: to compare with, never to run. Raises WireFormatError."""
    body = loads(raw, version=VERSION, what="task").get("body")
    if not isinstance(body, str):
        raise WireFormatError("task: body is missing")
    return loads(body.encode(), version=VERSION, what="task body")


def signer_of(raw: bytes) -> str:
    """Return the name of the key that an envelope says it is signed by; nothing says that this is true.

    Raises WireFormatError.
    """
    key_id = loads(raw, version=VERSION, what="task").get("key")
    if not isinstance(key_id, str):
        raise WireFormatError("task: key is missing")
    return key_id


def body_text(task: Task) -> str:
    """Return what is signed: canonical JSON, put together around the text of the spec."""
    return (
        f'{{"effective_from_ms":{task.effective_from_ms:d},"generation":{task.generation:d},"job_id":{task.job_id:d},'
        f'"spec":{spec_text(task.spec)},"state":"{task.state.value}","v":{VERSION:d}}}'
    )


def _task(data: dict[str, Any]) -> Task:
    try:
        return Task(
            job_id=int(data["job_id"]),
            generation=int(data["generation"]),
            state=JobState(data["state"]),
            effective_from_ms=int(data["effective_from_ms"]),
            spec=spec_from_dict(data["spec"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise WireFormatError(f"task body: {exc!r}") from exc
