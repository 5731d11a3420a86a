"""JSON, strictly: canonical bytes out; bounded, versioned objects in."""

from __future__ import annotations

import json
from typing import Any

from cronkeeper.errors import WireFormatError

#: No znode and no message is larger; a server would drop the connection at about 1 MB (jute.maxbuffer).
MAX_BYTES = 262_144
#: Made once: `json.dumps` with arguments makes one for each call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def dumps(data: Any) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, ASCII. Equal values give equal bytes, so bytes can be signed."""
    return _CANONICAL.encode(data).encode("ascii")


def loads(raw: bytes, *, version: int, what: str) -> dict[str, Any]:
    """Read a JSON object whose `v` is at most `version`. Raises WireFormatError, never anything else."""
    if len(raw) > MAX_BYTES:
        raise WireFormatError(f"{what}: {len(raw)} bytes are more than {MAX_BYTES}")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise WireFormatError(f"{what}: not JSON") from exc
    if not isinstance(data, dict):
        raise WireFormatError(f"{what}: not a JSON object")
    found = data.get("v")
    if not isinstance(found, int) or not 1 <= found <= version:
        raise WireFormatError(f"{what}: format version {found!r} is not one of 1 to {version}")
    return data
