"""Stands in front of the S3 server and spoils its answers, as its mode says.

Usage: python -IS s3_liar.py ADDRESS PORT TARGET_PORT MODE_FILE

Standard library only. The mode is read anew for each request: empty passes everything on; `error` answers 503; `slow`
sends 100 bytes a second; `truncate` ends each body half-way, `flip` changes one byte of it, of what is read (GET) only.
"""

from __future__ import annotations

import http.client
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_SLOW_BYTES = 100
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Liar(BaseHTTPRequestHandler):
    """Passes one request on and spoils the answer."""

    address: str
    target_port: int
    mode_file: Path

    def answer(self) -> None:
        """Answer any method."""
        mode = self.mode_file.read_text().strip()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mode == "error":
            self._send(503, [], b"")
            return
        upstream = http.client.HTTPConnection(self.address, self.target_port, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            data = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        length = len(data) if self.command != "HEAD" else int(answer.getheader("Content-Length") or 0)
        if mode == "flip" and self.command == "GET" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        self._send(answer.status, headers, data, length=length, mode=mode)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def _send(
        self, status: int, headers: list[tuple[str, str]], data: bytes, *, length: int = 0, mode: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if mode == "truncate" and self.command == "GET":
            data = data[: len(data) // 2]
        while mode == "slow" and data:
            self.wfile.write(data[:_SLOW_BYTES])
            data = data[_SLOW_BYTES:]
            time.sleep(1)
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve for ever."""
    address, port, target_port, mode_file = sys.argv[1:]
    Liar.address, Liar.target_port, Liar.mode_file = address, int(target_port), Path(mode_file)
    ThreadingHTTPServer((address, int(port)), Liar).serve_forever()


if __name__ == "__main__":
    main()
