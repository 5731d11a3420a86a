"""Commands that start and look after the services: api, manager, worker, db, standalone, doctor."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cronkeeper.errors import ConfigError, CronkeeperError
from cronkeeper_cli.failures import EXIT_ERROR, EXIT_USAGE, CommandError
from cronkeeper_cli.session import parse_pairs

if TYPE_CHECKING:
    from cronkeeper.runtime.config import Config

SYSTEM_CONFIG = Path("/etc/cronkeeper/cronkeeper.toml")
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound="Config")

_SERVICE_EPILOG = """\b
Examples:
  cronkeeper {name}
  cronkeeper {name} --config /etc/cronkeeper/cronkeeper.toml --check-config
  CRONKEEPER_DATABASE_URL=mysql+pymysql://… cronkeeper {name} --set log_format=json

\b
A setting comes from the file (--config, CRONKEEPER_CONFIG or /etc/cronkeeper/cronkeeper.toml), then from the
environment (CRONKEEPER_ and the setting in capitals), then from --set. --list-settings shows them all."""


def config_options(command: F) -> F:
    """Add --config and --set, as `config_file` and `sets`."""
    for option in (
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One setting (repeatable)."),
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            envvar="CRONKEEPER_CONFIG",
            type=click.Path(path_type=Path),
            help="A TOML file of settings; one serves all services.",
        ),
    ):
        command = option(command)
    return command


def _service_options(command: F) -> F:
    for option in (
        click.option("--list-settings", is_flag=True, help="Show every setting, then exit."),
        click.option("--check-config", is_flag=True, help="Only check the configuration: exit status 0 or 2."),
    ):
        command = option(command)
    return config_options(command)


def load_config(cls: type[C], config_file: Path | None, sets: tuple[str, ...], environ: Mapping[str, str]) -> C:
    """Return the configuration of a service. Raises CommandError (usage) that names every bad key."""
    from cronkeeper.runtime.config import load

    _know_all_settings()
    flags = parse_pairs(sets, "--set")
    unknown = sorted(flags.keys() - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise CommandError(f"--set {unknown[0]}: no such setting; see --list-settings", EXIT_USAGE)
    if config_file is None and SYSTEM_CONFIG.exists():
        config_file = SYSTEM_CONFIG
    try:
        return load(cls, file=config_file, environ=environ, flags=flags)
    except ConfigError as exc:
        raise CommandError(str(exc), EXIT_USAGE) from exc


def _know_all_settings() -> None:
    """One file serves all services: a key of another one is known once that one's configuration was imported."""
    for component in ("api", "manager", "worker"):
        importlib.import_module(f"cronkeeper_{component}.config")


def settings_text(cls: type[Config]) -> str:
    """Return every setting with its default and its meaning."""
    lines = []
    for field in sorted(dataclasses.fields(cls), key=lambda field: field.name):
        default = field.default if field.default is not dataclasses.MISSING else {}
        shown = (
            ""
            if default in ("", None, (), {})
            else f" [{','.join(default) if isinstance(default, tuple) else default}]"
        )
        lines.append(f"{field.name}{shown}\n    {field.metadata.get('help', '')}")
    return "\n".join(lines)


def _start(
    cls: type[C],
    run: Callable[[C], int],
    config_file: Path | None,
    sets: tuple[str, ...],
    *,
    check_config: bool,
    list_settings: bool,
) -> None:
    if list_settings:
        click.echo(settings_text(cls))
        return
    config = load_config(cls, config_file, sets, os.environ)
    if check_config:
        click.echo("the configuration is sound", err=True)
        return
    try:
        sys.exit(run(config))
    except ConfigError as exc:
        raise CommandError(str(exc), EXIT_USAGE) from exc


