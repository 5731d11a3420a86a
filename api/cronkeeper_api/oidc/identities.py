"""Callers by tokens of the issuer: checked anew at each request, so that nothing outlives its end."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from cronkeeper.errors import PermissionDeniedError
from cronkeeper.runtime.clock import Clock
from cronkeeper_api.oidc.claims import Identity, RefusedError, Rules, claims_of, header_of, identity_of
from cronkeeper_api.oidc.config import OidcConfig, grants_of
from cronkeeper_api.oidc.fetch import read_file, read_url
from cronkeeper_api.oidc.keys import Keyring
from cronkeeper_manager.service import Caller
from cronkeeper_manager.service.denials import Denials

log = logging.getLogger(__name__)

#: A bearer token that could be the issuer's: ours have no dots.
SHAPE = re.compile(r"[Bb]earer ([A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+)", re.ASCII)


class Identities:
    """Whom the issuer's tokens are about. Safe to use from several threads."""

    def __init__(self, rules: Rules, keys: Keyring, denials: Denials, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._denials = denials
        self._clock = clock

    def authenticate(self, text: str) -> Caller | None:
        """Return whom the token is about, or None when it is not (or no longer) good.

        Raises PermissionDeniedError when nothing was granted to that identity, and UnavailableError when it cannot be
        said whether the token is good: then nobody is let in.
        """
        try:
            identity = self._identity(text)
        except RefusedError as exc:
            log.warning("an issuer's token is refused", extra={"event": "oidc.refused", "why": str(exc)})
            return None
        if self._denials.is_denied(identity.issuer, identity.subject):
            log.warning("a denied identity is refused", extra={"event": "oidc.denied", "holder": identity.name})
            return None
        if identity.role is None:
            raise PermissionDeniedError("nothing is granted to this identity; an administrator can, in oidc_grants")
        return Caller(identity.id, identity.name, identity.role, identity.scope)

    def _identity(self, text: str) -> Identity:
        header = header_of(text, self._rules)
        key = self._keys.find(header.key_id)
        if key is None:
            raise RefusedError("its key is none of the issuer's")
        return identity_of(claims_of(text, header, key), self._rules, self._clock.now_ms() / 1000)


def open_identities(config: OidcConfig, denials: Denials, clock: Clock) -> Identities | None:
    """Return who is told by the configured issuer; None when there is none. Nothing is fetched yet."""
    if not config.oidc_issuer:
        return None
    rules = Rules(
        issuer=config.oidc_issuer,
        audience=config.oidc_audience,
        algorithms=config.oidc_algorithms,
        claim=config.oidc_claim,
        grants=grants_of(config.oidc_grants),
        leeway_s=config.oidc_leeway_s,
        max_lifetime_s=config.oidc_max_lifetime_s,
    )
    place, ca_file = config.oidc_keys, config.oidc_ca_file

    def fetch() -> bytes:
        return read_file(Path(place)) if place.startswith("/") else read_url(place, ca_file)

    keys = Keyring(fetch, config.oidc_algorithms, clock, kept_s=config.oidc_keys_kept_s)
    return Identities(rules, keys, denials, clock)
