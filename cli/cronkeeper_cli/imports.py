"""`import crontab` and `import k8s`: what other schedulers hold, line by line, and then as jobs."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cronkeeper_cli import crontab_text, kubernetes
from cronkeeper_cli.crontab_text import Fate, Line, Settings, file_notes, mail_notes, read_crontab
from cronkeeper_cli.documents import parse_jobs, read_bytes, read_text
from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.offline import job_faults, local_zone
from cronkeeper_cli.output import cell_text, yaml_text
from cronkeeper_cli.session import DEFAULT_NAMESPACE, Session, pass_session

_CRONTAB = "/usr/bin/crontab"
_SYSTEM = ("/etc/crontab", "/etc/cron.d/")
#: Debian's cron reads no other files of /etc/cron.d.
_CRON_D_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

apply_option = click.option("--apply", "do_apply", is_flag=True, help="Create the jobs; without it nothing is done.")
form_option = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["report", "yaml", "json"]),
    default="report",
    show_default=True,
    help="The report, or the jobs for `cronkeeper apply -f`.",
)


@click.group("import")
def import_group() -> None:
    """Take over jobs from cron or Kubernetes. A dry run unless told otherwise."""


@import_group.command(
    "crontab",
    epilog="""\b
Examples:
  cronkeeper import crontab -u alice
  cronkeeper import crontab /etc/cron.d/backup --timezone Europe/Berlin
  ssh db1 crontab -l | cronkeeper import crontab - --source db1
  cronkeeper import crontab /etc/crontab -o yaml >jobs.yaml
  cronkeeper import crontab /etc/crontab --apply""",
)
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option("-u", "--user", metavar="USER", help="Read this user's crontab with crontab(1), and run its jobs so.")
@click.option("--system/--no-system", default=None, help="Entries name their user; so in /etc/crontab and /etc/cron.d.")
@click.option("--timezone", metavar="ZONE", help="The zone of the machine that runs it; this machine's unless told.")
@click.option("--source", metavar="NAME", help="What to call it in the label `imported-from`; the file unless told.")
@click.option("--heed-cron-tz", is_flag=True, help="CRON_TZ counts, as under cronie; Debian's cron ignores it.")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Where the jobs are to live.")
@apply_option
@form_option
@pass_session
def import_crontab(
    session: Session,
    files: tuple[str, ...],
    user: str | None,
    system: bool | None,
    timezone: str | None,
    source: str | None,
    heed_cron_tz: bool,
    namespace: str,
    do_apply: bool,
    form: str,
) -> None:
    """Read crontabs, and say line by line what becomes of each entry.

    The next 1,000 fires of every line are compared with those that cron would make of it.
    """
    from cronkeeper.domain.instants import from_ms
    from cronkeeper.runtime.clock import SystemClock

    if bool(files) == bool(user):
        raise CommandError("name a FILE (`-` for standard input), or a user with -u", EXIT_USAGE)
    zone = _zone(timezone)
    now = from_ms(SystemClock().now_ms())
    reports: list[tuple[str, list[Line], list[str]]] = []
    for file in files or (f"crontab of {user}",):
        data = (sys.stdin.buffer.read() if file == "-" else read_bytes(file)) if files else _users_crontab(str(user))
        label = source or (str(user) if user else Path(file).name if file != "-" else "stdin")
        in_system = file.startswith(_SYSTEM) if system is None else system
        settings = Settings(label, in_system, user, zone, heed_cron_tz)
        lines, notes = read_file(data, settings, now=now)
        if file.startswith("/etc/cron.d/") and not _CRON_D_NAME.fullmatch(Path(file).name):
            notes.append("Debian's cron ignores a file of such a name: letters, digits, `-` and `_` only")
        reports.append((file, lines, notes))
    jobs = _distinct([line.job for _, lines, _ in reports for line in lines if line.job is not None])
    if form == "report":
        for file, lines, notes in reports:
            click.echo("\n".join(report(file, lines, notes)))
    _finish(session, jobs, namespace, do_apply, form, paused=())


@import_group.command(
    "k8s",
    epilog="""\b
