"""Commands about runs: run now, history, output, cancel."""

from __future__ import annotations

import sys
import uuid
from datetime import datetime
from typing import Any

import click

from cronkeeper_cli.failures import EXIT_ERROR, EXIT_TIMED_OUT, EXIT_USAGE, CommandError
from cronkeeper_cli.output import Column, View, key, show_items
from cronkeeper_cli.session import Duration, Patience, Session, namespace_option, output_option, pass_session

_OVER = frozenset({"succeeded", "failed", "timed_out", "cancelled", "skipped", "lost"})
_LOOK_AGAIN_S = 0.25


def duration_text(run: Any) -> str:
    """Return how long a run took, `-` while it runs or if it never started."""
    if not run.get("started_at") or not run.get("ended_at"):
        return "-"
    took = datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])
    return f"{took.total_seconds():.1f}s"


def exit_text(run: Any) -> str:
    """Return the exit code, or the signal that ended the run."""
    if run.get("signal"):
        return f"signal {run['signal']}"
    return "-" if run.get("exit_code") is None else str(run["exit_code"])


RUNS = View(
    columns=(
        key("ID", "id"),
        key("FIRE TIME", "fire_time"),
        key("STATE", "state"),
        key("REASON", "reason"),
        key("TRIGGER", "trigger"),
        key("WORKER", "worker"),
        key("STARTED", "started_at"),
        Column("TOOK", duration_text),
        Column("EXIT", exit_text),
    ),
    name=lambda run: str(run.get("id", "")),
)


@click.command(
    epilog="""\b
Examples:
  cronkeeper run listing
  cronkeeper run listing --wait
  cronkeeper run 17 --wait --timeout 10m -o json"""
)
@click.argument("job")
@click.option("--wait", is_flag=True, help="Wait for the end, print the output; exit status 1 if it did not succeed.")
@click.option("--timeout", "timeout_s", type=Duration(), default="10m", show_default=True, help="How long to wait.")
@click.option("--shard", type=click.IntRange(0), help="Only this shard; all unless told.")
@namespace_option
@output_option
@pass_session
def run(session: Session, job: str, wait: bool, timeout_s: float, shard: int | None, namespace: str, form: str) -> None:
    """Run a job now, besides its schedule."""
    path = f"{session.job_path(job, namespace)}/run"
    body = None if shard is None else {"shard": shard}
    asked = session.client.post(path, body, headers={"Idempotency-Key": str(uuid.uuid4())})
    begun: list[Any] = asked if isinstance(asked, list) else [asked]
    if not wait:
        show_items(begun, RUNS, form)
        return
    ended = [_wait_for(session, str(item["id"]), Patience(timeout_s)) for item in begun]
    for item in ended if form == "table" else ():
        _copy_output(session, item["id"], {})
    if form != "table":
        show_items(ended, RUNS, form)
    failed = [item for item in ended if item["state"] != "succeeded"]
    if failed:
        raise CommandError("\n".join(_how_it_ended(item) for item in failed), EXIT_ERROR)


@click.command(
    epilog="""\b
Examples:
  cronkeeper backfill listing --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --dry-run
  cronkeeper backfill 17 --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --rerun-skipped
  cronkeeper backfill listing --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --max-parallel 4"""
)
@click.argument("job")
@click.option("--from", "begin", metavar="INSTANT", required=True, help="The first instant of the range (RFC 3339).")
@click.option("--to", "end", metavar="INSTANT", required=True, help="The first instant after the range.")
@click.option("--max-parallel", type=click.IntRange(1), default=1, show_default=True, help="So many at once.")
@click.option("--rerun-skipped", is_flag=True, help="Run what was skipped, too.")
@click.option("--dry-run", is_flag=True, help="Only show what would be created.")
@namespace_option
@output_option
@pass_session
def backfill(
    session: Session,
    job: str,
    begin: str,
    end: str,
    max_parallel: int,
    rerun_skipped: bool,
    dry_run: bool,
    namespace: str,
    form: str,
) -> None:
    """Make up for the past: create the runs of a range that have no row. Asking again creates nothing twice."""
    body = {
        "from": begin,
        "to": end,
        "max_parallel": max_parallel,
        "rerun_skipped": rerun_skipped,
        "dry_run": dry_run,
    }
    found = session.client.post(f"{session.job_path(job, namespace)}/backfill", body)
    created = found["created"]
    show_items(created, RUNS, form, nothing="no run is missing")
    if form == "table":
        says = "would be created" if dry_run else "created"
        click.echo(
            f"{len(created)} {says}, {len(found['existing'])} existing, {len(found['unsettled'])} left to the schedule"
        )


