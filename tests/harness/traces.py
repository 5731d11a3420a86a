"""Where a text stands in a whole cluster: every place that it leaves a trace in, searched byte by byte."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from kazoo.client import KazooClient

from tests.harness.cluster import Cluster

#: Parts of paths, and what to put there.
_PART = re.compile(r"\{(\w+)\}")


class Traces:
    """Looks for a text as it is, in BASE64, quoted for URLs, and in JSON."""

    def __init__(self, cluster: Cluster, text: str) -> None:
        self._cluster = cluster
        self._needles = {
            text.encode(),
            base64.b64encode(text.encode()).rstrip(b"="),
            urllib.parse.quote(text).encode(),
            urllib.parse.quote(text, safe="").encode(),
            urllib.parse.quote_plus(text).encode(),
            json.dumps(text)[1:-1].encode(),
        }

    def in_bytes(self, data: bytes) -> bool:
        """Say whether the text stands there."""
        return any(needle in data for needle in self._needles)

    def in_files(self, *folders: Path) -> list[str]:
        """Return the files under these folders that hold it, except the tests' own keys."""
        found = []
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                try:
                    if path.is_file() and not path.is_symlink() and self.in_bytes(path.read_bytes()):
                        found.append(str(path.relative_to(folder)))
                except OSError:  # it went while we looked
                    continue
        return found

    def in_tables(self) -> list[str]:
        """Return the tables of the cluster's database that hold it, and those with no row that was looked at."""
        cluster = self._cluster
        tables = [str(row[0]) for row in cluster.mariadb.execute("SHOW TABLES", cluster.database)]
        assert "jobs" in tables
        return [table for table in tables if any(map(self.in_bytes, self._cells(table)))]

    def in_znodes(self) -> list[str]:
        """Return the znodes that hold it in their name or their data."""
        env = self._cluster.env
        client = KazooClient(env["CRONKEEPER_ZOOKEEPER"], auth_data=[("digest", env["CRONKEEPER_ZOOKEEPER_AUTH"])])
        client.start(10)
        try:
            paths = list(_walk(client, "/"))
            assert any(path.startswith("/tasks/") for path in paths)
            return [path for path in paths if self.in_bytes(path.encode() + b"\n" + (client.get(path)[0] or b""))]
        finally:
            client.stop()
            client.close()

    def in_answers(self, parts: dict[str, str]) -> list[str]:
        """Return the GET routes that answer with it, asked with these parts of paths; every route that there is."""
        document = self._cluster.get("/openapi.json").json()
        found, asked = [], 0
        for path, methods in document["paths"].items():
            if "get" not in methods:
                continue
            real = _PART.sub(lambda part: urllib.parse.quote(parts.get(part[1], "none"), safe=""), path)
            for query in _queries(methods["get"].get("parameters", [])):
                answer = self._cluster.get(real + query)
                asked += answer.status == 200
                if self.in_bytes(answer.body + repr(answer.headers).encode()):
                    found.append(real + query)
        assert asked > 10
        return found

    def in_processes(self, run_id: str) -> tuple[list[str], list[str]]:
        """Return the processes that show it in their command line or environment: (those of the run, all others)."""
        mine: list[str] = []
        others: list[str] = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                argv, environ = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            if self.in_bytes(argv) or self.in_bytes(environ):
                of_run = f"CRONKEEPER_RUN_ID={run_id}".encode() in environ.split(b"\0")
                shown = f"{argv[:80]!r}: {'argv' if self.in_bytes(argv) else 'environ'}"
                (mine if of_run and not self.in_bytes(argv) else others).append(shown)
        return mine, others

    def _cells(self, table: str) -> Iterator[bytes]:
        for row in self._cluster.mariadb.execute(f"SELECT * FROM `{table}`", self._cluster.database):
            for cell in row:
                yield cell if isinstance(cell, bytes) else str(cell).encode()


def _walk(client: KazooClient, path: str) -> Iterator[str]:
    yield path
    for name in client.get_children(path):
        yield from _walk(client, f"{path.rstrip('/')}/{name}")


def _queries(parameters: Iterable[dict[str, object]]) -> list[str]:
    """A route is asked without parameters, and once more with those that it needs to say more."""
    wanted = {"at": "last", "follow": "0", "q": "canary"}
    known = {str(one["name"]) for one in parameters if one.get("in") == "query"}
    return ["", *(f"?{name}={value}" for name, value in wanted.items() if name in known)]
