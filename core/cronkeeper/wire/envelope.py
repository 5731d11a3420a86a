"""The signature of a signed task, and nothing else: what the root part of a worker loads, which must stay small."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERSION = 1
CONTEXT = b"cronkeeper task v1\n"


class ForgedError(ValueError):
    """The signature is not of a key that we hold, or not of these bytes."""


def ring(public_keys: Iterable[bytes]) -> dict[str, Ed25519PublicKey]:
    """Return verifiers of these public keys (32 raw bytes each) by their short names. Raises ValueError."""
    return {key_id_of(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in public_keys}


def verify(keys: Mapping[str, Ed25519PublicKey], key_id: str, signature: str, body: str) -> None:
    """Raise ForgedError unless the key of that name has signed the body (`signature` is in BASE64)."""
    key = keys.get(key_id)
    if key is None:
        raise ForgedError(f"signed by unknown key {key_id[:16]!r}")
    try:
        key.verify(base64.b64decode(signature, validate=True), CONTEXT + body.encode())
    except (InvalidSignature, binascii.Error, ValueError) as exc:
        raise ForgedError("the signature is wrong") from exc


def key_id_of(public_bytes: bytes) -> str:
    """Return the short name of a public key."""
    return base64.b32encode(public_bytes[:10]).decode().lower()
