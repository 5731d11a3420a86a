"""Commands about what became of fires: why, missed, events."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from typing import Any

import click

from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.output import View, key, show_items, yaml_text
from cronkeeper_cli.runs import RUNS
from cronkeeper_cli.session import Session, namespace_option, output_option, pass_session

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)

EVENTS = View(
    columns=(key("AT", "at"), key("KIND", "kind"), key("SUBJECT", "subject"), key("DETAIL", "detail")),
    name=lambda event: str(event.get("kind", "")),
)
MISSED = View(
    columns=(key("FIRE TIME", "fire_time"), key("SHARD", "shard"), key("REASON", "reason"), key("DETAIL", "detail")),
    name=lambda item: str(item.get("fire_time", "")),
)


@click.command(
    epilog="""\b
Examples:
  cronkeeper why listing last
  cronkeeper why listing 03:00                     # of today, in the job's zone
  cronkeeper why 17 2026-03-29T01:30:00Z -o json"""
)
@click.argument("job")
@click.argument("when", metavar="TIME", default="last")
@namespace_option
@output_option
@pass_session
def why(session: Session, job: str, when: str, namespace: str, form: str) -> None:
    """Tell why a fire ran, was skipped, was missed, or is not known yet.

    TIME is an RFC 3339 instant, HH:MM of today in the job's zone, or `last` for the newest fire that was due.
    """
    path = session.job_path(job, namespace)
    if when == "last":
        found = session.client.get(f"{path}/why")
        if not found["due"] and found.get("previous_fire"):
            found = session.client.get(f"{path}/why", {"at": found["previous_fire"]})
    else:
        at = when if "T" in when.upper() else _today(when, str(session.client.get(path)["timezone"]))
        found = session.client.get(f"{path}/why", {"at": at})
    _show(found, form)


def _show(found: Any, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(yaml_text(found))
    elif form == "name":
        click.echo(found["decision"])
    else:
        reason = f" ({found['reason']})" if found["reason"] else ""
        click.echo(f"{found['fire_time']}  {found['decision']}{reason}")
        click.echo(found["words"])
        if found["runs"]:
            show_items(found["runs"], RUNS, form)


def _today(when: str, zone: str) -> str:
    """Return the instant of a time of today. Raises CommandError (usage)."""
    match = _CLOCK.fullmatch(when)
    if match is None:
        raise CommandError(
            f"{when!r} is no time: write an instant such as 2027-01-01T03:00:00Z, HH:MM, or last", EXIT_USAGE
        )
    from cronkeeper.domain.instants import from_ms
    from cronkeeper.runtime.clock import SystemClock

    return instant_of(match[1], match[2], match[3] or "0", zone, from_ms(SystemClock().now_ms()))


def instant_of(hour: str, minute: str, second: str, zone: str, now: datetime) -> str:
    """Return the RFC 3339 instant of a local time on the day that it is in the zone."""
    from zoneinfo import ZoneInfo

    local = ZoneInfo(zone)
    today: date = now.astimezone(local).date()
    instant = datetime.combine(today, time(int(hour), int(minute), int(second)), tzinfo=local)
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@click.command(
    epilog="""\b
Examples:
  cronkeeper missed listing
  cronkeeper missed 17 --limit 5 -o json"""
)
@click.argument("job")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@namespace_option
@output_option
@pass_session
def missed(session: Session, job: str, limit: int, namespace: str, form: str) -> None:
    """List a job's missed fires, newest first."""
    found = session.client.get(f"{session.job_path(job, namespace)}/missed", {"limit": str(limit)})
    show_items(found, MISSED, form, nothing="no missed fires")


@click.command(
    epilog="""\b
Examples:
  cronkeeper events
  cronkeeper events --kind fire.missed --limit 5
  cronkeeper events --subject node-3 -o json"""
)
@click.option("--kind", help="Only this kind, such as fire.missed or worker.lost.")
@click.option("--subject", help="Only about this: a task (17/0), a job's id, a worker, or fleet.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@output_option
@pass_session
def events(session: Session, kind: str | None, subject: str | None, limit: int, form: str) -> None:
    """List events, newest first."""
    found = session.client.get("/events", {"kind": kind, "subject": subject, "limit": str(limit)})
    show_items(found, EVENTS, form, nothing="no events")


COMMANDS: list[click.Command] = [why, missed, events]
