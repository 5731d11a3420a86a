"""What needs no API: explain a schedule, check jobs in files."""

from __future__ import annotations

import zoneinfo
from typing import TYPE_CHECKING, Any

import click

from cronkeeper_cli.documents import parse_jobs, read_text, without_server_fields
from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.output import cell_text, plain_table, yaml_text
from cronkeeper_cli.session import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from cronkeeper.domain.schedule import Schedule

_TIME = "%a %Y-%m-%d %H:%M:%S"


@click.command(
    epilog="""\b
Examples:
  cronkeeper explain '5 * * * *'
  cronkeeper explain '30 2 * * *' --timezone America/New_York --after 2027-03-13T00:00:00Z
  cronkeeper explain 'H H(0-7) * * *' --name nightly-backup
  cronkeeper explain '@every 90s' -o json"""
)
@click.argument("expression")
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="The job's IANA zone.")
@click.option("--name", default="", help="The job's name, which H is resolved for.")
@click.option(
    "-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="The namespace of the job's name."
)
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many fire times.")
@click.option("--after", metavar="INSTANT", help="After this instant (RFC 3339); now unless told.")
@click.option("--gap", type=click.Choice(["run_after", "skip"]), help="Rule for local times the clock jumps over.")
@click.option("--fold", type=click.Choice(["first", "second", "both"]), help="Rule for local times that come twice.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
def explain(
    expression: str,
    timezone: str,
    name: str,
    namespace: str,
    count: int,
    after: str | None,
    gap: str | None,
    fold: str | None,
    form: str,
) -> None:
    """Say in words when a schedule fires, and show the next fire times. Needs no server."""
    import json

    from cronkeeper.domain.instants import rfc3339
    from cronkeeper.domain.schedule import notes

    schedule = _parse(expression, timezone, gap, fold, seed=f"{namespace}/{name}" if name else "")
    after_ms = _after_ms(after)
    fires = _fires(schedule, after_ms, count)
    told = notes(schedule, after_ms)
    if schedule.spread and not name:
        told.append("These are the fire times of no job in particular: say whose with --name.")
    said: dict[str, Any] = {
        "next": [rfc3339(fire_ms) for fire_ms in fires],
        "words": schedule.words(),
        "notes": told,
    }
    if form == "json":
        click.echo(json.dumps(said, indent=2))
    elif form == "yaml":
        click.echo(yaml_text(said))
    else:
        click.echo(said["words"])
        if fires:
            click.echo(fire_table(fires, timezone, local_zone()))
        for note in said["notes"]:
            click.echo(f"note: {note}")


def fire_table(fires: list[int], timezone: str, local: str | None) -> str:
    """Return the fire times in the job's zone, in UTC and in the reader's zone; no column twice."""
    from cronkeeper.domain.instants import from_ms

    zones = dict.fromkeys(zone for zone in (timezone, "UTC", local) if zone)
    titles = [f"{zone} (here)" if zone == local and zone != timezone else zone for zone in zones]
    rows = [
        [from_ms(fire_ms).astimezone(zoneinfo.ZoneInfo(zone)).strftime(_TIME) for zone in zones] for fire_ms in fires
    ]
    return plain_table(titles, rows)


def _parse(expression: str, timezone: str, gap: str | None, fold: str | None, *, seed: str = "") -> Schedule:
    from cronkeeper.domain.cronfields import ScheduleError
    from cronkeeper.domain.schedule import Dst, Fold, Gap, parse_schedule

    try:
        dst = Dst(Gap(gap) if gap else None, Fold(fold) if fold else None)
        return parse_schedule(expression, timezone, dst, seed=seed)
    except ScheduleError as exc:
        lines = [exc.message, f"  {expression}", f"  {' ' * exc.position}^"]
        raise CommandError("\n".join([*lines, *([f"  hint: {exc.hint}"] if exc.hint else [])]), EXIT_USAGE) from exc
    except ValueError as exc:
        raise CommandError(str(exc), EXIT_USAGE) from exc


def _after_ms(after: str | None) -> int:
    from cronkeeper.domain.instants import parse_rfc3339
    from cronkeeper.runtime.clock import SystemClock

    if after is None:
        return SystemClock().now_ms()
    try:
        return parse_rfc3339(after)
    except ValueError as exc:
        raise CommandError(f"--after: {exc}", EXIT_USAGE) from exc


def _fires(schedule: Schedule, after_ms: int, count: int) -> list[int]:
    from cronkeeper.domain.instants import MAX_MS

    return schedule.fire_times(after_ms, MAX_MS, limit=count)[:count]


def local_zone() -> str | None:
    """Return the IANA name of the machine's zone, None where it has no name that we find."""
    import os
    from pathlib import Path

    named = os.environ.get("TZ", "").removeprefix(":")
    link = str(Path("/etc/localtime").resolve())
    for candidate in (named, link.partition("zoneinfo/")[2]):
        try:
            if candidate:
                return zoneinfo.ZoneInfo(candidate.removeprefix("Etc/")).key
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            continue
    return None


@click.command(
    epilog="""\b
Examples:
  cronkeeper validate -f job.yaml
  cronkeeper validate -f jobs.json -f more.yaml
  cronkeeper show listing -o json | cronkeeper validate -f -"""
)
@click.option("-f", "--file", "sources", multiple=True, required=True, metavar="FILE", help="JSON or YAML, `-`: stdin.")
def validate(sources: tuple[str, ...]) -> None:
    """Check jobs in files by the API's own rules, without an API. Exit status 2 if one is wrong.

    Which accounts `run_as` may name is known to the API only; so is whether a stored file exists.
    """
    lines: list[str] = []
    count = 0
    for source in sources:
        for index, job in enumerate(parse_jobs(read_text(source), source)):
            count += 1
            faults = job_faults(without_server_fields(job))
            name = f" ({cell_text(job['name'])})" if isinstance(job.get("name"), str) else ""
            lines += [f"{source}: job {index + 1}{name}: {line}" for line in faults]
    if lines:
        raise CommandError("\n".join(lines), EXIT_USAGE)
    click.echo(f"{count} {'job is' if count == 1 else 'jobs are'} sound")


def job_faults(job: dict[str, Any]) -> list[str]:
    """Return what the API would find wrong with a job, one line for each fault."""
    from cronkeeper.errors import ValidationFailedError
    from cronkeeper.runtime.clock import SystemClock
    from cronkeeper_api.body import Body
    from cronkeeper_api.reading import read_draft
    from cronkeeper_manager.service.rules import check_spec

    account = job.get("run_as")
    allowed = (account,) if isinstance(account, str) else ()
    try:
        draft = read_draft(Body(job), run_as_allowed=allowed)
        faults = [*draft.faults, *check_spec(draft.spec, now_ms=SystemClock().now_ms(), run_as_allowed=allowed)]
    except ValidationFailedError as exc:
        faults = list(exc.errors)
    return [f"{fault.field}: {fault.message}{f' (hint: {fault.hint})' if fault.hint else ''}" for fault in faults]


COMMANDS: list[click.Command] = [validate, explain]
