"""`create` and `edit`: from flags, files and the editor to a job."""

from __future__ import annotations

import base64
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cronkeeper_cli.documents import editable, parse_job, read_bytes, read_text
from cronkeeper_cli.failures import EXIT_CONFLICT, EXIT_USAGE, CommandError, ProblemError
from cronkeeper_cli.jobs import JOBS, show_forecast
from cronkeeper_cli.output import cell_text, show_item, yaml_text
from cronkeeper_cli.session import (
    Duration,
    Session,
    namespace_option,
    output_option,
    parse_pairs,
    pass_session,
)

_FILE_TYPES = ("script", "binary")


def job_from_flags(base: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job to send: the file's fields, then the flags that were given. Pure but for the files it names.

    Raises CommandError (usage) when the flags contradict each other or something necessary is missing.
    """
    job = dict(base)
    _take_executable(job, flags)
    for field in _PLAIN:
        if flags.get(field) is not None:
            job[field] = flags[field]
    if flags.get("namespace"):
        job["namespace"] = flags["namespace"]
    if flags.get("args"):
        job["args"] = list(flags["args"])
    for field, option in (("env", "--env"), ("labels", "--label")):
        if flags.get(field):
            job[field] = {**job.get(field, {}), **parse_pairs(tuple(flags[field]), option)}
    if flags.get("secrets"):
        job["env"] = {**job.get("env", {}), **_secret_env(tuple(flags["secrets"]))}
    for field in ("timeout_s", "grace_s"):
        if flags.get(field) is not None:
            job[field] = int(flags[field])
    retry = {"limit": flags.get("retries"), "elsewhere": flags.get("retry_elsewhere") or None}
    if given := {field: value for field, value in retry.items() if value is not None}:
        job["retry"] = {**job.get("retry", {}), **given}
    missing = [mend for field, mend in _NECESSARY.items() if field not in job]
    if missing:
        raise CommandError(f"missing: {'; '.join(missing)} (or a file with -f)", EXIT_USAGE)
    return job


def _secret_env(pairs: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found = {}
    for variable, text in parse_pairs(pairs, "--secret").items():
        name, _, kind = text.partition(":")
        found[variable] = {"secret": name, "as": kind} if kind else {"secret": name}
    return found


_NECESSARY = {"executable": "--command, --script or --binary", "schedule": "--schedule"}
_PLAIN = (
    "schedule",
    "name",
    "timezone",
    "description",
    "owner",
    "run_as",
    "selector",
    "shards",
    "concurrency",
    "misfire",
    "delivery",
    "on_worker_loss",
    "pause_after_failures",
    "starts_at",
    "ends_at",
)


def _take_executable(job: dict[str, Any], flags: Mapping[str, Any]) -> None:
    given = [kind for kind in ("command", *_FILE_TYPES) if flags.get(kind) is not None]
    if len(given) > 1:
        raise CommandError(f"--{given[0]} and --{given[1]} exclude each other", EXIT_USAGE)
    if not given:
        return
    kind = given[0]
    job["type"] = kind
    if kind == "command":
        job["executable"] = flags["command"]
        job.pop("filename", None)
    else:
        path = flags[kind]
        job["executable"] = base64.b64encode(read_bytes(path)).decode()
        job["filename"] = Path(path).name


@click.command(
    epilog="""\b
Examples:
  cronkeeper create --schedule '5 * * * *' --command 'ls -la'
  cronkeeper create --schedule '0 9 * * 1-5' --timezone Europe/Berlin --script report.sh --name report
  cronkeeper create --schedule '@every 30s' --binary ./probe --env LEVEL=2 --label team=core
  cronkeeper create --schedule @daily --command ./dump --secret PGPASSWORD=pg --secret PGSSLKEY=pg-key:file
  cronkeeper create -f job.yaml
  cronkeeper create -f job.yaml --schedule @hourly --dry-run
  echo '{"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}' | cronkeeper create -f -"""
)
@click.option(
    "-f", "--file", "source", metavar="FILE", help="A job as JSON or YAML, `-` for standard input; flags win."
)
@click.option(
    "--schedule",
    help="Five fields, six with seconds first, @hourly, '@every 90s', '@at 2027-01-01T00:00:00Z' or @reboot.",
)
@click.option("--command", metavar="TEXT", help="A command line, run by /bin/sh on the node.")
@click.option("--script", metavar="FILE", help="A script to store and run.")
@click.option("--binary", metavar="FILE", help="A program to store and run.")
@click.option("--arg", "args", multiple=True, metavar="TEXT", help="An argument (repeatable, in order).")
@click.option("--name", help="A name, unique in its namespace.")
@click.option("-n", "--namespace", envvar="CRONKEEPER_NAMESPACE", help="The namespace; `default` unless told.")
@click.option("--timezone", metavar="ZONE", help="An IANA zone such as Europe/Berlin; UTC unless told.")
@click.option("--env", multiple=True, metavar="K=V", help="A variable of the run's environment (repeatable).")
@click.option("--secret", "secrets", multiple=True, metavar="K=NAME", help="A variable with a secret; or NAME:file.")
@click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="A label of the job (repeatable).")
@click.option("--run-as", metavar="USER", help="The account on the node.")
@click.option("--timeout", "timeout_s", type=Duration(), help="End a run after so long: 90s, 10m, 1h.")
@click.option("--grace", "grace_s", type=Duration(), help="How late a fire may still start.")
@click.option("--retries", type=click.IntRange(0, 100), help="Attempts after a failed one.")
@click.option("--retry-elsewhere", is_flag=True, help="Retries run on another worker, if one fits.")
@click.option("--pause-after", "pause_after_failures", type=click.IntRange(1, 1000), help="Failed fires in a row.")
@click.option("--concurrency", type=click.Choice(["forbid", "allow", "replace", "queue"]), help="If one still runs.")
@click.option("--misfire", type=click.Choice(["latest", "all", "skip"]), help="What becomes of late fires.")
@click.option("--delivery", type=click.Choice(["at_least_once", "at_most_once"]), help="When no fence can be reached.")
@click.option("--on-worker-loss", type=click.Choice(["rerun", "hold"]), help="When its worker dies during a run.")
@click.option("--selector", help="Only workers with these labels: 'zone=eu, disk in (ssd,nvme)'.")
@click.option("--shards", type=click.IntRange(1), help="Into how many tasks it is split.")
@click.option("--starts-at", metavar="INSTANT", help="No fire before (RFC 3339).")
@click.option("--ends-at", metavar="INSTANT", help="No fire from then on (RFC 3339).")
@click.option("--description", help="A sentence for people.")
@click.option("--owner", help="Whom to ask.")
@click.option("--dry-run", is_flag=True, help="Only check it, and show when it would fire.")
@output_option
@pass_session
def create(session: Session, /, source: str | None, dry_run: bool, form: str, **flags: Any) -> None:
    """Create a job, from flags or from a file."""
    base = parse_job(read_text(source), source) if source else {}
    job = job_from_flags(base, flags)
    if dry_run:
        show_forecast(session.client.post("/preview", job), form)
        return
    # With a key of its own the request can be repeated after a lost answer, and the job is still created once.
    created = session.client.post("/jobs", job, headers={"Idempotency-Key": str(uuid.uuid4())})
    show_item(created, JOBS, form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper edit listing
  EDITOR=nano cronkeeper edit 17"""
)
@click.argument("job")
@namespace_option
@output_option
@pass_session
def edit(session: Session, job: str, namespace: str, form: str) -> None:
    """Edit a job as YAML in $EDITOR.

    A mistake re-opens the editor with the reasons on top. If somebody else changed the job meanwhile, nothing is
    saved and your text is kept in a file.
    """
    path = session.job_path(job, namespace)
    answer = session.client.call("GET", path)
    current = answer.json()
    original = yaml_text(editable(current)) + "\n"
    text, faults = original, ""
    while True:
        text = _ask_editor(text, faults, original)
        try:
            changed = parse_job(text, "your text")
            saved = session.client.call("PUT", path, body=changed, headers={"If-Match": answer.headers["etag"]})
        except CommandError as exc:
            if exc.exit_code != EXIT_USAGE:
                raise _keep(text, exc) from exc
            faults = exc.message
            continue
        show_item(saved.json(), JOBS, form)
        return


