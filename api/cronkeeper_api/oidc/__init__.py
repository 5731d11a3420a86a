"""Bearer tokens that somebody else issues (OpenID Connect): off unless an issuer is set. Closed in every doubt.

`claims` decides, on values alone; `keys` keeps the issuer's public keys, which `fetch` gets; `identities` joins them.
"""

from __future__ import annotations

from cronkeeper_api.oidc.config import OidcConfig
from cronkeeper_api.oidc.identities import Identities, open_identities

__all__ = ["Identities", "OidcConfig", "open_identities"]
