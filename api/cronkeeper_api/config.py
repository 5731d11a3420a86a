"""What the API server needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import SecretsConfig, StoreConfig, is_public_key, setting
from cronkeeper.runtime.key_files import read_key
from cronkeeper.runtime.tls import server_context
from cronkeeper_api.oidc.config import OidcConfig

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ApiConfig(StoreConfig, SecretsConfig, OidcConfig):
    """Settings of an API server. Secrets come from files or the environment, never from flags."""

    bind: str = setting("127.0.0.1:30001", "host:port to listen on; HAProxy stands in front")
    bind_tls_cert: Path | None = setting(None, "file of this server's certificate: then it speaks TLS only")
    bind_tls_key: Path | None = setting(None, "file of that certificate's key")
    workers: int = setting(1, "processes")
    threads: int = setting(16, "threads of each process")
    signing_key_file: Path | None = setting(None, "file with the 32-byte seed, in hex, that signs tasks; mode 0600")
    verify_keys: tuple[str, ...] = setting(
        (), "public keys (64 hex digits each) of former signing keys, whose tasks may be signed anew"
    )
    run_as_allowed: tuple[str, ...] = setting(
        ("nobody",), "accounts that a job may name in run_as; root needs an admin"
    )
    trusted_proxies: tuple[str, ...] = setting(
        ("127.0.0.0/8", "::1/128"), "networks of HAProxy, whose X-Forwarded-For the audit trail believes"
    )
    max_artifact_bytes: int = setting(8 * MIB, "largest file of a job, bytes")
    max_body_bytes: int = setting(12 * MIB, "largest body of a request, bytes; BASE64 takes a third more than its file")
    body_limit_s: float = setting(30.0, "longest time that a request's body may take to arrive, seconds")
    metrics_public: bool = setting(False, "serve /metrics without a token")
    follow_limit_s: float = setting(3600.0, "longest live tail of a log, seconds")
    drain_s: float = setting(2.0, "on SIGTERM, how long /readyz says 503 before no more requests are taken, seconds")
    graceful_timeout_s: int = setting(10, "on SIGTERM, how long requests in progress may take, seconds")

    def check(self) -> list[str]:
        faults = super().check()
        host, _, port = self.bind.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            faults.append("bind: write host:port, such as 127.0.0.1:30001")
        if not 1 <= self.workers <= 64:
            faults.append("workers: use 1 to 64 processes")
        if not 2 <= self.threads <= 256:
            faults.append("threads: use 2 to 256 threads")
        if self.max_body_bytes * 3 < self.max_artifact_bytes * 4:
            faults.append("max_body_bytes: must be at least 4/3 of max_artifact_bytes, as BASE64 takes so much")
        if not 1 <= self.body_limit_s <= 600:
            faults.append("body_limit_s: use 1 to 600 seconds")
        if not 0 <= self.drain_s <= 60:
            faults.append("drain_s: use 0 to 60 seconds")
        if "root" in self.run_as_allowed:
            faults.append("run_as_allowed: root cannot be listed; it takes an admin's token instead")
        for network in self.trusted_proxies:
            try:
                ip_network(network)
            except ValueError as exc:
                faults.append(f"trusted_proxies: {exc}; write networks such as 10.0.0.0/24")
        return [*faults, *self._key_faults(), *self._tls_faults()]

    def _tls_faults(self) -> list[str]:
        if self.bind_tls_cert is None and self.bind_tls_key is None:
            return []
        if self.bind_tls_cert is None or self.bind_tls_key is None:
            return ["bind_tls_cert: set both bind_tls_cert and bind_tls_key, or neither"]
        try:
            server_context(self.bind_tls_cert, self.bind_tls_key)
        except ConfigError as exc:
            return [f"bind_tls_cert: {exc}"]
        return []

    def _key_faults(self) -> list[str]:
        wrong = [
            f"verify_keys: {key[:12]!r} is not 64 hex digits" for key in self.verify_keys if not is_public_key(key)
        ]
        return [*wrong, *self._signing_faults()]

    def _signing_faults(self) -> list[str]:
        if self.signing_key_file is None:
            return ["signing_key_file: not set; make one with: cronkeeper key create signing-key"]
        try:
            read_signing_key(self.signing_key_file)
        except ConfigError as exc:
            return [f"signing_key_file: {exc}"]
        return []


def read_signing_key(path: Path) -> bytes:
    """Return the 32 secret bytes. Raises ConfigError for a file that is missing, open to others, or no such key."""
    return read_key(path)
