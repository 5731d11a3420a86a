"""`cronkeeper calendars`: days that several jobs share by a name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from cronkeeper_cli.client import segment
from cronkeeper_cli.documents import parse_job, read_text
from cronkeeper_cli.output import View, cell_text, key, plain_table, show_item, show_items, yaml_text
from cronkeeper_cli.session import DEFAULT_NAMESPACE, Session, output_option, pass_session

F = TypeVar("F", bound=Callable[..., Any])

CALENDARS = View(
    columns=(
        key("NAMESPACE", "namespace"),
        key("NAME", "name"),
        key("DESCRIPTION", "description"),
        key("EXCLUDE", "exclude"),
        key("INCLUDE", "include"),
        key("UPDATED", "updated_at"),
    ),
    name=lambda calendar: str(calendar.get("name", "")),
)
#: What the API adds to a calendar's JSON: of no use to it when it is sent back.
_SERVER_FIELDS = frozenset({"namespace", "name", "generation", "created_at", "updated_at"})
_form = click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)


def _namespace(command: F) -> F:
    return click.option(
        "-n",
        "--namespace",
        default=DEFAULT_NAMESPACE,
        show_default=True,
        envvar="CRONKEEPER_NAMESPACE",
        help="The calendar's namespace.",
    )(command)


@click.group()
def calendars() -> None:
    """Make, change and remove calendars that jobs name; add years of public holidays to jobs."""


@calendars.command(
    "list",
    epilog="""\b
Examples:
  cronkeeper calendars list
  cronkeeper calendars list -n billing -o name""",
)
@click.option("-n", "--namespace", envvar="CRONKEEPER_NAMESPACE", help="Only this namespace; all unless told.")
@output_option
@pass_session
def list_calendars(session: Session, namespace: str | None, form: str) -> None:
    """List calendars."""
    show_items(list(session.client.pages("/calendars", {"namespace": namespace})), CALENDARS, form, nothing="none yet")


@calendars.command(
    "show",
    epilog="""\b
Examples:
  cronkeeper calendars show bank-days
  cronkeeper calendars show bank-days -o yaml >bank-days.yaml""",
)
@click.argument("name")
@_namespace
@output_option
@pass_session
def show_calendar(session: Session, name: str, namespace: str, form: str) -> None:
    """Show a calendar's days."""
    show_item(session.client.get(_path(name), {"namespace": namespace}), CALENDARS, form)


@calendars.command(
    "set",
    epilog="""\b
Examples:
  printf 'exclude: [2026-12-24/2026-12-26]\\ninclude: [2026-12-27]\\n' | cronkeeper calendars set bank-days -f -
  cronkeeper calendars set bank-days -f bank-days.yaml --dry-run""",
)
@click.argument("name")
@click.option("-f", "--file", "source", required=True, metavar="FILE", help="JSON or YAML, `-`: stdin.")
@click.option("--dry-run", is_flag=True, help="Only show which jobs would change, and their next fires.")
@_namespace
@_form
@pass_session
def set_calendar(session: Session, name: str, source: str, dry_run: bool, namespace: str, form: str) -> None:
    """Make or change a calendar. Every job that names it follows it from now on."""
    sent = {
        field: value for field, value in parse_job(read_text(source), source).items() if field not in _SERVER_FIELDS
    }
    query = {"namespace": namespace, "dry_run": "true" if dry_run else None}
    answer = session.client.call("PUT", _path(name), query=query, body=sent).json()
    total, step = answer["changed"], answer
    # The same request goes on where the last one stopped.
    while step["remaining"] and step["changed"] and not dry_run:
        step = session.client.call("PUT", _path(name), query=query, body=sent).json()
        total += step["changed"]
    _show({**answer, "changed": total, "remaining": step["remaining"]}, form)


@calendars.command(
    "delete",
    epilog="""\b
Examples:
  cronkeeper calendars delete bank-days""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_namespace
@pass_session
def delete_calendar(session: Session, names: tuple[str, ...], namespace: str) -> None:
    """Remove calendars that no job names."""
    for name in names:
        session.client.call("DELETE", _path(name), query={"namespace": namespace})
        click.echo(f"calendar {cell_text(name)} removed", err=True)


@calendars.command(
    "refresh",
    epilog="""\b
Examples:
  cronkeeper calendars refresh --dry-run
  cronkeeper calendars refresh""",
)
@click.option("--dry-run", is_flag=True, help="Only show which jobs would change.")
@_form
@pass_session
def refresh(session: Session, dry_run: bool, form: str) -> None:
    """Copy more years of public holidays into jobs that have less than two years of them left.

    No day that a job has changes. Jobs that a change of a calendar left behind are brought up to date, too.
    """
    total: dict[str, Any] = {"dry_run": dry_run, "looked": 0, "changed": 0, "jobs": [], "left": []}
    after: str | None = "0"
    while after is not None:
        query = {"after": after, "dry_run": "true" if dry_run else None}
        answer = session.client.call("POST", "/calendars/refresh", query=query).json()
        for field in ("looked", "changed", "jobs", "left"):
            total[field] += answer[field]
        after = answer["after"]
    _show(total, form)
    if total["left"]:
        told = ", ".join(map(cell_text, total["left"]))
        click.echo(f"note: of a region that is known no longer: the jobs {told}; take it out of them", err=True)


def _path(name: str) -> str:
    return f"/calendars/{segment(name)}"


def _show(answer: Mapping[str, Any], form: str) -> None:
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml_text(dict(answer)))
    else:
        click.echo("\n".join(change_lines(answer)))


def change_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return for people which jobs changed (or would), with their next fires."""
    would = "would be " if answer["dry_run"] else ""
    count = answer["changed"]
    lines = [f"{count} {'job' if count == 1 else 'jobs'} {would}changed"]
    rows = [
        [str(job["id"]), cell_text(job["name"]), cell_text(job["next_before"]), cell_text(job["next_after"])]
        for job in answer["jobs"]
    ]
    if rows:
        lines.append(plain_table(["ID", "NAME", "NEXT FIRES BEFORE", "AFTER"], rows))
    if answer.get("remaining"):
        lines.append(
            f"{answer['remaining']} jobs are left: they cannot be read, or others are changing them; repeat it"
        )
    return lines


COMMANDS: list[click.Command] = [calendars]
