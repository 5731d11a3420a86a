"""The audit trail on the command line: who did what, and whether the trail was altered."""

from __future__ import annotations

import re
from typing import Any

import click

from cronkeeper_cli.failures import EXIT_USAGE, CommandError
from cronkeeper_cli.output import Column, View, cell_text, key, show_items
from cronkeeper_cli.session import Session, output_option, pass_session

_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", re.ASCII)
_SHOWN = 60


def _changed(entry: Any) -> str:
    """Return what an entry says was changed, in a few words."""
    old, new = entry.get("old") or {}, entry.get("new") or {}
    if not isinstance(old, dict) or not isinstance(new, dict):
        return cell_text(new or old)[:_SHOWN]
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name) and name != "generation"]
    text = ", ".join(f"{name}={new[name]}" if name in new else f"-{name}" for name in fields)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


ENTRIES = View(
    columns=(
        key("SEQ", "seq"),
        key("AT", "at"),
        key("WHO", "actor", "name"),
        key("FROM", "source"),
        key("DID", "action"),
        key("TO", "object"),
        key("NAMESPACE", "namespace"),
        Column("CHANGED", _changed),
    ),
    name=lambda entry: str(entry.get("seq") or ""),
)


@click.command(
    epilog="""\b
Examples:
  cronkeeper audit
  cronkeeper audit --object job/17 --from 2027-01-01T00:00:00Z
  cronkeeper audit --actor ci --action job.changed -o json
  cronkeeper audit --verify
  cronkeeper audit --verify --anchor 1204:9d3f…

\b
--verify exits with 1 and names the first entry that is not as it was written. The managers' logs hold an anchor for
each minute in which something was done (event trail.anchored): a third place, to compare with."""
)
@click.option("--actor", help="Only what tokens of this name did.")
@click.option("--action", help="Only this, such as job.created.")
@click.option("--object", "of", help="Only what was done to this: job/17, worker/node-3; or to a kind: token.")
@click.option("--from", "from_", metavar="INSTANT", help="Only since this instant.")
@click.option("--to", metavar="INSTANT", help="Only until this instant.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only entries after this number.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--verify", is_flag=True, help="Check that the trail was not altered.")
@click.option("--anchor", metavar="SEQ:HASH", help="With --verify: compare it with this, from a manager's log.")
@output_option
@pass_session
def audit(
    session: Session,
    actor: str | None,
    action: str | None,
    of: str | None,
    from_: str | None,
    to: str | None,
    after: int,
    limit: int | None,
    verify: bool,
    anchor: str | None,
    form: str,
) -> None:
    """Show who did what, oldest first, or check the trail."""
    if verify:
        _verify(session, after, anchor)
        return
    if anchor is not None:
        raise CommandError("--anchor goes with --verify", EXIT_USAGE)
    query = {"actor": actor, "action": action, "object": of, "from": from_, "to": to, "after": str(after)}
    show_items(list(session.client.pages("/audit", query, limit=limit)), ENTRIES, form, nothing="nothing was done")


def _verify(session: Session, after: int, anchor: str | None) -> None:
    """Check the trail piece by piece. Raises CommandError when it was altered."""
    if anchor is not None:
        _compare(session, anchor)
    checked = 0
    while True:
        found = session.client.get("/audit/verify", {"after": str(after)})
        checked += found["checked"]
        if broken := found["broken"]:
            raise CommandError(f"the audit trail was altered: entry {broken['seq']}: {broken['why']}")
        if found["done"]:
            break
        after = found["through"]
        click.echo(f"{checked} entries are in order so far, up to {after}", err=True)
    told = found["anchor"]
    known = f"ZooKeeper knows it up to {told['seq']}" if told else "ZooKeeper says nothing of it"
    click.echo(f"{checked} entries are in order, up to {found['through']}; {known}")


def _compare(session: Session, anchor: str) -> None:
    match = _ANCHOR.fullmatch(anchor)
    if match is None:
        raise CommandError("--anchor: write SEQ:HASH, as a manager's log has them", EXIT_USAGE)
    seq, digest = int(match[1]), match[2]
    found = list(session.client.pages("/audit", {"after": str(seq - 1)}, limit=1))
    if not found or found[0]["seq"] != seq:
        raise CommandError(f"the audit trail was altered, or cut as too old: entry {seq} is missing")
    if found[0]["hash"] != digest:
        raise CommandError(f"the audit trail was altered: entry {seq} is not the one that was anchored")


COMMANDS: list[click.Command] = [audit]
