"""From jobs to a plain crontab that works without us. PURE."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from cronkeeper_cli import vixie
from cronkeeper_cli.output import cell_text


def export_crontab(jobs: Iterable[Mapping[str, Any]], *, timezone: str, user: str | None) -> str:
    """Return the text of a crontab for a machine in that zone; `user` adds the user column of /etc/cron.d.

    What a crontab cannot say stands in it as a comment, with the reason: nothing is left out in silence.
    """
    lines = [
        "# Written by cronkeeper export. cron runs these lines by itself: no fences, no history, one machine.",
        f"# Fire times are those of a machine in the zone {timezone}.",
        "SHELL=/bin/sh",
    ]
    for job in jobs:
        title = f"job {job['id']}" + (f", {cell_text(job['name'])}" if job.get("name") else "")
        fault = _fault(job, timezone)
        lines += ["", f"# {title}"]
        if fault:
            lines.append(f"# not exported: {fault}")
        else:
            account = [str(job.get("run_as") or user)] if user is not None else []
            lines.append(" ".join([_expression(str(job["schedule"])), *account, _command(job)]))
    return "\n".join(lines) + "\n"


def _fault(job: Mapping[str, Any], timezone: str) -> str:
    """Return why the job cannot be a line, or an empty text."""
    if job.get("status") in ("paused", "finished"):
        return f"it is {job['status']}"
    if job.get("type") != "command":
        return f"its {job.get('type')} is in the object store: {cell_text(job.get('executable'))}"
    schedule = str(job.get("schedule", ""))
    if schedule == "@reboot":
        return _command_fault(job)
    try:
        vixie.read(schedule)
    except vixie.VixieError:
        return f"cron cannot say {cell_text(schedule)}"
    if job.get("timezone", "UTC") != timezone:
        return f"it is due by the clock of {job.get('timezone')}; see --timezone"
    if (job.get("shards") or 1) != 1:
        return f"it has {job['shards']} shards"
    return _command_fault(job)


def _command_fault(job: Mapping[str, Any]) -> str:
    if any(isinstance(value, Mapping) for value in (job.get("env") or {}).values()):
        return "it uses secrets, which a crontab would show"
    command = _command(job)
    if "\n" in command:
        return "its command has several lines"
    if len(command.encode()) > vixie.MAX_COMMAND:
        return f"its command is longer than the {vixie.MAX_COMMAND} characters that cron reads"
    return ""


def _expression(schedule: str) -> str:
    return schedule if schedule.startswith("@") else " ".join(schedule.split())


def _command(job: Mapping[str, Any]) -> str:
    env = "".join(f"{name}={shlex.quote(str(value))} " for name, value in (job.get("env") or {}).items())
    command = str(job["executable"])
    if job.get("args"):
        command = f"{command} {' '.join(shlex.quote(str(arg)) for arg in job['args'])}"
    if env:
        command = f"{env}/bin/sh -c {shlex.quote(command)}"
    return vixie.as_command(command)