@click.command(
    epilog="""\b
Examples:
  cronkeeper standalone
  cronkeeper standalone --port 31000 --data-dir ./data
  cronkeeper standalone --ephemeral

\b
The same services as in a fleet, with embedded parts: SQLite, a folder for files, a ZooKeeper server of its own. It
listens on 127.0.0.1 only. Ctrl-C stops everything and takes the entries out of the crontab; the data stays, and
the next start puts them back."""
)
@click.option("--port", type=click.IntRange(1, 65535), default=30000, show_default=True, help="The API's port.")
@click.option(
    "--data-dir", metavar="DIR", help="Where everything is kept [~/.local/share/cronkeeper; root: /var/lib/cronkeeper]."
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: data in a temporary folder, removed at the end.")
@click.option(
    "--ready-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Once ready, write url, pid and token_file there, as JSON.",
)
def standalone(port: int, data_dir: str | None, ephemeral: bool, ready_file: Path | None) -> None:
    """Start everything on this machine: one command, one port."""
    from cronkeeper_cli.standalone import start

    start(port=port, data_dir=data_dir, ephemeral=ephemeral, ready_file=ready_file)


@click.command(epilog=_SERVICE_EPILOG.format(name="api"))
@_service_options
def api(config_file: Path | None, sets: tuple[str, ...], check_config: bool, list_settings: bool) -> None:
    """Start an API server (any number of them, behind HAProxy)."""
    from cronkeeper_api.config import ApiConfig
    from cronkeeper_api.main import run

    _start(ApiConfig, run, config_file, sets, check_config=check_config, list_settings=list_settings)


@click.command(epilog=_SERVICE_EPILOG.format(name="manager"))
@_service_options
def manager(config_file: Path | None, sets: tuple[str, ...], check_config: bool, list_settings: bool) -> None:
    """Start a manager (any number of them: one leads)."""
    from cronkeeper_manager.config import ManagerConfig
    from cronkeeper_manager.daemon import run

    _start(ManagerConfig, run, config_file, sets, check_config=check_config, list_settings=list_settings)


@click.command(epilog=_SERVICE_EPILOG.format(name="worker"))
@_service_options
def worker(config_file: Path | None, sets: tuple[str, ...], check_config: bool, list_settings: bool) -> None:
    """Start the worker of this node."""
    from cronkeeper_worker.__main__ import execute
    from cronkeeper_worker.config import WorkerConfig

    _start(WorkerConfig, execute, config_file, sets, check_config=check_config, list_settings=list_settings)


@click.group()
def db() -> None:
    """Look after the database: schema, first token."""


def _database_url(config_file: Path | None, sets: tuple[str, ...]) -> str:
    from cronkeeper.runtime.config import DatabaseConfig

    return load_config(DatabaseConfig, config_file, sets, os.environ).database


@db.command(
    epilog="""\b
Examples:
  cronkeeper db upgrade
  cronkeeper db upgrade --set database_url=mysql+pymysql://cronkeeper:secret@10.0.0.5/cronkeeper"""
)
@config_options
def upgrade(config_file: Path | None, sets: tuple[str, ...]) -> None:
    """Bring the schema to this version's. Safe to repeat; keeps all data."""
    from cronkeeper_cli import database

    url = _database_url(config_file, sets)
    with said_plainly():
        click.echo(f"schema {database.upgrade(url)}")


@db.command(
    epilog="""\b
Examples:
  cronkeeper db current"""
)
@config_options
def current(config_file: Path | None, sets: tuple[str, ...]) -> None:
    """Show the schema's version, and this program's; exit status 1 if they differ."""
    from cronkeeper_cli import database

    url = _database_url(config_file, sets)
    with said_plainly():
        found, wanted = database.versions(url)
    click.echo(f"schema {found or '(none)'}, this program's {wanted}")
    if found != wanted:
        raise CommandError("the schema is not this program's\n  hint: cronkeeper db upgrade", EXIT_ERROR)


@db.command(
    "token",
    epilog="""\b
Examples:
  export CRONKEEPER_TOKEN=$(cronkeeper db token --role admin --name first)
  cronkeeper db token --role operator --name team-a --namespace team-a""",
)
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True, help="What it may do.")
@click.option("--name", required=True, help="Whom or what it is for.")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    metavar="NAMESPACE",
    multiple=True,
    help="A namespace that it is good for; may be repeated. All of them unless told.",
)
@config_options
def first_token(
    role: str, name: str, namespaces: tuple[str, ...], config_file: Path | None, sets: tuple[str, ...]
) -> None:
    """Create a token straight in the database, and print it: how the first one is made. The audit trail tells of it."""
    from cronkeeper_cli import database

    url = _database_url(config_file, sets)
    with said_plainly():
        try:
            click.echo(database.create_token(url, name=name, role=role, namespaces=namespaces))
        except ValueError as exc:
            raise CommandError(f"--namespace {exc}", EXIT_USAGE) from exc


class said_plainly:
    """Turns our own errors into a CommandError, so that people get a sentence and no traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, ConfigError):
            raise CommandError(str(exc), EXIT_USAGE) from exc
        if isinstance(exc, CronkeeperError):
            raise CommandError(str(exc), EXIT_ERROR) from exc


@click.command(
    epilog="""\b
Examples:
  cronkeeper doctor
  cronkeeper doctor --config /etc/cronkeeper/cronkeeper.toml"""
)
@config_options
def doctor(config_file: Path | None, sets: tuple[str, ...]) -> None:
    """Check configuration, database, ZooKeeper, object store, cron and clock; exit status 1 on a fault."""
    from cronkeeper_cli.doctor import examine

    findings = examine(config_file, sets, os.environ)
    for finding in findings:
        click.echo(finding.line())
    if any(finding.fault for finding in findings):
        raise click.exceptions.Exit(EXIT_ERROR)


COMMANDS: list[click.Command] = [standalone, api, manager, worker, db, doctor]
