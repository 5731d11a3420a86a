"""One database, as a whole."""

from __future__ import annotations

from typing import Protocol

from cronkeeper.ports.access import EventStore, IdempotencyStore, TokenStore
from cronkeeper.ports.audit import AuditStore
from cronkeeper.ports.calendars import CalendarStore
from cronkeeper.ports.failures import FailureStore
from cronkeeper.ports.fleet import AssignmentStore, CordonStore, LeaseStore, MoveRequestStore, TermStore
from cronkeeper.ports.ledger import JobStore, RunStore
from cronkeeper.ports.namespaces import NamespaceStore
from cronkeeper.ports.secrets import SecretStore
from cronkeeper.ports.trail import TrailStore


class Store(Protocol):
    """One database. Safe to use from several threads; not across a fork."""

    jobs: JobStore
    runs: RunStore
    leases: LeaseStore
    terms: TermStore
    assignments: AssignmentStore
    move_requests: MoveRequestStore
    cordons: CordonStore
    tokens: TokenStore
    idempotency: IdempotencyStore
    events: EventStore
    secrets: SecretStore
    failures: FailureStore
    audit: AuditStore
    trail: TrailStore
    calendars: CalendarStore
    namespaces: NamespaceStore

    def ping(self) -> None:
        """One cheap round trip. Raises UnavailableError."""
        ...

    def close(self) -> None: ...
