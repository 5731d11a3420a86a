"""Who asks: a bearer token in the Authorization header, and nowhere else. In doubt nobody is let in."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network

from flask import request

from cronkeeper.domain.scope import NOWHERE
from cronkeeper.ports import Role
from cronkeeper_api.oidc.identities import SHAPE, Identities
from cronkeeper_api.problems import ProblemError
from cronkeeper_api.routing import Access, Reach
from cronkeeper_manager.service import Caller, Tokens

_BEARER = re.compile(r"[Bb]earer (ck_[A-Za-z0-9_-]{43})", re.ASCII)
#: Longer texts are no addresses, and are not kept either.
_ADDRESS_CHARS = 64
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cronkeeper"'}
#: Stands for everybody on public routes.
NOBODY = Caller("", "nobody", Role.VIEWER, NOWHERE)


def authorize(tokens: Tokens, identities: Identities | None, access: Access, reach: Reach) -> Caller:
    """Return the caller, if the token is good, and its role and its namespaces are enough.

    Raises ProblemError (unauthorized, forbidden), PermissionDeniedError (an identity to which nothing was granted), or
    UnavailableError when nobody can say.
    """
    if access is Access.PUBLIC:
        return NOBODY
    # A server joins headers of one name by commas, and neither form has any.
    header = request.environ.get("HTTP_AUTHORIZATION", "")
    if (match := _BEARER.fullmatch(header)) is not None:
        caller = tokens.authenticate(match[1])
    elif identities is not None and (match := SHAPE.fullmatch(header)) is not None:
        caller = identities.authenticate(match[1])
    else:
        raise ProblemError("unauthorized", "send one header: Authorization: Bearer ck_…", headers=_CHALLENGE)
    if caller is None:
        raise ProblemError("unauthorized", "the token is unknown, expired or revoked", headers=_CHALLENGE)
    if not access.allows(caller.role):
        raise ProblemError("forbidden", f"this takes a token with the role {access}; yours is {caller.role}")
    if reach is Reach.FLEET and not caller.scope.everywhere:
        raise ProblemError("forbidden", f"this takes a token for all namespaces; yours is for {caller.scope}")
    return caller


def client_address(trusted_proxies: tuple[str, ...]) -> str:
    """Return where the request comes from, for the trail. No right depends on it.

    A proxy of ours is believed what it says in X-Forwarded-For; the last address there is the one that it saw itself.
    """
    environ = request.environ
    peer: str = environ.get("REMOTE_ADDR", "")
    if not _is_within(peer, trusted_proxies):
        return peer
    told = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
    return _written(told) or peer if len(told) <= _ADDRESS_CHARS else peer


# The same few addresses come with all requests.
@lru_cache(maxsize=1024)
def _written(told: str) -> str:
    """Return an address as it is usually written; an empty text for what is none."""
    try:
        return str(ip_address(told))
    except ValueError:
        return ""


@lru_cache(maxsize=1024)
def _is_within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        return any(ip_address(address) in ip_network(network) for network in networks)
    except ValueError:
        return False
