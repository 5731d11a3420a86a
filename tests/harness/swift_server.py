"""OpenStack Swift with its S3 API, as one process: run by .venv-s3's Python, started by `objectstore.py`.

Usage: python swift_server.py FOLDER ADDRESS S3_PORT ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT

The access key and the secret come from CRONKEEPER_S3_ACCESS_KEY (`project:user`) and CRONKEEPER_S3_SECRET_KEY. All
listens on ADDRESS; FOLDER must be on a file system with extended attributes. What was stored survives a kill -9.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift.common import utils

# Swift runs on green threads: the standard library must be patched before anything else of it is imported.
utils.monkey_patch()

import eventlet  # noqa: E402
from eventlet import wsgi  # noqa: E402
from swift.account.server import AccountController  # noqa: E402
from swift.common.middleware import catch_errors, copy, gatekeeper, listing_formats, slo, tempauth  # noqa: E402
from swift.common.middleware.s3api import s3api  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.container.server import ContainerController  # noqa: E402
from swift.obj.server import ObjectController  # noqa: E402
from swift.proxy.server import Application  # noqa: E402

try:
    from swift.common.http_protocol import SwiftHttpProtocol
except ImportError:  # its place before Swift 2.31
    from swift.common.wsgi import SwiftHttpProtocol

# Generous, for a busy machine: an update of a listing that times out is put aside for a daemon that we do not run.
_TIMEOUTS = {
    "conn_timeout": "10",
    "node_timeout": "60",
    "container_update_timeout": "60",
    "recoverable_node_timeout": "60",
}
_BACKLOG = 1024


class MemoryCache:
    """What Swift keeps in memcached, in this process: tokens and what it knows about accounts and containers."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, str]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        """Return the value, as JSON brought it back; None if there is none or its time has come."""
        expires_at, text = self._entries.get(key, (0.0, "null"))
        return json.loads(text) if expires_at > time.time() else None

    def set(self, key: str, value: Any, serialize: bool = True, time: float = 0, **_: Any) -> None:
        """Keep the value for `time` seconds; for good if that is 0."""
        self._entries[key] = (_expiry(time), json.dumps(value))

    def delete(self, key: str, server_key: str | None = None) -> None:
        """Forget the value."""
        self._entries.pop(key, None)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Add to a number, never below zero, and return the sum."""
        value = max(0, int(self.get(key) or 0) + delta)
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Subtract from a number, never below zero, and return the rest."""
        return self.incr(key, -delta, time)


def _expiry(duration_s: float) -> float:
    return time.time() + duration_s if duration_s else float("inf")


def with_cache(app: Any) -> Callable[[dict[str, Any], Any], Any]:
    """Return a filter that gives every request the one cache."""
    cache = MemoryCache()

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        environ["swift.cache"] = cache
        return app(environ, start_response)

    return call


def write_configuration(folder: Path, address: str, ports: dict[str, int]) -> None:
    """Write swift.conf and one ring (one device, one replica) for each kind of server."""
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = cronkeeper\n")
    (folder / "devices" / "d1").mkdir(parents=True, exist_ok=True)
    for kind, port in ports.items():
        # 2**4 partitions, one replica, no minimal time between changes.
        builder = RingBuilder(4, 1, 0)
        builder.add_dev({"region": 1, "zone": 1, "ip": address, "port": port, "device": "d1", "weight": 1.0})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


def make_proxy(conf: dict[str, str], access_key: str, secret_key: str) -> Any:
    """Return the S3 front: signatures are checked by `s3api` and `tempauth`, multipart uploads are `slo`'s."""
    proxy = Application(conf)
    proxy._pipeline_request_logging_app = proxy
    account, _, user = access_key.partition(":")
    app = slo.filter_factory(conf)(proxy)
    app = copy.filter_factory(conf)(app)
    app = tempauth.filter_factory(conf, **{f"user_{account}_{user}": f"{secret_key} .admin"})(app)
    app = s3api.filter_factory(conf, location="us-east-1", s3_acl="false", auth_pipeline_check="false")(app)
    app = listing_formats.filter_factory(conf)(app)
    app = gatekeeper.filter_factory(conf)(app)
    app = catch_errors.filter_factory(conf)(app)
    return with_cache(app)


def listen(address: str, port: int) -> Any:
    """Return a listening green socket."""
    return eventlet.listen((address, port), backlog=_BACKLOG, reuse_addr=True)


def serve(listener: Any, app: Any) -> None:
    """Serve for ever."""
    # Header names must go out as they are: clients of S3 look for "ETag", not "Etag".
    wsgi.server(listener, app, utils.NullLogger(), protocol=SwiftHttpProtocol, capitalize_response_headers=False)


def print_log(address: Path) -> None:
    """Print for ever what Swift tells its syslog: a datagram socket of our own."""
    address.unlink(missing_ok=True)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(str(address))

    def pump() -> None:
        while True:
            print(log.recv(65536).decode(errors="replace").rstrip("\0"), flush=True)

    eventlet.spawn(pump)


def main() -> None:
    """Start the three storage servers and the proxy; never returns."""
    warnings.filterwarnings("ignore", message="capitalize_response_headers is disabled")
    folder, address = Path(sys.argv[1]), sys.argv[2]
    s3_port, account_port, container_port, object_port = map(int, sys.argv[3:7])
    write_configuration(folder, address, {"account": account_port, "container": container_port, "object": object_port})
    utils.set_swift_dir(str(folder))
    print_log(folder / "log.sock")
    conf = {
        "swift_dir": str(folder),
        "devices": str(folder / "devices"),
        "mount_check": "false",
        "disable_fallocate": "true",
        "fallocate_reserve": "0",
        "log_address": str(folder / "log.sock"),
        "log_level": "WARNING",
        "account_autocreate": "true",
        "allow_account_management": "true",
        "workers": "0",
        **_TIMEOUTS,
    }
    eventlet.spawn(serve, listen(address, account_port), AccountController(conf))
    eventlet.spawn(serve, listen(address, container_port), ContainerController(conf))
    eventlet.spawn(serve, listen(address, object_port), ObjectController(conf))
    front = make_proxy(conf, os.environ["CRONKEEPER_S3_ACCESS_KEY"], os.environ["CRONKEEPER_S3_SECRET_KEY"])
    serve(listen(address, s3_port), front)


if __name__ == "__main__":
    main()
