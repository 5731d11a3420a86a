"""Two real API servers (gunicorn) behind a real HAProxy, on a real database: what a client of a fleet meets."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from cronkeeper.ports import Role
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.store import open_store, upgrade
from cronkeeper_manager.service import Tokens
from tests.harness.certificates import Authority
from tests.harness.folders import make_folder, remove_folder
from tests.harness.haproxy import HAProxy
from tests.harness.ports import free_port
from tests.harness.processes import Process

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = os.pathsep.join(str(_ROOT / name) for name in ("core", "api", "manager"))


#: One for all servers of a session: several may share a chroot.
_ZOOKEEPER_AUTH = f"cronkeeper:{secrets.token_hex(16)}"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class ApiServers:
    """Starts with `with`; `url` of HAProxy is at `port`, the servers' own at `ports`.

    With `tls` everything speaks TLS, with certificates of that CA: clients with HAProxy, HAProxy with the servers.
    """

    def __init__(
        self,
        database_url: str,
        zookeeper: str,
        settings: Mapping[str, str] | None = None,
        *,
        tls: Authority | None = None,
        haproxy: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = make_folder("api")
        self.database_url = database_url
        self.ports = [free_port(), free_port()]
        key = self.folder / "signing-key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        self._env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": _SOURCES,
            "CRONKEEPER_DATABASE_URL": database_url,
            "CRONKEEPER_ZOOKEEPER": zookeeper,
            "CRONKEEPER_ZOOKEEPER_AUTH": _ZOOKEEPER_AUTH,
            "CRONKEEPER_BLOB_URL": f"file://{self.folder}/blobs",
            "CRONKEEPER_SIGNING_KEY_FILE": str(key),
            "CRONKEEPER_LOG_FORMAT": "json",
            **(settings or {}),
        }
        self.tls: ssl.SSLContext | None = None
        front: dict[str, str] = {}
        if tls is not None:
            self.tls = ssl.create_default_context(cafile=str(tls.ca))
            mine, api = tls.issue("front"), tls.issue("api", ("127.0.0.1", "api.example"))
            self._env |= {"CRONKEEPER_BIND_TLS_CERT": str(api.cert), "CRONKEEPER_BIND_TLS_KEY": str(api.key)}
            front = {
                "CRONKEEPER_HAPROXY_TLS": f"ssl crt {mine.both}",
                "CRONKEEPER_API_TLS": f"ssl verify required ca-file {tls.ca} verifyhost api.example",
            }
        self.servers = [self._server(number) for number in (0, 1)]
        self.haproxy = HAProxy(*(f"127.0.0.1:{port}" for port in self.ports), env={**front, **(haproxy or {})})
        self.tokens: dict[Role, str] = {}

    def start(self) -> Self:
        """Bring the schema up to date, make a token for every role, and start; returns when HAProxy has a server."""
        upgrade.upgrade(self.database_url)
        store = open_store(self.database_url)
        try:
            tokens = Tokens(store.tokens, SystemClock())
            self.tokens = {role: tokens.create(name=f"the-{role}", role=role)[1] for role in Role}
        finally:
            store.close()
        for server in self.servers:
            server.start()
        self.haproxy.start()
        for server, port in zip(self.servers, self.ports, strict=True):
            server.wait_until(partial(self._ready, port), timeout_s=60, what="ready")
        self.haproxy.process.wait_until(partial(self._ready, self.haproxy.port), timeout_s=60, what="ready")
        return self

    def stop(self) -> None:
        self.haproxy.stop()
        for server in self.servers:
            server.stop()
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(
        self,
        method: str,
        path: str,
        *,
        role: Role | None = Role.OPERATOR,
        body: Any = None,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        port: int | None = None,
        timeout_s: float = 30,
    ) -> Reply:
        """Send one request on a connection of its own: to HAProxy, or to a server's `port`."""
        sent = dict(headers or {})
        if role is not None:
            sent.setdefault("Authorization", f"Bearer {self.tokens[role]}")
        if body is not None:
            raw = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        where = ("127.0.0.1", port or self.haproxy.port)
        if self.tls is None:
            connection = http.client.HTTPConnection(*where, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(*where, timeout=timeout_s, context=self.tls)
        try:
            connection.request(method, path, body=raw, headers=sent)
            response = connection.getresponse()
            lower = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, lower, response.read())
        finally:
            connection.close()

    def _server(self, number: int) -> Process:
        env = {**self._env, "CRONKEEPER_BIND": f"127.0.0.1:{self.ports[number]}"}
        argv = [sys.executable, "-m", "cronkeeper_api"]
        return Process(f"api-{number}", argv, log_path=self.folder / f"api-{number}.log", env=env)

    def _ready(self, port: int) -> bool:
        return self.call("GET", "/readyz", role=None, port=port, timeout_s=5).status == 200
