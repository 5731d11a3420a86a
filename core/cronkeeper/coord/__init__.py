"""ZooKeeper, behind `ports.Coordinator`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronkeeper.ports import Coordinator
    from cronkeeper.runtime.tls import Tls


def connect(
    hosts: str, *, auth: str = "", session_timeout_s: float = 6.0, name: str, tls: Tls | None = None
) -> Coordinator:
    """Return a coordinator that is not connected yet: call `start`. Make it after any fork.

    `hosts` is `h1:port,h2:port/chroot`; without a chroot it is `/cronkeeper`. With `auth` (`user:password`) everything
    is created for that user alone. With `tls` nothing but TLS is spoken, with servers that its CA has signed for the
    names in `hosts`. `name` appears in thread names and logs. Raises ConfigError.
    """
    # kazoo takes a tenth of a second to import; the command line never needs it.
    from cronkeeper.coord.coordinator import ZnodeCoordinator
    from cronkeeper.coord.session import KazooSession

    return ZnodeCoordinator(KazooSession(hosts, auth=auth, timeout_s=session_timeout_s, name=name, tls=tls))
