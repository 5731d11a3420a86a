"""Admin commands: workers, moving tasks, tokens."""

from __future__ import annotations

from typing import Any

import click

from cronkeeper.domain.instants import rfc3339
from cronkeeper.runtime.clock import SystemClock
from cronkeeper_cli.client import segment
from cronkeeper_cli.failures import EXIT_TIMED_OUT, EXIT_USAGE, CommandError
from cronkeeper_cli.output import View, key, show_item, show_items
from cronkeeper_cli.session import Duration, Patience, Session, namespace_option, output_option, pass_session

_LOOK_AGAIN_S = 1.0

WORKERS = View(
    columns=(
        key("ID", "id"),
        key("STATE", "state"),
        key("HOST", "host"),
        key("TASKS", "tasks"),
        key("CAPACITY", "capacity"),
        key("LABELS", "labels"),
        key("VERSION", "version"),
        key("LAST SEEN", "last_seen"),
        key("CLOCK OFF MS", "clock_offset_ms"),
    ),
    name=lambda worker: str(worker.get("id", "")),
)
MOVES = View(
    columns=(key("TASK", "task"), key("FROM", "from"), key("TO", "to"), key("REASON", "reason")),
    name=lambda move: str(move.get("task", "")),
)
TOKENS = View(
    columns=(
        key("ID", "id"),
        key("NAME", "name"),
        key("ROLE", "role"),
        key("NAMESPACES", "namespaces"),
        key("CREATED", "created_at"),
        key("EXPIRES", "expires_at"),
        key("REVOKED", "revoked_at"),
    ),
    name=lambda token: str(token.get("id", "")),
)
DENIALS = View(
    columns=(key("ID", "id"), key("IDENTITY", "identity"), key("DENIED", "denied_at")),
    name=lambda denial: str(denial.get("id", "")),
)


@click.command(
    epilog="""\b
Examples:
  cronkeeper workers
  cronkeeper workers -o json"""
)
@output_option
@pass_session
def workers(session: Session, form: str) -> None:
    """List the workers: state, load, clock."""
    show_items(list(session.client.pages("/workers", {})), WORKERS, form, nothing="no worker has ever joined")


@click.command(
    epilog="""\b
Examples:
  cronkeeper reassign listing --to node-7
  cronkeeper reassign --from node-3 --to node-7 --dry-run"""
)
@click.argument("job", required=False)
@click.option("--from", "source", metavar="W1", help="Move every job that this worker has.")
@click.option("--to", "target", metavar="W", required=True, help="The worker to move to.")
@click.option("--dry-run", is_flag=True, help="Only show the moves.")
@namespace_option
@output_option
@pass_session
def reassign(
    session: Session, job: str | None, source: str | None, target: str, dry_run: bool, namespace: str, form: str
) -> None:
    """Move a job, or all jobs of a worker, to another worker."""
    if (job is None) == (source is None):
        raise CommandError("name either a JOB or --from W1", EXIT_USAGE)
    ids = [session.job_id(job, namespace)] if job is not None else _jobs_of(session, str(source))
    moves: list[Any] = []
    for job_id in ids:
        answer = session.client.post(f"/jobs/{job_id}/reassign", {"worker": target, "dry_run": dry_run})
        moves += [move for move in answer["moves"] if source is None or move["from"] == source]
    show_items(moves, MOVES, form, nothing="nothing to move")


def _jobs_of(session: Session, worker: str) -> list[str]:
    session.client.get(f"/workers/{segment(worker)}")
    found = session.client.pages("/jobs", {})
    return [str(job["id"]) for job in found if worker in job.get("workers", []) and job.get("status") != "finished"]


