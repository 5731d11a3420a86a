"""Getting the issuer's keys: from one place, which the operator has set, within limits of time and size.

No redirect is followed, no proxy of the environment is used, nothing that a token says has a part in it.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from cronkeeper.errors import UnavailableError

MAX_BYTES = 256 * 1024
#: For each packet, and for all of it: a server that sends a byte now and then does not hold us longer.
_STEP_S, _ALL_S = 3.0, 5.0


def read_file(path: Path) -> bytes:
    """Return the file's content. Raises UnavailableError."""
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))
    except OSError as exc:
        raise UnavailableError(f"cannot read {path}: {exc.strerror}") from exc


def read_url(url: str, ca_file: Path | None = None, *, all_s: float = _ALL_S) -> bytes:
    """Return what the URL answers with 200. Raises UnavailableError for anything else."""
    parts = urlsplit(url)
    host, https = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if https else 80)
    late, watch = threading.Event(), None
    try:
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection((host, port), timeout=min(_STEP_S, all_s)))
            sock = plain
            if https:
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                sock = stack.enter_context(
                    context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
                )
            watch = threading.Timer(all_s, _cut, [sock, late])
            watch.daemon = True
            watch.start()
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            raw = _get(sock, host, port, parts.path or "/", parts.query, https=https)
            # A connection that was cut looks like an answer that has ended.
            if late.is_set():
                raise TimeoutError(f"not within {all_s:g} seconds")
            return raw
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise UnavailableError(f"cannot fetch {url}: {exc!r}") from exc
    finally:
        if watch is not None:
            watch.cancel()


def _get(sock: socket.socket, host: str, port: int, path: str, query: str, *, https: bool) -> bytes:
    kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
    connection = kind(host, port)
    # Connected already: it has no part in where to.
    connection.sock = sock
    headers = {"Accept": "application/json", "User-Agent": "cronkeeper", "Connection": "close"}
    connection.request("GET", f"{path}?{query}" if query else path, headers=headers)
    with connection.getresponse() as answer:
        if answer.status != http.client.OK:
            raise UnavailableError(f"the issuer's keys are answered with status {answer.status}")
        raw = _bounded(answer.read(MAX_BYTES + 1))
        if answer.length:
            raise UnavailableError("the issuer's keys ended early")
        return raw


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MAX_BYTES:
        raise UnavailableError(f"the issuer's keys are more than {MAX_BYTES} bytes")
    return raw


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
