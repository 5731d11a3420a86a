"""A store in memory: for tests of everything that stands on one. It passes the same contract suite as the real ones."""

from __future__ import annotations

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
from cronkeeper.runtime.clock import Clock
from cronkeeper.testing.memory_store_audit import MemoryAuditStore
from cronkeeper.testing.memory_store_calendars import MemoryCalendarStore
from cronkeeper.testing.memory_store_failures import MemoryFailureStore
from cronkeeper.testing.memory_store_fleet import (
    MemoryAssignmentStore,
    MemoryCordonStore,
    MemoryLeaseStore,
    MemoryMoveRequestStore,
    MemoryTermStore,
)
from cronkeeper.testing.memory_store_jobs import MemoryJobStore
from cronkeeper.testing.memory_store_namespaces import MemoryNamespaceStore
from cronkeeper.testing.memory_store_notes import MemoryEventStore, MemoryIdempotencyStore, MemoryTokenStore
from cronkeeper.testing.memory_store_runs import MemoryRunStore
from cronkeeper.testing.memory_store_secrets import MemorySecretStore
from cronkeeper.testing.memory_store_state import Memory
from cronkeeper.testing.memory_store_trail import MemoryTrailStore


class MemoryStore:
    """See cronkeeper.ports.Store. Thread-safe; `clock` plays the database's clock.

    Methods are named as they are reached from the store, for example `runs.claim` or `ping`.
    """

    def __init__(self, clock: Clock) -> None:
        self._memory = Memory(clock)
        self.jobs: JobStore = MemoryJobStore(self._memory)
        self.runs: RunStore = MemoryRunStore(self._memory)
        self.leases: LeaseStore = MemoryLeaseStore(self._memory)
        self.terms: TermStore = MemoryTermStore(self._memory)
        self.assignments: AssignmentStore = MemoryAssignmentStore(self._memory)
        self.move_requests: MoveRequestStore = MemoryMoveRequestStore(self._memory)
        self.cordons: CordonStore = MemoryCordonStore(self._memory)
        self.tokens: TokenStore = MemoryTokenStore(self._memory)
        self.idempotency: IdempotencyStore = MemoryIdempotencyStore(self._memory)
        self.events: EventStore = MemoryEventStore(self._memory)
        self.failures: FailureStore = MemoryFailureStore(self._memory)
        self.secrets: SecretStore = MemorySecretStore(self._memory)
        self.audit: AuditStore = MemoryAuditStore(self._memory)
        self.trail: TrailStore = MemoryTrailStore(self._memory)
        self.calendars: CalendarStore = MemoryCalendarStore(self._memory)
        self.namespaces: NamespaceStore = MemoryNamespaceStore(self._memory)

    def ping(self) -> None:
        with self._memory.call("ping"):
            pass

    def close(self) -> None:
        """Nothing is open."""

    def set_available(self, available: bool) -> None:
        """Make every call raise UnavailableError, or work again; what is stored stays."""
        self._memory.set_available(available)

    def fail_next(self, method: str = "", *, count: int = 1, landed: bool = False) -> None:
        """Make the next `count` calls of a method (of any method) raise UnavailableError.

        With `landed` each does its work first: the write happened and only its answer was lost.
        """
        self._memory.fail_next(method, count=count, landed=landed)

    def calls(self, method: str = "") -> int:
        """Return how often a method (any method) was called, failed calls included."""
        return self._memory.calls(method)

    def spoil_job(self, job_id: int) -> None:
        """Make the job's row unreadable, as an edit by hand or a newer version might."""
        self._memory.spoil_job(job_id)
