"""A real MariaDB, with a data folder of its own that is gone when it stops."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pymysql

from tests.harness.folders import make_folder, remove_folder
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.ports import free_port
from tests.harness.processes import Process, ServerError

_ACCOUNT = "mysql"
_START_TIMEOUT_S = 60.0


class Database:
    """What speaks MySQL at `host`:`port`, with an account that may do everything."""

    host: Host
    port: int
    user: str
    password: str
    process: Process

    def wait_started(self) -> None:
        """Return when it answers a query."""
        self.process.wait_until(lambda: self.execute("SELECT 1"), timeout_s=_START_TIMEOUT_S, what="answering")

    def kill(self) -> None:
        """kill -9; what was committed is there after the next `start`."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self.process.resume()

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"mysql+pymysql://{self.user}:{self.password}@{self.host.address}:{self.port}/{database}"

    def connect(self, database: str | None = None) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        """Return a new autocommit connection that gives up after 5 s; close it."""
        return pymysql.connect(
            host=self.host.address,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            autocommit=True,
            connect_timeout=5,
            read_timeout=5,
            write_timeout=5,
        )

    def execute(self, statement: str, database: str | None = None) -> tuple[tuple[object, ...], ...]:
        """Run one statement on a connection of its own and return its rows."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return tuple(cursor.fetchall())
        finally:
            connection.close()

    def create_database(self, name: str) -> str:
        """Create an empty database with the server's default character set; return its URL."""
        self.execute(f"CREATE DATABASE `{name}`")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")


class MariaDB(Database):
    """One server: durable commits, no binary log, 500 connections; every start goes on from the same data."""

    def __init__(
        self,
        name: str = "mariadb",
        *,
        password: str | None = None,
        makes_account: bool = True,
        extra_options: Sequence[str] = (),
        host: Host = LOOPBACK,
    ) -> None:
        self.folder = make_folder(name)
        self.host = host
        self.port = free_port()
        self.user = "cronkeeper"
        self.password = password or secrets.token_hex(16)
        self._makes_account = makes_account
        self.process = Process(
            name,
            [*self._argv(), *extra_options],
            log_path=self.folder / "mariadb.log",
            env=_environment(),
            user=_ACCOUNT,
            host=host,
        )

    def start(self) -> Self:
        """Start it, making its data folder the first time; returns when it answers a query."""
        self.launch()
        self.wait_started()
        return self

    def launch(self) -> None:
        """Start it, making its data folder the first time; returns before it answers."""
        if not self.data_dir.exists():
            self._install()
        self.process.start()

    def stop(self) -> None:
        """Stop it and remove its folder."""
        self.process.stop(timeout_s=30.0)
        remove_folder(self.folder)

    def shut_down(self) -> None:
        """Stop it in order and keep its data, for a later `start`."""
        self.process.stop(timeout_s=60.0)

    @property
    def data_dir(self) -> Path:
        """Where the tables are."""
        return self.folder / "data"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _temporary(self) -> Path:
        """A server that starts removes what it takes for leftovers here: two must not share it."""
        return self.folder / "tmp"

    def _argv(self) -> list[str]:
        argv = [
            find_program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.data_dir}",
            f"--tmpdir={self._temporary}",
            f"--socket={self.folder / 'mariadb.sock'}",
            f"--pid-file={self.folder / 'mariadb.pid'}",
            f"--port={self.port}",
            f"--bind-address={self.host.address}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=96M",
            "--innodb-log-file-size=32M",
            "--max-connections=500",
        ]
        if self._makes_account:
            argv.append(f"--init-file={self.folder / 'init.sql'}")
        return argv

    def _install(self) -> None:
        # The account is made by every start, from a file: nobody has to log in as root for it.
        clients = self.host.address if self.host == LOOPBACK else "%"
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'{clients}' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{self.user}'@'{clients}' WITH GRANT OPTION;\n"
        )
        command = [
            find_program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.data_dir}",
            f"--tmpdir={self._temporary}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=normal",
        ]
        self._temporary.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.folder, _ACCOUNT, _ACCOUNT)
            shutil.chown(self._temporary, _ACCOUNT, _ACCOUNT)
            command.append(f"--user={_ACCOUNT}")
        result = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ServerError(f"mariadb-install-db failed:\n{result.stdout}{result.stderr}")


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    return environment


def find_program(program: str) -> str:
    """Return the full path of one of Debian's programs; raise `ServerError` if it is not installed."""
    found = shutil.which(program, path=_environment()["PATH"])
    if found is None:
        raise ServerError(f"{program} is not installed; run deploy/install-packages test")
    return found