Examples:
  kubectl get cronjobs -o yaml | cronkeeper import k8s -f -
  cronkeeper import k8s -f cronjobs.json -o yaml >jobs.yaml
  cronkeeper import k8s -f cronjobs.yaml --apply""",
)
@click.option("-f", "--file", "sources", multiple=True, required=True, metavar="FILE", help="JSON or YAML, `-`: stdin.")
@click.option("-n", "--namespace", help="Where the jobs are to live; the CronJobs' own unless told.")
@apply_option
@form_option
@pass_session
def import_k8s(session: Session, sources: tuple[str, ...], namespace: str | None, do_apply: bool, form: str) -> None:
    """Read Kubernetes CronJobs (an item or a List), and say what becomes of each."""
    found = []
    for source in sources:
        try:
            items = list(kubernetes.cron_jobs(parse_jobs(read_text(source), source)))
        except ValueError as exc:
            raise CommandError(f"{source}: {exc}", EXIT_USAGE) from exc
        found += [kubernetes.convert(item, source="kubernetes") for item in items]
    if form == "report":
        for one in found:
            click.echo(f"{cell_text(one.name)}: {'imported' if one.job else 'refused'}")
            for note in (*one.notes, *(["it is suspended: the job is paused once it is there"] * one.suspended)):
                click.echo(f"    {cell_text(note)}")
    jobs = [{**one.job, **({"namespace": namespace} if namespace else {})} for one in found if one.job is not None]
    paused = [(job["namespace"], job["name"]) for one, job in _with_jobs(found, jobs) if one.suspended]
    for name in sorted({job["namespace"] for job in jobs}):
        mine = [job for job in jobs if job["namespace"] == name]
        _finish(session, mine, name, do_apply, form, paused=[job for space, job in paused if space == name])


def read_file(data: bytes, settings: Settings, *, now: datetime.datetime) -> tuple[list[Line], list[str]]:
    """Return what becomes of each line of a crontab, and what is to be said of it as a whole.

    What the API would refuse is refused here, each by itself. Bytes that are not UTF-8 matter in entries only.
    """
    text = data.decode(errors="surrogateescape")
    lines = read_crontab(text, settings, now=now)
    return [_sound(line) for line in lines], [*file_notes(text, lines), *mail_notes(text)]


def _sound(line: Line) -> Line:
    # Which accounts are allowed is known to the API only: that hint would name the one that is refused.
    faults = [fault.partition(" (hint: allowed are ")[0] for fault in job_faults(line.job)] if line.job else []
    return replace(line, fate=Fate.REFUSED, job=None, notes=tuple(faults)) if faults else line


def report(file: str, lines: Sequence[Line], notes: Sequence[str]) -> list[str]:
    """Return the report on one crontab, for people."""
    counts = {fate: sum(line.fate is fate for line in lines) for fate in Fate}
    said = [f"{file}: " + ", ".join(f"{count} {fate.value}" for fate, count in counts.items() if count)]
    if not lines:
        said = [f"{file}: no entry"]
    for line in lines:
        said.append(f"{line.number:5} {line.fate.value:9} {_shown(line.text)}")
        if line.job is not None:
            zone = f" ({line.job['timezone']})" if "timezone" in line.job else ""
            said.append(f"                as {line.job['name']}: {line.job['schedule']}{zone}")
        said += [f"                note: {_shown(note)}" for note in line.notes]
    return [*said, *(f"note: {_shown(note)}" for note in notes)]


def _shown(text: str) -> str:
    return cell_text(text.encode(errors="surrogateescape").decode(errors="backslashreplace"))


def _with_jobs(
    found: Sequence[kubernetes.Converted], jobs: Sequence[Mapping[str, Any]]
) -> list[tuple[kubernetes.Converted, Mapping[str, Any]]]:
    return list(zip([one for one in found if one.job is not None], jobs, strict=True))


def _distinct(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give jobs of several files that share a name names of their own."""
    taken: set[str] = set()
    return [{**job, "name": crontab_text.unique(job["name"], taken)} for job in jobs]


def _finish(
    session: Session, jobs: list[dict[str, Any]], namespace: str, do_apply: bool, form: str, *, paused: Sequence[str]
) -> None:
    """Check the jobs by the API's rules; print them or create them."""
    faults = [f"{job['name']}: {fault}" for job in jobs for fault in job_faults({**job, "namespace": namespace})]
    if faults:
        raise CommandError("\n".join(["nothing was imported; the API would refuse:", *faults]), EXIT_USAGE)
    if form == "json":
        click.echo(json.dumps(jobs, indent=2, ensure_ascii=False))
    elif form == "yaml" and jobs:
        click.echo(yaml_text(jobs))
    if not do_apply:
        if form == "report":
            click.echo("dry run: nothing was done; --apply creates the jobs")
        return
    body = {"jobs": [{key: value for key, value in job.items() if key != "namespace"} for job in jobs]}
    answer = session.client.post(
        "/apply", {**body, "namespace": namespace}, headers={"Idempotency-Key": str(uuid.uuid4())}
    )
    for name in paused:
        session.client.post(f"{session.job_path(name, namespace)}/pause", None)
    said = ", ".join(f"{len(answer[kind])} {kind}" for kind in ("created", "changed", "unchanged"))
    click.echo(f"{said}; take the lines out of the crontab now, or both will fire", err=True)


def _zone(timezone: str | None) -> str:
    from cronkeeper.domain.schedule import load_zone

    if timezone is None:
        return local_zone() or "UTC"
    try:
        return load_zone(timezone).key
    except ValueError as exc:
        raise CommandError(f"--timezone: {exc}", EXIT_USAGE) from exc


def _users_crontab(user: str) -> bytes:
    try:
        done = subprocess.run([_CRONTAB, "-l", "-u", user], capture_output=True, check=False, timeout=30)
    except OSError as exc:
        raise CommandError(f"crontab(1) cannot be run: {exc.strerror}") from exc
    if done.returncode != 0:
        raise CommandError(f"crontab -l -u {user}: {done.stderr.decode(errors='replace').strip() or 'failed'}")
    return done.stdout


COMMANDS: list[click.Command] = [import_group]
