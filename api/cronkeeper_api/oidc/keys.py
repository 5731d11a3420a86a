"""The issuer's public keys: fetched seldom, kept for a while, by the `kid` that a token names."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from cronkeeper.errors import UnavailableError, WireFormatError
from cronkeeper.runtime.clock import Clock

log = logging.getLogger(__name__)

MAX_KEYS = 100
#: Keys are fetched again after this long: one that the issuer has taken back is believed no longer than that.
REFRESH_S = 300.0
#: However many tokens name a key that we do not know, or however long the issuer is silent: no oftener than that.
RETRY_S = 10.0
#: How long the first callers of all wait for each other's fetch.
_FIRST_WAIT_S = 6.0
_MIN_RSA_BITS = 2048
_KINDS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the one algorithm that it is used with."""

    algorithm: str
    public: Any


def parse_keys(raw: bytes, algorithms: Collection[str]) -> dict[str, Key]:
    """Read a JWKS: the keys that sign by one of the algorithms, by their `kid`. PURE.

    Keys of other kinds are left out; so are private ones, which nobody should have published, and those that share a
    `kid`. Raises WireFormatError when it is no JWKS, or holds no key that we can use.
    """
    try:
        listed = json.loads(raw)["keys"]
        usable = [(one["kid"], key) for one in listed[:MAX_KEYS] if (key := _key(one, algorithms)) is not None]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise WireFormatError("the issuer's keys are no JWKS") from exc
    seen = Counter(kid for kid, _ in usable)
    found = {kid: key for kid, key in usable if seen[kid] == 1}
    if not found:
        raise WireFormatError("the issuer publishes no key that we can use")
    return found


def _key(jwk: Any, algorithms: Collection[str]) -> Key | None:
    """Return a key of the list; None for one that is not for us. One that is odd does not spoil the others."""
    try:
        kind, curve = jwk.get("kty"), jwk.get("crv")
        algorithm = _KINDS.get((kind, None if kind == "RSA" else curve))
        if algorithm is None or algorithm not in algorithms or jwk.get("alg", algorithm) != algorithm:
            return None
        if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]) or "d" in jwk:
            return None
        if not isinstance(jwk.get("kid"), str):
            return None
        public = PyJWK(dict(jwk), algorithm=algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if kind == "RSA" and public.key_size < _MIN_RSA_BITS else Key(algorithm, public)


class Keyring:
    """Finds keys. Safe to use from several threads: one of them fetches, the others go on with what is known."""

    def __init__(self, fetch: Callable[[], bytes], algorithms: Collection[str], clock: Clock, *, kept_s: float) -> None:
        self._fetch = fetch
        self._algorithms = algorithms
        self._clock = clock
        self._kept_s = kept_s
        self._fetching = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._fetched_s = float("-inf")
        self._tried_s = float("-inf")

    def find(self, key_id: str) -> Key | None:
        """Return the key, or None when the issuer has none of that id.

        Raises UnavailableError when that cannot be said: no keys could be fetched, for longer than they are kept.
        """
        if self._is_due(key_id):
            self._refresh(key_id)
        if self._clock.boot_s() - self._fetched_s > self._kept_s:
            raise UnavailableError("the token cannot be checked: its issuer's keys cannot be fetched")
        return self._keys.get(key_id)

    def _is_due(self, key_id: str) -> bool:
        now_s = self._clock.boot_s()
        wanted = key_id not in self._keys or now_s - self._fetched_s >= REFRESH_S
        return wanted and now_s - self._tried_s >= RETRY_S

    def _refresh(self, key_id: str) -> None:
        # Whoever finds the lock taken has the old keys; only at the very first there are none, and all wait.
        if not self._fetching.acquire(timeout=0 if self._keys else _FIRST_WAIT_S):
            return
        try:
            if not self._is_due(key_id):
                return
            self._tried_s = self._clock.boot_s()
            keys = parse_keys(self._fetch(), self._algorithms)
        except (UnavailableError, WireFormatError) as exc:
            log.warning(
                "the issuer's keys could not be fetched", extra={"event": "oidc.keys_failed", "error": str(exc)}
            )
            return
        finally:
            self._fetching.release()
        if keys.keys() != self._keys.keys():
            log.info("the issuer's keys changed", extra={"event": "oidc.keys_changed", "keys": len(keys)})
        self._keys, self._fetched_s = keys, self._clock.boot_s()