@click.command(
    epilog="""\b
Examples:
  cronkeeper cordon node-3"""
)
@click.argument("worker_ids", metavar="WORKER...", nargs=-1, required=True)
@output_option
@pass_session
def cordon(session: Session, worker_ids: tuple[str, ...], form: str) -> None:
    """Give workers no new tasks; they keep what they have."""
    _each(session, worker_ids, "cordon", form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper uncordon node-3"""
)
@click.argument("worker_ids", metavar="WORKER...", nargs=-1, required=True)
@output_option
@pass_session
def uncordon(session: Session, worker_ids: tuple[str, ...], form: str) -> None:
    """Give workers new tasks again; ends a drain, too."""
    _each(session, worker_ids, "uncordon", form)


def _each(session: Session, worker_ids: tuple[str, ...], verb: str, form: str) -> None:
    for worker in worker_ids:
        session.client.call("POST", f"/workers/{segment(worker)}/{verb}")
    show_items([session.client.get(f"/workers/{segment(worker)}") for worker in worker_ids], WORKERS, form)


@click.command(
    epilog="""\b
Examples:
  cronkeeper drain node-3 --dry-run
  cronkeeper drain node-3 --wait --timeout 15m"""
)
@click.argument("worker")
@click.option("--wait", is_flag=True, help="Wait until the worker has no task left.")
@click.option("--timeout", "timeout_s", type=Duration(), default="10m", show_default=True, help="How long to wait.")
@click.option("--dry-run", is_flag=True, help="Only show the moves.")
@output_option
@pass_session
def drain(session: Session, worker: str, wait: bool, timeout_s: float, dry_run: bool, form: str) -> None:
    """Move all tasks away from a worker; it gets no new ones. Runs in progress end where they are."""
    path = f"/workers/{segment(worker)}"
    answer = session.client.post(f"{path}/drain", {"dry_run": dry_run})
    show_items(answer["moves"], MOVES, form, nothing="nothing to move")
    if not wait or dry_run:
        return
    patience = Patience(timeout_s)
    while left := int(session.client.get(path)["tasks"]):
        if patience.over:
            raise CommandError(
                f"{worker} still has {left} tasks\n  hint: they may fit nowhere else; see cronkeeper workers",
                EXIT_TIMED_OUT,
            )
        patience.rest(_LOOK_AGAIN_S)
    click.echo(f"{worker} has no task left", err=True)


@click.group()
def token() -> None:
    """Create, list and revoke bearer tokens."""


@token.command(
    "create",
    epilog="""\b
Examples:
  cronkeeper token create --name ci --role operator --namespace team-a --expires 30d
  cronkeeper token create --name guest --role viewer --expires-at 2027-01-01T00:00:00Z""",
)
@click.option("--name", required=True, help="Whom or what it is for.")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True, help="What it may do.")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    metavar="NAMESPACE",
    multiple=True,
    help="A namespace that it is good for; may be repeated. All of them unless told.",
)
@click.option("--expires", metavar="TIME", help="How long it lives: 12h, 30d, 8w.")
@click.option("--expires-at", metavar="INSTANT", help="When it ends (RFC 3339); never unless told.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json", "yaml", "name"]), default="table")
@pass_session
def create_token(
    session: Session,
    name: str,
    role: str,
    namespaces: tuple[str, ...],
    expires: str | None,
    expires_at: str | None,
    form: str,
) -> None:
    """Create a token. Its secret is shown this once."""
    if expires and expires_at:
        raise CommandError("give --expires or --expires-at, not both", EXIT_USAGE)
    body: dict[str, Any] = {"name": name, "role": role}
    if namespaces:
        body["namespaces"] = list(namespaces)
    if expires:
        expires_at = rfc3339(SystemClock().now_ms() + lifetime_ms(expires))
    if expires_at:
        body["expires_at"] = expires_at
    show_item(session.client.post("/tokens", body), TOKENS, form)


def lifetime_ms(text: str) -> int:
    """Return milliseconds of `12h`, `30d` or `8w`. Raises CommandError (usage)."""
    units = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
    number = text[:-1]
    if text[-1:] not in units or not (
        number.isascii() and number.isdigit() and 0 < int(number[:6]) <= 10_000 and len(number) < 6
    ):
        raise CommandError(f"--expires {text!r} is not a time; write 12h, 30d or 8w", EXIT_USAGE)
    return int(number) * units[text[-1]]


@token.command(
    "list",
    epilog="""\b
Examples:
  cronkeeper token list""",
)
@output_option
@pass_session
def list_tokens(session: Session, form: str) -> None:
    """List the tokens, without their secrets."""
    show_items(list(session.client.get("/tokens")), TOKENS, form, nothing="no tokens")


@token.command(
    "revoke",
    epilog="""\b
Examples:
  cronkeeper token revoke 3""",
)
@click.argument("token_ids", metavar="ID...", nargs=-1, required=True)
@pass_session
def revoke_token(session: Session, token_ids: tuple[str, ...]) -> None:
    """Revoke tokens; within 5 seconds no API server takes them any more."""
    for token_id in token_ids:
        session.client.call("DELETE", f"/tokens/{segment(token_id)}")
        click.echo(f"token {token_id} revoked", err=True)


@token.command(
    "deny",
    epilog="""\b
Examples:
  cronkeeper token deny 248289761001""",
)
@click.argument("subjects", metavar="SUBJECT...", nargs=-1, required=True)
@output_option
@pass_session
def deny_identity(session: Session, subjects: tuple[str, ...], form: str) -> None:
    """Let identities of the OIDC issuer in no more, by the `sub` of their tokens; within 5 seconds, on all servers."""
    denied = [session.client.post("/denials", {"subject": subject}) for subject in subjects]
    show_items(denied, DENIALS, form)


@token.command(
    "denied",
    epilog="""\b
Examples:
  cronkeeper token denied""",
)
@output_option
@pass_session
def list_denials(session: Session, form: str) -> None:
    """List the identities of the OIDC issuer that are denied."""
    show_items(list(session.client.get("/denials")), DENIALS, form, nothing="nobody is denied")


@token.command(
    "allow",
    epilog="""\b
Examples:
  cronkeeper token allow 7""",
)
@click.argument("denial_ids", metavar="ID...", nargs=-1, required=True)
@pass_session
def lift_denial(session: Session, denial_ids: tuple[str, ...]) -> None:
    """Let denied identities in again, by the ID that `cronkeeper token denied` shows."""
    for denial_id in denial_ids:
        session.client.call("DELETE", f"/denials/{segment(denial_id)}")
        click.echo(f"denial {denial_id} lifted", err=True)


COMMANDS: list[click.Command] = [workers, reassign, cordon, uncordon, drain, token]
