"""`cronkeeper standalone`: everything on this machine, from one command."""

from __future__ import annotations

import contextlib
import gc
import http.client
import importlib
import json
import os
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cronkeeper import __version__
from cronkeeper.runtime.zookeeper_server import ZooKeeperServer, ZooKeeperServerError
from cronkeeper_cli.doctor import cron_is_running
from cronkeeper_cli.failures import EXIT_ERROR, CommandError
from cronkeeper_cli.standalone_home import Home, Secrets, find_home
from cronkeeper_cli.supervisor import Foreign, Part, Supervisor

if TYPE_CHECKING:
    from cronkeeper_worker.config import WorkerConfig

#: What the services import only once they run: imported before the fork, it is there once for all of them.
_SHARED = ("cronkeeper.blob", "cronkeeper.coord", "cronkeeper.store", "cronkeeper_api.app", "cronkeeper_manager.fleet")
_LOOK_S = 0.02
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0
#: A part that ends so often before anything works will not be mended by another start.
_HOPELESS = 4


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asked for."""

    port: int
    ephemeral: bool
    ready_file: Path | None


def start(*, port: int, data_dir: str | None, ephemeral: bool, ready_file: Path | None) -> None:
    """Start everything, and return once it was stopped. Raises CommandError if it does not come up."""
    home = find_home(data_dir, ephemeral=ephemeral, environ=os.environ, root=os.geteuid() == 0)
    # From here on this process is standalone's own: a wrong call leaves its caller's umask alone.
    os.umask(0o077)
    try:
        refuse_taken_port(port)
        home.prepare()
        with home.lock():
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)
            _Standalone(home, home.secrets(), Wishes(port, ephemeral, ready_file)).run()
    finally:
        if ephemeral:
            shutil.rmtree(home.path, ignore_errors=True)


class _Standalone:
    """One start, from the first child to the last."""

    def __init__(self, home: Home, secrets: Secrets, wishes: Wishes) -> None:
        self._home = home
        self._secrets = secrets
        self._wishes = wishes
        self._cron = cron_is_running()
        self._zookeeper = ZooKeeperServer(home.zookeeper_dir, free_port())
        self._supervisor = Supervisor(home.log_dir, _say)
        self._worker: WorkerConfig | None = None

    def run(self) -> None:
        """Start, wait for the end, stop. Raises CommandError if it does not come up."""
        self._supervisor.catch_signals()
        try:
            # The JVM takes longest: it comes up while we import and make the schema.
            self._start_zookeeper()
            self._start_services()
            if self._wait_ready():
                self._announce()
            while not self._supervisor.stop_asked:
                self._supervisor.turn(3600.0)
        finally:
            self._stop()

    def _start_zookeeper(self) -> None:
        try:
            self._zookeeper.start()
        except ZooKeeperServerError as exc:
            raise CommandError(str(exc)) from exc
        child = Foreign(name="zookeeper", pid=lambda: self._zookeeper.pid, start=self._zookeeper.start)
        self._supervisor.watch(child)

    def _start_services(self) -> None:
        preparation = Part(name="prepare", run=self._prepare_database, once=True)
        self._supervisor.start(preparation)
        parts = self._services()
        self._await_preparation(preparation)
        if self._supervisor.stop_asked:
            return
        api, *others = parts
        self._supervisor.start(api)
        try:
            self._zookeeper.wait_listening()
        except ZooKeeperServerError as exc:
            raise CommandError(str(exc)) from exc
        for part in others:
            self._supervisor.start(part)

    def _prepare_database(self) -> int:
        # In a child of its own, so that alembic's memory goes with it and no connection is carried into another child.
        from cronkeeper_cli import database

        database.upgrade(self._home.database_url)
        database.ensure_token(self._home.database_url, self._secrets.admin_token, name="standalone", role="admin")
        return 0

    def _await_preparation(self, preparation: Part) -> None:
        while preparation.running and not self._supervisor.stop_asked:
            self._supervisor.turn(1.0)
        if preparation.status:
            raise CommandError(f"the database could not be prepared\n{self._supervisor.tail(preparation)}", EXIT_ERROR)
        self._supervisor.parts.remove(preparation)

    def _services(self) -> list[Part]:
        """Import everything once, here, where all children inherit it."""
        # Imports make no garbage worth looking for, and the search takes a tenth of their time.
        gc.disable()
        for name in _SHARED:
            importlib.import_module(name)
        import cronkeeper_api.main
        import cronkeeper_manager.daemon
        import cronkeeper_worker.daemon
        from cronkeeper_cli import standalone_parts as configs

        shared = configs.stores(self._home, self._secrets, self._zookeeper.hosts)
        api = configs.api_config(self._home, shared, self._wishes.port)
        manager = configs.manager_config(shared)
        self._worker = worker = configs.worker_config(self._home, self._secrets, shared)
        gc.collect()
        gc.freeze()  # the collector would touch, and so copy, every shared page in every child
        gc.enable()
        return [
            Part(name="api", run=lambda: cronkeeper_api.main.run(api)),
            Part(name="manager", run=lambda: cronkeeper_manager.daemon.run(manager)),
            Part(name="worker", run=lambda: cronkeeper_worker.daemon.run(worker)),
        ]

    def _wait_ready(self) -> bool:
        """Return True once the API takes jobs and the worker has joined; False when we are to stop before that."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._supervisor.stop_asked:
            self._supervisor.turn(_LOOK_S)
            if worker_is_up(self._wishes.port, self._secrets.admin_token):
                return True
            hopeless = [part for part in self._supervisor.parts if part.failures >= _HOPELESS]
            if hopeless or time.monotonic() > deadline:
                logs = "\n".join(self._supervisor.tail(part) for part in hopeless or self._supervisor.parts)
                raise CommandError(f"it did not come up\n{logs}", EXIT_ERROR)
        return False

    def _announce(self) -> None:
        url = f"http://127.0.0.1:{self._wishes.port}"
        took_s = seconds_since_start()
        click.echo("\n".join(banner(self._home, self._secrets, url, took_s, cron=self._cron)))
        if self._wishes.ready_file is not None:
            told = {
                "url": url,
                "pid": os.getpid(),
                "token_file": str(self._home.token_file),
                "ready_s": round(took_s, 3),
            }
            temporary = self._wishes.ready_file.with_name(f".{self._wishes.ready_file.name}.tmp")
            temporary.write_text(json.dumps(told) + "\n")
            temporary.replace(self._wishes.ready_file)

    def _stop(self) -> None:
        _say("stopping")
        self._supervisor.stop_parts(_STOP_WITHIN_S)
        if self._worker is not None:
            self._clear_node(self._worker)
        self._zookeeper.stop(_STOP_WITHIN_S)

    def _clear_node(self, worker: WorkerConfig) -> None:
        """See to it that nothing of ours fires any more, even if the worker had no time to say goodbye."""
        from cronkeeper_cli.standalone_runner import finish_runner
        from cronkeeper_worker.crontab_keeper import choose_target

        target = choose_target(worker)
        if target is not None:
            target.remove_all()
        left = finish_runner(worker.state_dir, cancel=self._wishes.ephemeral, timeout_s=_STOP_WITHIN_S)
        if left:
            _say(f"{len(left)} runs are still in progress and go on to their end: {', '.join(left[:5])}")


