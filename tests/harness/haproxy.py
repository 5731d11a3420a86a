"""The repository's own haproxy.cfg, run by a real HAProxy in front of two API servers of the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.ports import free_port
from tests.harness.processes import Process, ServerError

CONFIG = Path(__file__).resolve().parents[2] / "haproxy.cfg"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
_START_TIMEOUT_S = 15.0


class HAProxy:
    """HAProxy on a free port; `api_1` and `api_2` are the servers behind it, as host:port.

    It answers 503 by itself while neither server is healthy: wait for a 200 from the API, not for this.
    """

    def __init__(
        self,
        api_1: str,
        api_2: str,
        *,
        env: Mapping[str, str] | None = None,
        config: Path = CONFIG,
        host: Host = LOOPBACK,
    ) -> None:
        self.folder = make_folder("haproxy")
        self._address = host.address
        self.port = free_port()
        scheme = "https" if (env or {}).get("CRONKEEPER_HAPROXY_TLS") else "http"
        self.url = f"{scheme}://{host.address}:{self.port}"
        program = shutil.which("haproxy", path=_PATH)
        if program is None:
            raise ServerError("haproxy is not installed; run deploy/install-packages test")
        self._argv = [program, "-f", str(config), "-db"]
        self._env = {
            "PATH": _PATH,
            "CRONKEEPER_HAPROXY_BIND": f"{host.address}:{self.port}",
            "CRONKEEPER_API_1": api_1,
            "CRONKEEPER_API_2": api_2,
            **(env or {}),
        }
        self.process = Process("haproxy", self._argv, log_path=self.folder / "haproxy.log", env=self._env, host=host)

    def start(self) -> Self:
        """Start it; returns when it listens. Raises `ServerError` with HAProxy's words if the file is wrong."""
        self.check()
        self.process.start()
        self.process.wait_until(self._accepts, timeout_s=_START_TIMEOUT_S, what="listening")
        return self

    def check(self) -> str:
        """Return what `haproxy -c` says of the file; raise `ServerError` if it is not valid."""
        result = subprocess.run([*self._argv, "-c"], env=self._env, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ServerError(f"haproxy refuses the configuration:\n{result.stdout}{result.stderr}")
        return result.stdout + result.stderr

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.process.stop()
        remove_folder(self.folder)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self.process.resume()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accepts(self) -> bool:
        socket.create_connection((self._address, self.port), timeout=1.0).close()
        return True
