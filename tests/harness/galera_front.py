"""One address for a Galera cluster: HAProxy sends everybody to the first member that may be used."""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from tests.harness.folders import make_folder, remove_folder
from tests.harness.galera import Galera
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.mariadb import Database
from tests.harness.ports import free_port
from tests.harness.processes import Process, ServerError

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 30.0
_CONFIG = """
global
    maxconn 480
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 3s
    default-server inter 500ms fall 2 rise 2 on-marked-down shutdown-sessions on-marked-up shutdown-backup-sessions
listen mysql
    bind {bind}
    option httpchk GET /
{servers}
"""


class GaleraFront(Database):
    """What the fleet takes for its MySQL. One member serves all writes; the next takes over when it may not."""

    def __init__(self, galera: Galera, *, host: Host = LOOPBACK, places: Sequence[Host] = (LOOPBACK,) * 3) -> None:
        program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise ServerError("haproxy is not installed; run deploy/install-packages test")
        self.folder = make_folder("galera-front")
        self.host = host
        self.port = free_port()
        self.user, self.password = galera.members[0].user, galera.members[0].password
        checks = [free_port() for _ in places]
        self._check_urls = [f"http://{place.address}:{port}/" for place, port in zip(places, checks, strict=True)]
        self._checkers = [
            Process(
                f"clustercheck-{number}",
                [sys.executable, "-m", "tests.harness.clustercheck", place.address, str(port), str(member.port)],
                log_path=self.folder / f"clustercheck-{number}.log",
                env={
                    "PATH": os.environ["PATH"],
                    "CRONKEEPER_TEST_MYSQL_USER": member.user,
                    "CRONKEEPER_TEST_MYSQL_PASSWORD": member.password,
                },
                cwd=_ROOT,
                host=place,
            )
            for number, (place, port, member) in enumerate(zip(places, checks, galera.members, strict=True))
        ]
        servers = [
            f"    server member-{number} {place.address}:{member.port} check port {port}{' backup' if number else ''}"
            for number, (place, port, member) in enumerate(zip(places, checks, galera.members, strict=True))
        ]
        config = self.folder / "haproxy.cfg"
        config.write_text(_CONFIG.format(bind=f"{host.address}:{self.port}", servers="\n".join(servers)))
        self.process = Process(
            "galera-front", [program, "-f", str(config), "-db"], log_path=self.folder / "haproxy.log", host=host
        )

    def start(self) -> Self:
        """Start it; returns when a statement comes through."""
        for checker in self._checkers:
            checker.start()
        for checker, url in zip(self._checkers, self._check_urls, strict=True):
            checker.wait_until(partial(_is_ok, url), timeout_s=_START_TIMEOUT_S, what="answering")
        # HAProxy takes every server for a good one until its first check has failed.
        self.process.start()
        self.wait_started()
        return self

    def stop(self) -> None:
        """Stop it; the members go on."""
        for process in [self.process, *self._checkers]:
            process.stop()
        remove_folder(self.folder)


def _is_ok(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