def banner(home: Home, secrets: Secrets, url: str, took_s: float, *, cron: bool) -> list[str]:
    """Return what is printed once everything works."""
    program = program_name()
    token = (
        f"{secrets.admin_token}  (shown this once; it is in the file, too)" if secrets.first else "in the file below"
    )
    firing = (
        "the entries of your jobs are in this machine's crontab"
        if cron
        else "none runs here: jobs fire by our own timer"
    )
    return [
        f"cronkeeper {__version__} standalone     data {home.path}     ready in {took_s:.1f} s",
        f"  API    {url}     docs {url}/docs",
        f"  Token  {token}",
        f'  Shell  export CRONKEEPER_URL={url} CRONKEEPER_TOKEN="$(cat {home.token_file})"',
        f"  Try    {program} create --schedule '*/5 * * * *' --command date --name date",
        f"         {program} run date --wait",
        f"  Cron   {firing}",
        "  Stop   Ctrl-C",
    ]


def program_name() -> str:
    """Return what to type for this program: its name where the shell would find it, else its path."""
    path = Path(sys.argv[0])
    return str(path) if shutil.which("cronkeeper") is None and path.name == "cronkeeper" else "cronkeeper"


def refuse_taken_port(port: int) -> None:
    """Raise CommandError if somebody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise CommandError(f"port {port} is for root only; choose another one with --port") from None
        except OSError:
            raise CommandError(f"port {port} of 127.0.0.1 is taken; choose another one with --port") from None


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def worker_is_up(port: int, token: str) -> bool:
    """Ask the API whether the worker has joined. False while the API does not answer, too."""
    workers = _ask(port, "/workers", token)
    return isinstance(workers, list) and any(worker.get("state") == "up" for worker in workers)


def _ask(port: int, path: str, token: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def seconds_since_start() -> float:
    """Return how long ago this process was started: imports before the first line of ours included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _say(text: str) -> None:
    # The terminal may be gone, which may be the very reason why we stop.
    with contextlib.suppress(OSError):
        click.echo(f"cronkeeper: {text}", err=True)
