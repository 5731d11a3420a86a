"""TLS towards the stores: one private CA, names verified, nothing older than TLS 1.2. There is no way back to plain."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cronkeeper.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: the CA that signs the servers' certificates, and our own certificate with its key, if there is one.

    `setting` is what the keys of the configuration begin with, for messages.
    """

    setting: str
    ca: str
    cert: str = ""
    key: str = ""

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert or self.key)

    def faults(self) -> list[str]:
        """Return sentences that name the settings which do not add up."""
        if not self:
            return []
        faults = []
        if not self.ca:
            faults.append(f"{self.setting}_ca: not set; without it no server's certificate can be verified")
        if bool(self.cert) != bool(self.key):
            faults.append(f"{self.setting}_cert: set both {self.setting}_cert and {self.setting}_key, or neither")
        if not faults:
            try:
                self.context()
            except ConfigError as exc:
                faults.append(str(exc))
        return faults

    def context(self) -> ssl.SSLContext:
        """Return a client's context. It trusts this CA alone, never the system's. Raises ConfigError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = True
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.ca)
        except OSError as exc:  # ssl.SSLError is one, too
            raise ConfigError(f"{self.setting}_ca: {self.ca}: {_words(exc)}") from exc
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key)
            except OSError as exc:
                raise ConfigError(f"{self.setting}_cert: {self.cert}, {self.key}: {_words(exc)}") from exc
        return context


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except OSError as exc:
        raise ConfigError(f"{cert}, {key}: {_words(exc)}") from exc
    return context


def _words(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"no certificate or key in PEM, or they do not belong together ({exc.reason or exc})"
    return exc.strerror or str(exc)
