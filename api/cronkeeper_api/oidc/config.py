"""What an API server must know to believe an issuer."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from cronkeeper.domain.scope import Scope, scope_of
from cronkeeper.ports import Role
from cronkeeper.runtime.config import Config, setting

#: Signed with a private key that the issuer alone has. With HS256 whoever can check a token could also make one.
ALGORITHMS = ("RS256", "ES256", "EdDSA")
_ISSUER = re.compile(r"https?://[!-~]{1,110}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one value of the claim opens."""

    role: Role
    scope: Scope


@dataclass(frozen=True, kw_only=True)
class OidcConfig(Config):
    """Settings of tokens that an OpenID Connect issuer makes."""

    oidc_issuer: str = setting("", "the `iss` of tokens that are taken besides our own; unset: none are")
    oidc_audience: str = setting("", "what `aud` must name: us")
    oidc_keys: str = setting("", "where the issuer's public keys (JWKS) are: an https URL, or an absolute path")
    oidc_ca_file: Path | None = setting(None, "certificates to check the issuer's https with; unset: the system's")
    oidc_algorithms: tuple[str, ...] = setting(ALGORITHMS, "signatures that are taken, of RS256, ES256 and EdDSA")
    oidc_claim: tuple[str, ...] = setting(
        ("groups",), "claim whose values are looked up in oidc_grants; several names lead into nested claims"
    )
    oidc_grants: dict[str, str] = setting(
        {}, 'what a value of the claim opens: a role and namespaces, such as {"ops" = "operator team-a team-b"}'
    )
    oidc_leeway_s: float = setting(30.0, "how far the issuer's clock and ours may differ, seconds")
    oidc_max_lifetime_s: float = setting(7200.0, "longest life of a token, from iat to exp, seconds")
    oidc_keys_kept_s: float = setting(21_600.0, "how long its keys are believed while it does not answer, seconds")

    def check(self) -> list[str]:
        faults = super().check()
        if not self.oidc_issuer:
            given = [key for key in ("oidc_audience", "oidc_keys", "oidc_grants") if getattr(self, key)]
            return [*faults, *(f"{key}: means nothing without oidc_issuer" for key in given)]
        if not _ISSUER.fullmatch(self.oidc_issuer) or not _is_safe(urlsplit(self.oidc_issuer)):
            faults.append("oidc_issuer: write the issuer's https URL, exactly as its tokens have it in iss")
        if not self.oidc_audience:
            faults.append("oidc_audience: not set; without it a token for any other service would open this one")
        faults += self._key_faults()
        if unknown := sorted(set(self.oidc_algorithms) - set(ALGORITHMS)):
            faults.append(f"oidc_algorithms: {', '.join(unknown)} is not one of {', '.join(ALGORITHMS)}")
        if not self.oidc_algorithms:
            faults.append("oidc_algorithms: empty; no token would be taken")
        if not self.oidc_claim:
            faults.append("oidc_claim: empty; name the claim that says what somebody is")
        faults += grant_faults(self.oidc_grants)
        for key, low, high in (
            ("oidc_leeway_s", 0, 300),
            ("oidc_max_lifetime_s", 60, 7 * 86_400),
            ("oidc_keys_kept_s", 300, 7 * 86_400),
        ):
            if not low <= getattr(self, key) <= high:
                faults.append(f"{key}: use {low} to {high} seconds")
        return faults

    def _key_faults(self) -> list[str]:
        place = self.oidc_keys
        if not place:
            return ["oidc_keys: not set; write the URL of the issuer's JWKS, or the path of a file"]
        if place.startswith("/"):
            return [] if (fault := _file_fault(Path(place))) is None else [f"oidc_keys: {fault}"]
        if not _ISSUER.fullmatch(place) or not _is_safe(urlsplit(place)):
            return ["oidc_keys: write an https URL (http on loopback only) without a user, or an absolute path"]
        if self.oidc_ca_file is not None and not self.oidc_ca_file.is_file():
            return [f"oidc_ca_file: there is no file {self.oidc_ca_file}"]
        return []


def grants_of(texts: Mapping[str, str]) -> dict[str, Grant]:
    """Read the grants. Raises ValueError that says what is wrong."""
    found = {}
    for value, text in texts.items():
        role, *namespaces = text.split()
        if role not in list(Role):
            raise ValueError(f"{role!a} is not a role: viewer, operator or admin")
        found[value] = Grant(Role(role), scope_of(namespaces))
    return found


def grant_faults(texts: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the grants, each by its name."""
    if not texts:
        return ["oidc_grants: not set; nobody is granted anything that is not written there"]
    faults = []
    for value, text in texts.items():
        try:
            if not value or not text.split():
                raise ValueError("is empty; write a role and namespaces, such as: operator team-a")
            grants_of({value: text})
        except ValueError as exc:
            faults.append(f"oidc_grants: {value[:60]!a}: {exc}")
    return faults


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_safe(parts: SplitResult) -> bool:
    try:
        plain = parts.scheme == "https" or is_loopback(parts.hostname or "")
        # Asked for, so that a port that is none is found here.
        port_ok = parts.port != 0
    except ValueError:
        return False
    return plain and port_ok and bool(parts.hostname) and not (parts.username or parts.password or parts.fragment)


def _file_fault(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError as exc:
        return f"cannot read {path}: {exc.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a file"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others, who could then sign tokens; chmod go-w it"
    return None
