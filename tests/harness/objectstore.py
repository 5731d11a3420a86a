"""A real S3 server over HTTP that checks signatures: OpenStack Swift (docs/decisions/0003-s3-server-for-tests.md)."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config

from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.ports import free_port
from tests.harness.processes import Process, ServerError

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = _ROOT / ".venv-s3" / "bin" / "python"
_SERVER = Path(__file__).with_name("swift_server.py")
_LIAR = Path(__file__).with_name("s3_liar.py")
_START_TIMEOUT_S = 60.0


class ObjectStore:
    """One S3 server; every start goes on from the same data, also after a kill.

    It does what our product may use of S3: put, get, ranges, head, list, delete, multipart, signed links. It has no
    tagging, life cycle or policies, and its conditional put is no fence: the product must not lean on those.
    """

    def __init__(self, name: str = "objectstore", *, host: Host = LOOPBACK) -> None:
        if not _PYTHON.exists():
            raise ServerError(f"{_PYTHON} is not there; any `tests/run` of the integration tests makes it")
        self.folder = make_folder(name)
        self._host = host
        self._mode_file = self.folder / "liar-mode"
        self._liar: Process | None = None
        self.port = free_port()
        self.endpoint_url = f"http://{host.address}:{self.port}"
        self.region = "us-east-1"
        self.access_key = "test:tester"
        self.secret_key = secrets.token_hex(16)
        ports = [self.port, free_port(), free_port(), free_port()]
        self.process = Process(
            name,
            [str(_PYTHON), str(_SERVER), str(self.folder), host.address, *map(str, ports)],
            log_path=self.folder / "swift.log",
            env={
                **os.environ,
                "CRONKEEPER_S3_ACCESS_KEY": self.access_key,
                "CRONKEEPER_S3_SECRET_KEY": self.secret_key,
            },
            host=host,
        )

    def start(self) -> Self:
        """Start it; returns when it answers a signed request."""
        self.launch()
        self.wait_started()
        return self

    def launch(self) -> None:
        """Start it; returns before it answers."""
        self.process.start()

    def wait_started(self) -> None:
        """Return when it answers a signed request."""
        client = self.client()
        self.process.wait_until(client.list_buckets, timeout_s=_START_TIMEOUT_S, what="answering")
        client.close()

    def stop(self) -> None:
        """Stop it and remove its data."""
        if self._liar is not None:
            self._liar.stop()
        self.process.stop()
        remove_folder(self.folder)

    def start_liar(self) -> None:
        """Put a server in front that can spoil answers, see `lie`; `endpoint_url` is its address from now on."""
        port = free_port()
        argv = [sys.executable, "-IS", str(_LIAR), self._host.address, str(port), str(self.port), str(self._mode_file)]
        self.lie("")
        self._liar = Process("s3-liar", argv, log_path=self.folder / "liar.log", host=self._host).start()
        self.endpoint_url = f"http://{self._host.address}:{port}"
        client = self.client()
        self._liar.wait_until(client.list_buckets, timeout_s=_START_TIMEOUT_S, what="answering")
        client.close()

    def lie(self, mode: str) -> None:
        """Spoil answers from now on, as `s3_liar.py` says, line by line; the truth again with an empty `mode`."""
        new = self._mode_file.with_suffix(".new")
        new.write_text(mode)
        new.replace(self._mode_file)

    def kill(self) -> None:
        """kill -9; what was stored is there after the next `start`."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections open and nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self.process.resume()

    def client(self, *, secret_key: str | None = None) -> Any:
        """Return a boto3 client with the server's own keys, or with another secret; close it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=3,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 1},
                proxies={},
            ),
        )

    def create_bucket(self, name: str) -> str:
        """Create an empty bucket; return its name."""
        client = self.client()
        try:
            client.create_bucket(Bucket=name)
        finally:
            client.close()
        return name

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
