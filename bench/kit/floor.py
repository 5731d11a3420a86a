"""The floor: the least that a server can do for a job. A Flask handler, one committed insert, one znode, an answer.

    python -m bench.kit.floor HOST:PORT DATABASE_URL ZOOKEEPER

No login, no rules, no history, no audit, no signature, no folding of requests. As many threads as the API has.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from flask import Flask, Response, jsonify, request
from gunicorn.app.base import BaseApplication
from kazoo.client import KazooClient
from sqlalchemy import create_engine

_THREADS = 16
TABLE = (
    "CREATE TABLE IF NOT EXISTS `floor`"
    " (`id` BIGINT AUTO_INCREMENT PRIMARY KEY, `name` VARCHAR(64) UNIQUE, `spec` TEXT)"
)


def make_app(database_url: str, zookeeper: str) -> Flask:
    app = Flask("floor")
    engine = create_engine(database_url, pool_size=_THREADS, isolation_level="AUTOCOMMIT")
    client = KazooClient(zookeeper)
    client.start()
    client.ensure_path("/floor")

    @app.get("/readyz")
    def ready() -> Response:
        return Response("{}", mimetype="application/json")

    @app.post("/jobs")
    def create() -> tuple[Response, int]:
        body: dict[str, Any] = request.get_json()
        with engine.connect() as conn:
            result = conn.exec_driver_sql(
                "INSERT INTO `floor` (`name`, `spec`) VALUES (%s, %s)", (body["name"], request.get_data(as_text=True))
            )
        client.create(f"/floor/{uuid.uuid4().hex}", request.get_data())
        return jsonify({"id": str(result.lastrowid), "status": "scheduled", **body}), 201

    return app


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, bind: str, database_url: str, zookeeper: str) -> None:
        self._bind, self._database_url, self._zookeeper = bind, database_url, zookeeper
        super().__init__()

    def load_config(self) -> None:
        settings = {"bind": self._bind, "workers": 1, "threads": _THREADS, "worker_class": "gthread", "keepalive": 75}
        for key, value in {**settings, "control_socket_disable": True}.items():
            self.cfg.set(key, value)

    def load(self) -> Flask:
        """Called in the process that serves, after the fork."""
        return make_app(self._database_url, self._zookeeper)


if __name__ == "__main__":
    _Server(*sys.argv[1:]).run()
