"""Who is at the other end of a Unix socket, as the kernel knows it."""

from __future__ import annotations

import struct
from typing import Any

_SOL_SOCKET, _SO_PEERCRED = 1, 17
_UCRED = struct.Struct("3i")


def peer_uid(connection: Any) -> int:
    """Return the account at the other end. (Any: the runner has no `socket`, but what that is made of.)"""
    _pid, uid, _gid = _UCRED.unpack(connection.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
    return int(uid)
