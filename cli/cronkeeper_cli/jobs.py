"""Commands about jobs: list, show, delete, pause, resume, next, and run."""

from __future__ import annotations

from typing import Any

import click

from cronkeeper_cli.output import Column, View, key, show_item, show_items, yaml_text
from cronkeeper_cli.session import Session, namespace_option, output_option, parse_pairs, pass_session


def _schedule(job: Any) -> str:
    zone = job.get("timezone")
    return f"{job.get('schedule')}{'' if zone in (None, 'UTC') else f' ({zone})'}"


def _last_run(job: Any) -> str:
    last = job.get("last_run") or {}
    return f"{last['state']} {last.get('fire_time', '')}" if last else "-"


JOBS = View(
    columns=(
        key("ID", "id"),
        key("NAME", "name"),
        key("STATUS", "status"),
        Column("SCHEDULE", _schedule),
        key("NEXT FIRE", "next_fire"),
        Column("LAST RUN", _last_run),
        key("WORKERS", "workers"),
        Column("EXECUTABLE", lambda job: _short(str(job.get("executable", "")))),
    ),
    name=lambda job: str(job.get("id", "")),
)


def _short(text: str, width: int = 48) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@click.command(
    "list",
    epilog="""\b
Examples:
  cronkeeper list
  cronkeeper list --status error -o name | xargs -n1 cronkeeper runs
  cronkeeper list -n billing -l team=core -q invoice""",
)
@click.option("-n", "--namespace", help="Only this namespace; all unless told.")
@click.option("-q", "--search", help="Only jobs with this text in name, executable or description.")
@click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="Only jobs with this label (repeatable).")
@click.option("--status", type=click.Choice(["scheduled", "paused", "finished", "error"]), help="Only this status.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many; all unless told.")
@output_option
@pass_session
def list_jobs(
    session: Session,
    namespace: str | None,
    search: str | None,
    labels: tuple[str, ...],
    status: str | None,
    limit: int | None,
    form: str,
) -> None:
    """List jobs, oldest first."""
    parse_pairs(labels, "--label")
    query: dict[str, str | list[str] | None] = {
        "namespace": namespace,
        "q": search,
        "label": list(labels) or None,
        "status": status,
    }
    found = list(session.client.pages("/jobs", query, limit=limit))
    show_items(found, JOBS, form, nothing="no jobs; create one: cronkeeper create --help")


@click.command(
    epilog="""\b
Examples:
  cronkeeper show 17
  cronkeeper show listing -o yaml"""
)
@click.argument("job")
@namespace_option
@output_option
@pass_session
def show(session: Session, job: str, namespace: str, form: str) -> None:
    """Show one job, all its fields."""
    show_item(session.client.get(session.job_path(job, namespace)), JOBS, form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper delete listing            # off the schedule; its history stays
  cronkeeper delete listing --purge    # gone for good, with its runs and their output"""
)
@click.argument("job_names", metavar="JOB...", nargs=-1, required=True)
@click.option("--purge", is_flag=True, help="Remove the job, its runs and their output for good.")
@namespace_option
@pass_session
def delete(session: Session, job_names: tuple[str, ...], purge: bool, namespace: str) -> None:
    """Take jobs off the schedule."""
    for job in job_names:
        job_id = session.job_id(job, namespace)
        session.client.call("DELETE", f"/jobs/{job_id}", query={"purge": "true" if purge else None})
        click.echo(f"job {job_id} {'removed' if purge else 'finished'}", err=True)


def _switch(session: Session, jobs: tuple[str, ...], namespace: str, verb: str, form: str) -> None:
    changed = [session.client.post(f"{session.job_path(job, namespace)}/{verb}", None) for job in jobs]
    show_items(changed, JOBS, form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper pause listing
  cronkeeper list -l team=core -o name | xargs cronkeeper pause"""
)
@click.argument("job_names", metavar="JOB...", nargs=-1, required=True)
@namespace_option
@output_option
@pass_session
def pause(session: Session, job_names: tuple[str, ...], namespace: str, form: str) -> None:
    """Stop firing; runs in progress go on."""
    _switch(session, job_names, namespace, "pause", form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper resume listing"""
)
@click.argument("job_names", metavar="JOB...", nargs=-1, required=True)
@namespace_option
@output_option
@pass_session
def resume(session: Session, job_names: tuple[str, ...], namespace: str, form: str) -> None:
    """Start firing again, from now on."""
    _switch(session, job_names, namespace, "resume", form)


@click.command(
    "next",
    epilog="""\b
Examples:
  cronkeeper next listing
  cronkeeper next listing --count 5 --after 2026-03-29T00:00:00Z""",
)
@click.argument("job")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many fire times.")
@click.option("--after", metavar="INSTANT", help="After this instant (RFC 3339); now unless told.")
@namespace_option
@output_option
@pass_session
def next_fires(session: Session, job: str, count: int, after: str | None, namespace: str, form: str) -> None:
    """Show a job's next fire times."""
    path = f"{session.job_path(job, namespace)}/next"
    show_forecast(session.client.get(path, {"count": str(count), "after": after}), form)


def show_forecast(forecast: Any, form: str) -> None:
    """Print the answer of /jobs/{id}/next or /preview."""
    if form == "json":
        show_item(forecast, JOBS, form)
    elif form == "yaml":
        click.echo(yaml_text(forecast))
    else:
        if form == "table":
            click.echo(forecast["words"])
        for instant in forecast["next"]:
            click.echo(instant)
        if form == "table":
            for note in forecast.get("notes", []):
                click.echo(f"note: {note}")


COMMANDS: list[click.Command] = [list_jobs, show, delete, pause, resume, next_fires]