def _wait_for(session: Session, run_id: str, patience: Patience) -> Any:
    while True:
        item = session.client.get(f"/runs/{run_id}")
        if item["state"] in _OVER:
            return item
        if patience.over:
            raise CommandError(
                f"run {run_id} is still {item['state']}\n  hint: cronkeeper logs -f {run_id}", EXIT_TIMED_OUT
            )
        patience.rest(_LOOK_AGAIN_S)


def _how_it_ended(item: Any) -> str:
    why = f" ({item['reason']})" if item.get("reason") else ""
    code = exit_text(item)
    with_code = "" if code == "-" else f", {code}" if code.startswith("signal") else f", exit code {code}"
    return f"run {item['id']} {item['state']}{why}{with_code}"


def _copy_output(session: Session, run_id: str, query: dict[str, str | list[str] | None]) -> None:
    out = sys.stdout.buffer
    for chunk in session.client.stream(f"/runs/{run_id}/log", query):
        out.write(chunk)
        out.flush()


@click.command(
    epilog="""\b
Examples:
  cronkeeper runs listing
  cronkeeper runs 17 --limit 3 -o json"""
)
@click.argument("job")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@namespace_option
@output_option
@pass_session
def runs(session: Session, job: str, limit: int, namespace: str, form: str) -> None:
    """List a job's runs, newest first."""
    path = f"{session.job_path(job, namespace)}/runs"
    show_items(list(session.client.pages(path, {}, limit=limit)), RUNS, form, nothing="no runs yet")


@click.command(
    epilog="""\b
Examples:
  cronkeeper logs listing              # of its newest run
  cronkeeper logs 17-0-1772366700000-1 -f
  cronkeeper logs listing --tail 2000"""
)
@click.argument("what", metavar="RUN|JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--tail", type=click.IntRange(1), metavar="BYTES", help="Only the last bytes.")
@namespace_option
@pass_session
def logs(session: Session, what: str, follow: bool, tail: int | None, namespace: str) -> None:
    """Print the output of a run, or of a job's newest run."""
    run_id = what if _is_run_id(what) else _newest_run(session, what, namespace)
    query: dict[str, str | list[str] | None] = {
        "follow": "1" if follow else None,
        "tail": None if tail is None else str(tail),
    }
    _copy_output(session, run_id, query)


def _is_run_id(text: str) -> bool:
    from cronkeeper.domain.ids import RunKey

    try:
        RunKey.parse(text)
    except ValueError:
        return False
    return True


def _newest_run(session: Session, job: str, namespace: str) -> str:
    path = f"{session.job_path(job, namespace)}/runs"
    for item in session.client.pages(path, {}, limit=1):
        return str(item["id"])
    raise CommandError(f"job {job} has no run yet", EXIT_ERROR)


@click.command(
    epilog="""\b
Examples:
  cronkeeper cancel 17-0-1772366700000-1"""
)
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@output_option
@pass_session
def cancel(session: Session, run_ids: tuple[str, ...], form: str) -> None:
    """End runs that are in progress: TERM first, KILL after 10 s."""
    bad = [run_id for run_id in run_ids if not _is_run_id(run_id)]
    if bad:
        raise CommandError(f"{bad[0]!r} is not the id of a run; see cronkeeper runs JOB", EXIT_USAGE)
    ended = [session.client.post(f"/runs/{run_id}/cancel", None) for run_id in run_ids]
    show_items(ended, RUNS, form)


COMMANDS: list[click.Command] = [runs, logs, cancel, backfill]
