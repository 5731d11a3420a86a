"""ZooKeeper, behind `ports.Coordinator`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronkeeper.ports import Coordinator


def connect(hosts: str, *, auth: str = "", session_timeout_s: float = 6.0, name: str) -> Coordinator:
    """Return a coordinator that is not connected yet: call `start`. Make it after any fork.

    `hosts` is `h1:port,h2:port/chroot`; without a chroot it is `/cronkeeper`. With `auth` (`user:password`) everything
    is created for that user alone. `name` appears in thread names and logs. Raises ConfigError.
    """
    # kazoo takes a tenth of a second to import; the command line never needs it.
    from cronkeeper.coord.coordinator import ZnodeCoordinator
    from cronkeeper.coord.session import KazooSession

    return ZnodeCoordinator(KazooSession(hosts, auth=auth, timeout_s=session_timeout_s, name=name))
