"""Values of secrets, sealed (ChaCha20-Poly1305) where they come in and opened where a run starts, nowhere between.

A box says `v1.<key>.<nonce and ciphertext in BASE64>`. It opens only for the namespace, name and version that it was
sealed for: whoever can write to a store can take boxes away or bring an old row back, but neither read a value, nor
make one, nor pass one secret off as another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from cronkeeper.domain.secret_env import SecretEnv
from cronkeeper.errors import SealError

_FORMAT = "v1"
_CONTEXT = b"cronkeeper secret v1\n"
_NONCE_BYTES = 12


class SecretsKeys:
    """The keys of a fleet's secrets, 32 random bytes each: the first seals, all open, so that keys can rotate."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_key_id(key): ChaCha20Poly1305(key) for key in keys}

    def __repr__(self) -> str:
        return f"SecretsKeys({', '.join(self._ciphers)})"

    def __bool__(self) -> bool:
        return bool(self._ciphers)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the keys' short names, which boxes bear in the open: they say nothing of the keys."""
        return tuple(self._ciphers)

    def seal(self, value: str, *, namespace: str, name: str, version: int) -> str:
        """Return the value's box. Raises SealError when there is no key."""
        if not self._ciphers:
            raise SealError("there is no secrets key here")
        key_id, cipher = next(iter(self._ciphers.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = cipher.encrypt(nonce, value.encode(), _place(namespace, name, version))
        return f"{_FORMAT}.{key_id}.{base64.b64encode(nonce + sealed).decode()}"

    def is_newest(self, box: str) -> bool:
        """Say whether the box was sealed with the key that seals now."""
        return bool(self._ciphers) and box.startswith(f"{_FORMAT}.{next(iter(self._ciphers))}.")

    def open(self, box: str, *, namespace: str, name: str, version: int) -> str:
        """Return the value. Raises SealError, which never says anything of it."""
        what = f"secret {name} of namespace {namespace}, version {version}"
        kind, _, rest = box.partition(".")
        key_id, _, text = rest.partition(".")
        if kind != _FORMAT:
            raise SealError(f"{what}: not a box of a format known here")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(f"{what}: sealed with a key that is not here")
        try:
            raw = base64.b64decode(text, validate=True)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _place(namespace, name, version)).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise SealError(f"{what}: the box was altered, or is another's") from None


NO_KEYS = SecretsKeys([])


def keys_of(env: SecretEnv) -> frozenset[str]:
    """Return the short names of the keys that a job's copies were sealed with, as far as their format is known here."""
    parts = (one.box.split(".", 2) for one in env.sealed.values())
    return frozenset(part[1] for part in parts if part[0] == _FORMAT and len(part) == 3)


def _place(namespace: str, name: str, version: int) -> bytes:
    # Neither a namespace nor a name holds a line feed.
    return _CONTEXT + f"{namespace}\n{name}\n{version}".encode()


def _key_id(key: bytes) -> str:
    digest = hashlib.sha256(b"cronkeeper secrets key\n" + key).digest()
    return base64.b32encode(digest[:10]).decode().lower()
