"""Answers over HTTP whether a Galera member may be used: 200 while it is synced with a majority, 503 otherwise.

Usage: python -m tests.harness.clustercheck ADDRESS PORT MYSQL_PORT

The account comes from CRONKEEPER_TEST_MYSQL_USER and CRONKEEPER_TEST_MYSQL_PASSWORD. A member that has lost the
majority still takes connections and answers reads, so asking for a connection alone would not do.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pymysql

_TIMEOUT_S = 2
_SYNCED = "4"


def usable(address: str, port: int) -> bool:
    """Return whether the member is synced and part of a majority."""
    try:
        connection = pymysql.connect(
            host=address,
            port=port,
            user=os.environ["CRONKEEPER_TEST_MYSQL_USER"],
            password=os.environ["CRONKEEPER_TEST_MYSQL_PASSWORD"],
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
        )
    except pymysql.MySQLError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state', 'wsrep_cluster_status')")
            found = dict(cursor.fetchall())
    except pymysql.MySQLError:
        return False
    finally:
        connection.close()
    return found == {"wsrep_local_state": _SYNCED, "wsrep_cluster_status": "Primary"}


def serve(address: str, port: int, mysql_port: int) -> None:
    """Serve for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if usable(address, mysql_port) else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: it is asked every second."""

    ThreadingHTTPServer((address, port), Handler).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
