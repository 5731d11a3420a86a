"""Keys: the files that hold them, and signing all tasks anew after the signing key has changed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click

from cronkeeper.errors import ConfigError
from cronkeeper_cli.failures import EXIT_ERROR, CommandError
from cronkeeper_cli.session import Session, pass_session


@click.group()
def key() -> None:
    """Make key files, and show public keys."""


@key.command(
    "create",
    epilog="""\b
Examples:
  cronkeeper key create /etc/cronkeeper/signing-key-2
  cronkeeper key create --for secrets /etc/cronkeeper/secrets-key""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "use",
    type=click.Choice(["signing", "secrets"]),
    default="signing",
    show_default=True,
    help="What it is for; a signing key's public half is printed.",
)
def create_key(file: Path, use: str) -> None:
    """Write a new key into a new FILE (mode 0600)."""
    from cronkeeper.runtime.key_files import write_key

    seed = secrets.token_bytes(32)
    try:
        write_key(file, seed)
    except ConfigError as exc:
        raise CommandError(str(exc), EXIT_ERROR) from exc
    if use == "signing":
        click.echo(public_of(seed))


@key.command(
    "show",
    epilog="""\b
Examples:
  cronkeeper key show /etc/cronkeeper/signing-key""",
)
@click.argument("file", type=click.Path(path_type=Path))
def show_key(file: Path) -> None:
    """Print the public half of the signing key in FILE, as verify_keys takes it."""
    from cronkeeper.runtime.key_files import read_key

    try:
        click.echo(public_of(read_key(file)))
    except ConfigError as exc:
        raise CommandError(str(exc), EXIT_ERROR) from exc


def public_of(seed: bytes) -> str:
    """Return the public half of a signing key, in hex."""
    from cronkeeper.wire.task import Signer

    return Signer.from_seed(seed).public_bytes.hex()


@click.command(
    epilog="""\b
Examples:
  cronkeeper resign"""
)
@click.option("--after", metavar="JOB", default="0", help="Begin after this job; from the first one unless told.")
@pass_session
def resign(session: Session, after: str) -> None:
    """Sign all tasks anew with the API servers' signing key, after it has changed. Safe to stop and to repeat."""
    signed, current = 0, 0
    refused: list[Any] = []
    place: str | None = after
    while place is not None:
        done = session.client.post("/resign", {"after": place})
        signed, current = signed + done["signed"], current + done["current"]
        refused += done["refused"]
        place = done["next"]
        if place is not None:
            click.echo(
                f"until job {place}: {signed} signed anew, {current} were signed by {done['key']} already", err=True
            )
    click.echo(f"{signed} signed anew, {current} were signed by {done['key']} already, {len(refused)} refused")
    if refused:
        lines = "".join(f"\n  job {one['job']}: {one['why']}" for one in refused)
        raise CommandError(
            f"these are not rightly signed, so they were not signed anew:{lines}\n  hint: look at each, then change it"
            " or delete it; a key that signed them must stand in the API servers' verify_keys",
            EXIT_ERROR,
        )


COMMANDS: list[click.Command] = [key, resign]
