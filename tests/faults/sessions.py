"""Ends ZooKeeper sessions by force, as their servers would."""

from __future__ import annotations

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

from tests.faults.fleet import Fleet
from tests.harness.processes import ServerError

#: ZooKeeper derives a session's password from its id and this number, which is in its source.
_SUPER_SECRET = 0xB3415C00
_MULTIPLIER, _ADDEND, _MASK = 0x5DEECE66D, 0xB, (1 << 48) - 1
_PASSWORD_BYTES = 16


def password_of(session_id: int) -> bytes:
    """Return the password that ZooKeeper gave a session: the first bytes of Java's `Random(id ^ secret)`."""
    state = ((session_id ^ _SUPER_SECRET) ^ _MULTIPLIER) & _MASK
    found = b""
    while len(found) < _PASSWORD_BYTES:
        state = (state * _MULTIPLIER + _ADDEND) & _MASK
        found += (state >> 16).to_bytes(4, "little")
    return found


def expire(fleet: Fleet, session_id: int) -> None:
    """Have the ensemble end a session now; its owner is told when it next says something. Raises `ServerError`."""
    hosts = fleet.cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")[0]
    client = KazooClient(hosts=hosts, client_id=(session_id, password_of(session_id)))
    states: list[str] = []
    client.add_listener(states.append)
    client.start(timeout=10)
    try:
        joined = (client.client_id or (0,))[0] == session_id and KazooState.LOST not in states
    finally:
        # Closing a client ends its session, whoever else may be using it.
        client.stop()
        client.close()
    if not joined:
        raise ServerError(f"ZooKeeper did not know session {session_id:#x} by its password")
