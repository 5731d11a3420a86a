"""`cronkeeper secrets`: values for jobs, from a file, standard input or a prompt, never from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cronkeeper_cli.client import segment
from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.output import View, key, show_item, show_items
from cronkeeper_cli.session import Session, namespace_option, output_option, pass_session

SECRETS = View(
    columns=(
        key("NAME", "name"),
        key("NAMESPACE", "namespace"),
        key("VERSION", "version"),
        key("UPDATED", "updated_at"),
        key("BY", "updated_by"),
    ),
    name=lambda secret: str(secret.get("name", "")),
)


@click.group()
def secrets() -> None:
    """Set, list and delete secrets of jobs. Nobody can read a value again."""


@secrets.command(
    "list",
    epilog="""\b
Examples:
  cronkeeper secrets list
  cronkeeper secrets list -n team-a -o json""",
)
@click.option("-n", "--namespace", envvar="CRONKEEPER_NAMESPACE", help="Only of this namespace; all unless told.")
@output_option
@pass_session
def list_secrets(session: Session, namespace: str | None, form: str) -> None:
    """List the secrets: names and versions."""
    query = f"?namespace={segment(namespace)}" if namespace else ""
    show_items(list(session.client.get(f"/secrets{query}")), SECRETS, form, nothing="no secrets")


@secrets.command(
    "set",
    epilog="""\b
Examples:
  cronkeeper secrets set pg
  cronkeeper secrets set deploy-key --from-file ./id_ed25519
  pass show db/backup | cronkeeper secrets set pg --from-file - -n team-a

\b
A text of one line loses its line end; longer ones stay as they are. Jobs name the secret in `env`:
{"PGPASSWORD": {"secret": "pg"}}, or with "as": "file" to get the path of a file with it.""",
)
@click.argument("name")
@click.option(
    "--from-file", "source", metavar="FILE", help="Where the value is, `-` for standard input; else a prompt."
)
@namespace_option
@output_option
@pass_session
def set_secret(session: Session, name: str, source: str | None, namespace: str, form: str) -> None:
    """Set a secret. Jobs that use it get the new value from now on."""
    value = value_of(_read(source)) if source is not None else _ask(name)
    path = f"/secrets/{segment(name)}?namespace={segment(namespace)}"
    saved: dict[str, Any] = session.client.call("PUT", path, body={"value": value}).json()
    changed = saved.pop("changed_jobs")
    show_item(saved, SECRETS, form)
    if changed:
        click.echo(f"{len(changed)} {'job has' if len(changed) == 1 else 'jobs have'} the new value", err=True)


@secrets.command(
    "delete",
    epilog="""\b
Examples:
  cronkeeper secrets delete pg
  cronkeeper secrets delete pg --force""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also if jobs use it: they do not run until it is set again.")
@namespace_option
@pass_session
def delete_secrets(session: Session, names: tuple[str, ...], force: bool, namespace: str) -> None:
    """Delete secrets that no job uses."""
    for name in names:
        query = f"namespace={segment(namespace)}&force={str(force).lower()}"
        session.client.call("DELETE", f"/secrets/{segment(name)}?{query}")
        click.echo(f"secret {name} deleted", err=True)


@secrets.command(
    "rotate",
    epilog="""\b
Examples:
  cronkeeper secrets rotate""",
)
@output_option
@pass_session
def rotate_secrets(session: Session, form: str) -> None:
    """Seal everything with the newest key, once all servers and workers have it. Safe to repeat."""
    show_items(session.client.call("POST", "/secrets/rotate").json(), SECRETS, form, nothing="all are sealed with it")


def value_of(raw: bytes) -> str:
    """Return the value that a file holds. Raises CommandError (usage) for what is no text."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise CommandError(
            "the value is not UTF-8 text\n  hint: encode it, with base64 -w0 for example, and decode it in the job",
            EXIT_USAGE,
        ) from exc
    line, end, rest = text.partition("\n")
    return line.removesuffix("\r") if end and not rest else text


def _read(source: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read {source}: {exc.strerror}", EXIT_USAGE) from exc


def _ask(name: str) -> str:
    if not sys.stdin.isatty():
        raise CommandError("nobody is there to ask\n  hint: --from-file -, for standard input", EXIT_USAGE)
    answer: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
    return answer


COMMANDS: list[click.Command] = [secrets]
