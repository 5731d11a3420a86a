"""Stands in front of the S3 server and spoils its answers, as its mode says.

Usage: python -IS s3_liar.py ADDRESS PORT TARGET_PORT MODE_FILE

Standard library only. The mode file is read anew for each request. Its first line is the mode of all requests; a line
`MODE PART` is that of those alone whose path holds PART. Empty passes everything on; `error` answers 503; `slow` sends
100 bytes a second; `truncate` ends each body half-way, `flip` changes one byte of it, `drip` sends one byte a second,
`endless` sends on and on, `longer` promises a byte more than there is, `redirect` leads to another address (which the
line names behind PART), `swap` sends the file that the line names there, under the headers of the truth; of what is
read (GET) only.
"""

from __future__ import annotations

import http.client
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: How many bytes a second.
_PIECES = {"slow": 100, "drip": 1}
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Liar(BaseHTTPRequestHandler):
    """Passes one request on and spoils the answer."""

    address: str
    target_port: int
    mode_file: Path

    def answer(self) -> None:
        """Answer any method."""
        mode, extra = self._mode()
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
        if mode == "redirect" and self.command == "GET":
            self._send(302, [("Location", extra)], b"")
            return
        if mode == "flip" and self.command == "GET" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if mode == "swap" and self.command == "GET":
            data = Path(extra).read_bytes()
            length = len(data)
        if mode == "longer" and self.command == "GET":
            length += 1
        if mode == "endless" and self.command == "GET":
            length = 1 << 40
        self._send(answer.status, headers, data, length=length, mode=mode)

    def _mode(self) -> tuple[str, str]:
        """Return the mode of this request, and what else its line says."""
        first, *lines = self.mode_file.read_text().splitlines() or [""]
        for line in lines:
            mode, part, *rest = line.split(" ", 2)
            if part in self.path:
                return mode, "".join(rest)
        return first.strip(), ""

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
        if self.command == "GET" and mode in _PIECES:
            piece = _PIECES[mode]
            while data:
                self.wfile.write(data[:piece])
                self.wfile.flush()
                data = data[piece:]
                time.sleep(1)
        while self.command == "GET" and mode == "endless":
            self.wfile.write(data)
            data = bytes(1 << 20)
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
