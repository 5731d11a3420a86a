"""TLS in front of a server of the tests that speaks none: a HAProxy that passes on what it decrypts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from tests.harness.folders import make_folder, remove_folder
from tests.harness.mariadb import find_program
from tests.harness.ports import free_port
from tests.harness.processes import Process

_CONFIG = """
global
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port} ssl crt {pem}
    server behind 127.0.0.1:{target}
"""


class TlsFront:
    """127.0.0.1:`port` speaks TLS with the certificate and key in `pem`; 127.0.0.1:`target` gets what was sent."""

    def __init__(self, target: int, pem: Path) -> None:
        self.folder = make_folder("tls-front")
        self.port = free_port()
        config = self.folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(port=self.port, pem=pem, target=target))
        argv = [find_program("haproxy"), "-f", str(config), "-db"]
        self.process = Process("tls-front", argv, log_path=self.folder / "haproxy.log")

    def start(self) -> Self:
        """Start it; returns when it listens."""
        self.process.start()
        self.process.wait_until(self._accepts, timeout_s=15.0, what="listening")
        return self

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.process.stop()
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accepts(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        return True
