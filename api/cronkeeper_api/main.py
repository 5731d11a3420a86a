"""The API server: gunicorn with threads, told to stop in an order that HAProxy can follow.

Nothing heavy is imported here: the process that supervises the others stays small, and what must not survive a fork
(connection pools, the ZooKeeper session) is made in each of them.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.hardening import no_core_dumps
from cronkeeper.runtime.logs import setup_logs
from cronkeeper.runtime.tls import server_context
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.connections import Worker

if TYPE_CHECKING:
    from cronkeeper_api.services import Services

log = logging.getLogger(__name__)

#: HAProxy keeps idle connections to us for less than that, so that it never sends into one that we are closing.
KEEPALIVE_S = 75
_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def run(config: ApiConfig) -> int:
    """Serve until SIGTERM (drains first) or SIGINT (at once); return the exit status."""
    setup_logs(config, service="api", instance=config.bind)
    no_core_dumps()
    drain = _Drain()
    with _MetricsFolder(config.workers):
        try:
            _Arbiter(_Application(config, drain), drain, config.drain_s).run()
        except SystemExit as exc:
            if drain.refused:
                return 2
            return exc.code if isinstance(exc.code, int) else 1
        except RuntimeError as exc:
            log.error("the API server cannot start", extra={"event": "api.failed", "error": str(exc)})
            return 1
    return 2 if drain.refused else 0


class _Drain:
    """Two bytes that the supervising process and all its children share: do we stop soon? Did a store refuse us?"""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2)

    def begin(self) -> None:
        self._memory[0] = 1

    def __call__(self) -> bool:
        return self._memory[0] == 1

    def refuse(self, exc: ConfigError) -> None:
        """End all of it, from one of the children: a store answers and refuses what an API server has to do."""
        log.critical("a store refuses us", extra={"event": "canary.refused", "error": str(exc)})
        self._memory[1] = 1
        os.kill(os.getppid(), signal.SIGINT)

    @property
    def refused(self) -> bool:
        return self._memory[1] == 1


class _MetricsFolder:
    """With several processes, the folder in which they share their numbers; fresh at each start."""

    def __init__(self, workers: int) -> None:
        self._needed = workers > 1
        self._path: Path | None = None

    def __enter__(self) -> None:
        if not self._needed:
            os.environ.pop(_SHARED_FOLDER, None)
            return
        if "prometheus_client" in sys.modules:
            # It chooses how to count when it is imported.
            log.warning("metrics are counted for each process on its own", extra={"event": "metrics.alone"})
            return
        self._path = Path(tempfile.mkdtemp(prefix="cronkeeper-metrics-"))
        os.environ[_SHARED_FOLDER] = str(self._path)

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """On SIGTERM, /readyz says 503 for a while before the listening socket closes; a second SIGTERM ends the wait."""

    def __init__(self, app: _Application, drain: _Drain, drain_s: float) -> None:
        self._drain = drain
        self._drain_s = drain_s
        super().__init__(app)

    def handle_term(self) -> None:
        if self._drain() or self._drain_s == 0:
            super().handle_term()
        self._drain.begin()
        log.info("draining before the end", extra={"event": "api.draining", "seconds": self._drain_s})
        timer = threading.Timer(self._drain_s, self.SIG_QUEUE.put_nowait, [signal.SIGTERM])
        timer.daemon = True
        timer.start()


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, config: ApiConfig, drain: _Drain) -> None:
        self._config = config
        self._drain = drain
        self._services: Services | None = None
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._settings().items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        """Called in each process after the fork."""
        from cronkeeper_api.app import create_app
        from cronkeeper_api.services import open_services

        try:
            self._services = open_services(self._config, draining=self._drain, refused=self._drain.refuse)
        except ConfigError as exc:
            self._drain.refuse(exc)
            raise
        app = create_app(self._services)
        # What is here now stays: the collector need not go through it again, which takes 50 ms each time.
        gc.freeze()
        return app

    def _settings(self) -> dict[str, Any]:
        config = self._config
        return {
            "bind": config.bind,
            **self._tls(),
            "workers": config.workers,
            "threads": config.threads,
            "worker_class": Worker,
            "keepalive": KEEPALIVE_S,
            # Between heartbeats of a process, not for a request: a live tail may take an hour.
            "timeout": 60,
            "graceful_timeout": config.graceful_timeout_s,
            "logger_class": _Logger,
            "accesslog": None,
            # HAProxy's word about clients is not needed, and nobody else's is believed.
            "forwarded_allow_ips": "",
            # Its default place is one for all servers of an account, and a way in that nobody asked for.
            "control_socket_disable": True,
            "proc_name": "cronkeeper-api",
            "limit_request_line": 4094,
            "limit_request_fields": 60,
            "worker_exit": self._close,
            "worker_int": self._interrupt,
            "child_exit": _forget,
            "post_worker_init": self._watch_end,
        }

    def _tls(self) -> dict[str, Any]:
        cert, key = self._config.bind_tls_cert, self._config.bind_tls_key
        if cert is None or key is None:
            return {}
        context = server_context(cert, key)
        return {"certfile": str(cert), "keyfile": str(key), "ssl_context": lambda _config, _default: context}

    def _watch_end(self, worker: Any) -> None:
        """Have live tails end when the process is told to, so that it can."""
        services = self._services
        if services is None:
            return
        handle_exit = worker.handle_exit

        def on_exit(number: int, frame: Any) -> None:
            services.stopping.set()
            handle_exit(number, frame)

        signal.signal(signal.SIGTERM, on_exit)

    def _interrupt(self, _worker: Any) -> None:
        if self._services is not None:
            self._services.stopping.set()

    def _close(self, _server: Any, _worker: Any) -> None:
        if self._services is not None:
            self._services.close()


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn's own words, through our logs; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(logging.INFO)

    def access(self, *_: Any) -> None:
        return

    def reopen_files(self) -> None:
        return

    def close_on_exec(self) -> None:
        return


def _forget(_server: Any, worker: Any) -> None:
    """Drop a dead process's gauges."""
    if _SHARED_FOLDER in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
