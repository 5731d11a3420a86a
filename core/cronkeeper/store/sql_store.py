"""All sub-stores over one engine."""

from __future__ import annotations

from sqlalchemy import Engine

from cronkeeper.ports import (
    AssignmentStore,
    AuditStore,
    CalendarStore,
    CordonStore,
    EventStore,
    FailureStore,
    IdempotencyStore,
    JobStore,
    LeaseStore,
    MoveRequestStore,
    NamespaceStore,
    RunStore,
    SecretStore,
    TermStore,
    TokenStore,
    TrailStore,
)
from cronkeeper.store.assignments import SqlAssignmentStore, SqlCordonStore, SqlMoveRequestStore
from cronkeeper.store.audit import SqlAuditStore
from cronkeeper.store.calendars import SqlCalendarStore
from cronkeeper.store.failures import SqlFailureStore
from cronkeeper.store.jobs import SqlJobStore
from cronkeeper.store.leases import SqlLeaseStore
from cronkeeper.store.namespaces import SqlNamespaceStore
from cronkeeper.store.notes import SqlEventStore, SqlIdempotencyStore
from cronkeeper.store.runs import SqlRunStore
from cronkeeper.store.secrets import SqlSecretStore
from cronkeeper.store.session import Database
from cronkeeper.store.terms import SqlTermStore
from cronkeeper.store.tokens import SqlTokenStore
from cronkeeper.store.trail import SqlTrailStore


class SqlStore:
    """See cronkeeper.ports.Store."""

    def __init__(self, engine: Engine) -> None:
        self._db = Database(engine)
        self.jobs: JobStore = SqlJobStore(self._db)
        self.runs: RunStore = SqlRunStore(self._db)
        self.leases: LeaseStore = SqlLeaseStore(self._db)
        self.terms: TermStore = SqlTermStore(self._db)
        self.assignments: AssignmentStore = SqlAssignmentStore(self._db)
        self.move_requests: MoveRequestStore = SqlMoveRequestStore(self._db)
        self.cordons: CordonStore = SqlCordonStore(self._db)
        self.tokens: TokenStore = SqlTokenStore(self._db)
        self.idempotency: IdempotencyStore = SqlIdempotencyStore(self._db)
        self.events: EventStore = SqlEventStore(self._db)
        self.failures: FailureStore = SqlFailureStore(self._db)
        self.secrets: SecretStore = SqlSecretStore(self._db)
        self.audit: AuditStore = SqlAuditStore(self._db)
        self.trail: TrailStore = SqlTrailStore(self._db)
        self.calendars: CalendarStore = SqlCalendarStore(self._db)
        self.namespaces: NamespaceStore = SqlNamespaceStore(self._db)

    def ping(self) -> None:
        self._db.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one())

    def close(self) -> None:
        self._db.close()
