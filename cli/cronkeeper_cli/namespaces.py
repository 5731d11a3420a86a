"""`cronkeeper namespaces`: what is allowed in each, and what it holds."""

from __future__ import annotations

from typing import Any

import click

from cronkeeper_cli.client import segment
from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.output import View, key, show_item, show_items
from cronkeeper_cli.session import Session, output_option, pass_session

#: What takes a bound away again.
NONE = "none"


NAMESPACES = View(
    columns=(
        key("NAME", "name"),
        key("RUN AS", "run_as"),
        key("JOBS", "usage", "jobs"),
        key("MAX", "quotas", "max_jobs"),
        key("FIRES/MIN", "usage", "fires_per_minute"),
        key("MAX", "quotas", "max_fires_per_minute"),
        key("MIN INTERVAL S", "quotas", "min_interval_s"),
        key("BYTES", "usage", "artifact_bytes"),
        key("MAX", "quotas", "max_artifact_bytes"),
        key("MAX CREATES/MIN", "quotas", "max_creates_per_minute"),
    ),
    name=lambda namespace: str(namespace.get("name", "")),
)


class Bound(click.ParamType[Any]):
    """A number, or `none`."""

    name = "number"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or value == NONE:
            return value
        try:
            return self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {NONE}", param, ctx)


@click.group()
def namespaces() -> None:
    """Show what namespaces hold, and decide what is allowed in them."""


@namespaces.command(
    "list",
    epilog="""\b
Examples:
  cronkeeper namespaces list""",
)
@output_option
@pass_session
def list_namespaces(session: Session, form: str) -> None:
    """List the namespaces that hold a job or that somebody has decided about."""
    show_items(list(session.client.get("/namespaces")), NAMESPACES, form, nothing="no namespaces")


@namespaces.command(
    "show",
    epilog="""\b
Examples:
  cronkeeper namespaces show team-a""",
)
@click.argument("name")
@output_option
@pass_session
def show(session: Session, name: str, form: str) -> None:
    """Show one namespace: accounts, quotas, usage."""
    show_item(session.client.get(f"/namespaces/{segment(name)}"), NAMESPACES, form)


@namespaces.command(
    "set",
    epilog="""\b
Examples:
  cronkeeper namespaces set team-a --max-jobs 500 --max-fires 100 --min-interval 30
  cronkeeper namespaces set team-a --run-as nobody --run-as reports
  cronkeeper namespaces set team-a --max-jobs none --run-as none""",
)
@click.argument("name")
@click.option("--run-as", "accounts", multiple=True, metavar="ACCOUNT", help="An account of its jobs; may be repeated.")
@click.option("--max-jobs", type=Bound(int), help="Jobs that are not finished.")
@click.option("--max-fires", "max_fires_per_minute", type=Bound(float), help="Expected fires a minute of all of them.")
@click.option("--min-interval", "min_interval_s", type=Bound(int), help="Shortest time between two fires, seconds.")
@click.option("--max-artifact-bytes", type=Bound(int), help="Bytes of the files of all of them.")
@click.option("--max-creates", "max_creates_per_minute", type=Bound(int), help="Jobs that a token may create a minute.")
@output_option
@pass_session
def set_namespace(
    session: Session,
    /,
    name: str,
    accounts: tuple[str, ...],
    form: str,
    **bounds: Any,
) -> None:
    """Change what is allowed in a namespace; what is not named stays. `none` takes a bound away."""
    given = {quota: bound for quota, bound in bounds.items() if bound is not None}
    if not given and not accounts:
        raise CommandError("name what to change, such as --max-jobs 500", EXIT_USAGE)
    if NONE in accounts and len(accounts) > 1:
        raise CommandError(f"--run-as {NONE} stands alone", EXIT_USAGE)
    path = f"/namespaces/{segment(name)}"
    now = session.client.get(path)
    run_as = now["run_as"]
    if accounts:
        run_as = None if accounts == (NONE,) else list(accounts)
    quotas = now["quotas"] | {quota: None if bound == NONE else bound for quota, bound in given.items()}
    answer = session.client.call("PUT", path, body={"run_as": run_as, "quotas": quotas})
    show_item(answer.json(), NAMESPACES, form)


COMMANDS: list[click.Command] = [namespaces]
