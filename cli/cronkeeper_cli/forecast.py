"""`cronkeeper forecast`: what the fleet is going to do."""

from __future__ import annotations

import json
from typing import Any

import click

from cronkeeper_cli.output import cell_text, plain_table, yaml_text
from cronkeeper_cli.session import Session, pass_session


@click.command(
    epilog="""\b
Examples:
  cronkeeper forecast
  cronkeeper forecast --from 2026-12-24T00:00:00Z --to 2026-12-24T06:00:00Z --by minute
  cronkeeper forecast --worker node-3 -o json"""
)
@click.option("--from", "begin", metavar="INSTANT", help="From this instant (RFC 3339); now unless told.")
@click.option("--to", "end", metavar="INSTANT", help="Until this instant; a day later unless told.")
@click.option("--by", type=click.Choice(["minute", "hour"]), default="hour", show_default=True, help="What to sum up.")
@click.option("--worker", metavar="WORKER", help="Only the tasks that this worker has at present.")
@click.option("-n", "--namespace", envvar="CRONKEEPER_NAMESPACE", help="Only jobs of this namespace; all unless told.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@pass_session
def forecast(
    session: Session,
    begin: str | None,
    end: str | None,
    by: str,
    worker: str | None,
    namespace: str | None,
    form: str,
) -> None:
    """Show expected fires and load, the minutes in which jobs crowd, and where there is room."""
    query = {"from": begin, "to": end, "by": by, "worker": worker, "namespace": namespace}
    found = session.client.get("/forecast", query)
    if form == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml_text(found))
    else:
        click.echo("\n".join(forecast_lines(found)))


def forecast_lines(found: Any) -> list[str]:
    """Return the forecast for people: a table without empty minutes, then what to make of it."""
    rows = [
        [bucket["at"], f"{bucket['fires']:g}", f"{bucket['load']:g}"]
        for bucket in found["buckets"]
        if found["by"] == "hour" or bucket["fires"] or bucket["load"]
    ]
    lines = [plain_table([found["by"].upper(), "FIRES", "LOAD"], rows)]
    for herd in found["herds"]:
        named = ", ".join(
            f"{cell_text(one['schedule'])} {cell_text(one['timezone'])} ({one['tasks']})" for one in herd["schedules"]
        )
        lines.append(f"crowded: {herd['at']} {herd['fires']:g} fires: {named}")
    quiet = " ".join(str(minute) for minute in found["quiet_minutes"])
    lines.append(f"quietest minutes of the hour: {quiet}")
    lines.append(f"{found['tasks']} tasks of {found['jobs']} jobs; {found['unmeasured']} of them add no load as yet")
    return lines


COMMANDS: list[click.Command] = [forecast]
