"""`apply`, `diff` and `export`: jobs kept in files."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import click

from cronkeeper_cli.crontab_export import export_crontab
from cronkeeper_cli.documents import editable, parse_jobs, read_text, without_server_fields
from cronkeeper_cli.failures import EXIT_ERROR, EXIT_USAGE, CommandError
from cronkeeper_cli.offline import local_zone
from cronkeeper_cli.output import cell_text, yaml_text
from cronkeeper_cli.session import DEFAULT_NAMESPACE, Session, parse_pairs, pass_session

_SHOWN = 3
Applied = Mapping[str, Any]


def _sources(command: Any) -> Any:
    """Add the options that say which jobs are wanted."""
    for option in (
        click.option("--prune", metavar="SELECTOR", help="Take jobs off that match by label and are in no file."),
        click.option("-n", "--namespace", envvar="CRONKEEPER_NAMESPACE", help="Of jobs that name none; `default`."),
        click.option(
            "-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="JSON or YAML, `-`: stdin."
        ),
    ):
        command = option(command)
    return command


_form = click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)


@click.command(
    epilog="""\b
Examples:
  cronkeeper apply -f jobs.yaml
  cronkeeper apply -f jobs.yaml --dry-run
  cronkeeper apply -f team/*.yaml --prune managed-by=git     # (in a shell: one -f for each file)
  cronkeeper export -l team=core | ssh other cronkeeper apply -f -"""
)
@_sources
@click.option("--dry-run", is_flag=True, help="Only show what would change, as `diff` does.")
@_form
@pass_session
def apply(
    session: Session, files: tuple[str, ...], namespace: str | None, prune: str | None, dry_run: bool, form: str
) -> None:
    """Bring jobs to what files say, by name: create, change, leave, and with --prune take off.

    All or nothing for each namespace; running it twice changes nothing.
    """
    for answer in _answers(session, files, namespace, prune, dry_run=dry_run):
        _show(answer, form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper diff -f jobs.yaml
  cronkeeper diff -f jobs.yaml --prune managed-by=git --exit-code || echo 'not as in the files'"""
)
@_sources
@click.option("--exit-code", is_flag=True, help="End with status 1 if anything differs.")
@_form
@pass_session
def diff(
    session: Session, files: tuple[str, ...], namespace: str | None, prune: str | None, exit_code: bool, form: str
) -> None:
    """Show what `apply` would do: fields before and after, and the next fires."""
    differs = False
    for answer in _answers(session, files, namespace, prune, dry_run=True):
        _show(answer, form)
        differs = differs or any(answer[kind] for kind in ("created", "changed", "pruned"))
    if exit_code and differs:
        raise click.exceptions.Exit(EXIT_ERROR)


@click.command(
    epilog="""\b
Examples:
  cronkeeper export >jobs.yaml
  cronkeeper export -n billing -l team=core -o json
  cronkeeper export --crontab >cronkeeper.crontab
  cronkeeper export --crontab --system root --timezone Europe/Berlin >/etc/cron.d/without-cronkeeper"""
)
@click.option("-n", "--namespace", help="Only this namespace; all unless told.")
@click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="Only jobs with this label (repeatable).")
@click.option("--finished", is_flag=True, help="Those too that have been taken off the schedule.")
@click.option("--crontab", is_flag=True, help="As a plain crontab, which works without us.")
@click.option("--system", "user", metavar="USER", help="With a user column; USER is who runs jobs that name nobody.")
@click.option(
    "--timezone", metavar="ZONE", help="The zone of the machine that will run it; this machine's unless told."
)
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@pass_session
def export(
    session: Session,
    namespace: str | None,
    labels: tuple[str, ...],
    finished: bool,
    crontab: bool,
    user: str | None,
    timezone: str | None,
    form: str,
) -> None:
    """Print jobs as a file for `apply`, or as a crontab."""
    if (user or timezone) and not crontab:
        raise CommandError("--system and --timezone go with --crontab", EXIT_USAGE)
    parse_pairs(labels, "--label")
    query: dict[str, str | list[str] | None] = {"namespace": namespace, "label": list(labels) or None}
    jobs = [job for job in session.client.pages("/jobs", query) if finished or job["status"] != "finished"]
    if crontab:
        click.echo(export_crontab(jobs, timezone=timezone or local_zone() or "UTC", user=user), nl=False)
        return
    nameless = [job["id"] for job in jobs if not job.get("name")]
    if nameless:
        click.echo(f"without a name, so `apply` will ask for one: jobs {', '.join(nameless)}", err=True)
    kept = [editable(job) for job in jobs]
    if form == "json":
        click.echo(json.dumps(kept, indent=2, ensure_ascii=False))
    elif kept:
        click.echo(yaml_text(kept))


def _answers(
    session: Session, files: tuple[str, ...], namespace: str | None, prune: str | None, *, dry_run: bool
) -> list[Applied]:
    jobs = [without_server_fields(job) for file in files for job in parse_jobs(read_text(file), file)]
    spaces = by_namespace(jobs, namespace or DEFAULT_NAMESPACE)
    if prune and len(spaces) > 1:
        raise CommandError(f"--prune: the files name {len(spaces)} namespaces; apply them one by one", EXIT_USAGE)
    return [
        session.client.call(
            "POST",
            "/apply",
            query={"dry_run": "true" if dry_run else None},
            body={"jobs": some, "namespace": space, **({"prune": prune} if prune else {})},
            # The same request may come twice after a lost answer; it is done once.
            headers={} if dry_run else {"Idempotency-Key": str(uuid.uuid4())},
        ).json()
        for space, some in spaces.items()
    ]


def by_namespace(jobs: Sequence[dict[str, Any]], default: str) -> dict[str, list[dict[str, Any]]]:
    """Return the jobs by namespace, in the order of the files."""
    found: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        found.setdefault(str(job.get("namespace") or default), []).append(job)
    return found


def _show(answer: Applied, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml_text(answer))
    else:
        click.echo("\n".join(change_lines(answer)))


def change_lines(answer: Applied) -> list[str]:
    """Return what was or would be done, for people: one line a job, then fields and next fires."""
    would = "would be " if answer["dry_run"] else ""
    lines = []
    for kind, sign in (("created", "+"), ("changed", "~"), ("pruned", "-")):
        for change in answer[kind]:
            lines.append(f"{sign} {cell_text(change['name'])}: {would}{kind}")
            for field, values in change.get("fields", {}).items():
                lines.append(f"    {field}: {cell_text(values['from'])} -> {cell_text(values['to'])}")
            for title, key in (("next before", "next_before"), ("next after", "next_after")):
                if change.get(key):
                    lines.append(f"    {title}: {', '.join(change[key][:_SHOWN])}")
    lines.append(f"{len(answer['unchanged'])} unchanged")
    return lines


COMMANDS: list[click.Command] = [apply, diff, export]