def _ask_editor(text: str, faults: str, original: str) -> str:
    shown = with_comments(text, faults) if faults else text
    edited = click.edit(shown, extension=".yaml", require_save=True)
    body = None if edited is None else without_comments(edited)
    if body is None or not body.strip() or (faults and body == without_comments(shown)) or body == original:
        if faults:
            raise CommandError(f"not saved:\n{faults}", EXIT_USAGE)
        click.echo("nothing changed", err=True)
        raise click.exceptions.Exit(0)
    return body


def with_comments(text: str, faults: str) -> str:
    """Return the text with the faults on top, as comments."""
    lines = [f"#! {cell_text(line)}".rstrip() for line in ["Not saved:", *faults.splitlines()]]
    return "\n".join([*lines, "#! Mend it and save, or quit without a change to give up.", text])


def without_comments(text: str) -> str:
    """Return the text without the comments of `with_comments`; the user's own stay."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#!"))


def _keep(text: str, exc: CommandError) -> CommandError:
    with tempfile.NamedTemporaryFile("w", prefix="cronkeeper-edit-", suffix=".yaml", delete=False) as file:
        file.write(text)
    stale = exc.exit_code == EXIT_CONFLICT and isinstance(exc, ProblemError) and exc.status == 412
    why = "somebody else changed the job meanwhile; " if stale else ""
    return CommandError(f"{exc.message}\n  {why}your text is kept in {file.name}", exc.exit_code)


COMMANDS: list[click.Command] = [create, edit]
