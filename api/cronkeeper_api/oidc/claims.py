"""What a token says, and whether it may be believed. PURE: time and keys are handed in.

PyJWT checks the signature, with a key and an algorithm that we have chosen; all that is said in the token is checked
here. Where the header names a key by itself (`jwk`, `jku`, `x5u`, `x5c`), it is not looked at.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from cronkeeper.domain.scope import NOWHERE, Scope
from cronkeeper.ports import Role
from cronkeeper_api.oidc.config import Grant
from cronkeeper_api.oidc.keys import Key

#: Servers take header lines of 8 KiB.
MAX_TOKEN = 7680
MAX_VALUES = 1000
#: The widest that the trail takes.
_MAX_NAME = 190
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_KEY_ID = re.compile(r"[!-~]{1,200}", re.ASCII)
_SUBJECT = re.compile(r"[!-~]{1,255}", re.ASCII)
_TYPES = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
_RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


class RefusedError(Exception):
    """The token is not believed. The message is for our log, never for the caller."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is expected of a token."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    claim: tuple[str, ...]
    grants: Mapping[str, Grant]
    leeway_s: float
    max_lifetime_s: float


@dataclass(frozen=True, slots=True)
class Header:
    """Which key to check with. Nothing of it is believed before that."""

    algorithm: str
    key_id: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token is about, and what that opens: no role at all if nothing was granted."""

    issuer: str
    subject: str
    role: Role | None
    scope: Scope

    @property
    def name(self) -> str:
        """Issuer and subject, as trail and logs have them."""
        return f"{self.issuer}#{self.subject}"

    @property
    def id(self) -> str:
        """Stands where a token of ours has its number."""
        return "o" + hashlib.sha256(self.name.encode()).hexdigest()[:31]


def header_of(text: str, rules: Rules) -> Header:
    """Read the header. Raises RefusedError."""
    if len(text) > MAX_TOKEN or not _TOKEN.fullmatch(text):
        raise RefusedError("it is not three parts of BASE64, or too long")
    header = _object(text.partition(".")[0])
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in rules.algorithms:
        raise RefusedError("its algorithm is not one of oidc_algorithms")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise RefusedError("it does not name its key")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise RefusedError("it is of another type")
    if "crit" in header or "b64" in header:
        raise RefusedError("it asks for something that we do not know")
    return Header(str(algorithm), key_id)


def claims_of(text: str, header: Header, key: Key) -> dict[str, Any]:
    """Return the claims, once the signature is right. Raises RefusedError."""
    if key.algorithm != header.algorithm:
        raise RefusedError("its key is for another algorithm")
    try:
        PyJWS().decode(text, key.public, algorithms=[key.algorithm])
    except PyJWTError as exc:
        raise RefusedError("its signature is wrong") from exc
    return _object(text.split(".")[1])


def identity_of(claims: Mapping[str, Any], rules: Rules, now_s: float) -> Identity:
    """Return whom signed claims are about. Raises RefusedError."""
    if claims.get("iss") != rules.issuer:
        raise RefusedError("it is of another issuer")
    if rules.audience not in _texts(claims.get("aud")):
        raise RefusedError("it is for another audience")
    _check_times(claims, rules, now_s)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise RefusedError("it has no subject that could be written down")
    if len(rules.issuer) + len(subject) >= _MAX_NAME:
        raise RefusedError("its subject is too long")
    role, scope = granted(_values(claims, rules.claim), rules.grants)
    return Identity(rules.issuer, subject, role, scope)


def granted(values: Sequence[str], grants: Mapping[str, Grant]) -> tuple[Role | None, Scope]:
    """Return the highest role that any of the values opens, in the namespaces that this role was granted in.

    Roles are not mixed: admin of one namespace and viewer of all is admin of the one.
    """
    found = [grants[value] for value in values if value in grants]
    if not found:
        return None, NOWHERE
    role = max((grant.role for grant in found), key=_RANK.__getitem__)
    scopes = [grant.scope for grant in found if grant.role is role]
    if any(scope.everywhere for scope in scopes):
        return role, Scope(None)
    return role, Scope(frozenset(name for scope in scopes for name in scope.names or ()))


def _check_times(claims: Mapping[str, Any], rules: Rules, now_s: float) -> None:
    issued_s, expires_s = _instant(claims, "iat"), _instant(claims, "exp")
    begins_s = _instant(claims, "nbf") if "nbf" in claims else issued_s
    if now_s >= expires_s + rules.leeway_s:
        raise RefusedError("it has expired")
    if max(begins_s, issued_s) > now_s + rules.leeway_s:
        raise RefusedError("it is not good yet")
    if not 0 < expires_s - issued_s <= rules.max_lifetime_s:
        raise RefusedError("it lives longer than oidc_max_lifetime_s")


def _instant(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RefusedError(f"its {name} is not an instant")
    return float(value)


def _values(claims: Mapping[str, Any], path: Sequence[str]) -> list[str]:
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return _texts(found)[:MAX_VALUES]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _object(part: str) -> dict[str, Any]:
    """Read one part. A name that comes twice, or a number that is none, says that two readers shall disagree."""
    try:
        raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise RefusedError("a part of it is not JSON") from exc
    if not isinstance(found, dict):
        raise RefusedError("a part of it is not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")
