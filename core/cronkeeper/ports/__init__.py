"""The contracts between the components and the stores. Adapters and shipped doubles pass one contract suite each.

Rules for every method here
- A read either returns the whole truth or raises UnavailableError; "could not read" is never an empty result.
- Instants are epoch milliseconds, UTC.
- A write whose answer was lost is resolved inside where a nonce or version makes that possible; where it is not,
  UnavailableError is raised only if repeating the very same call is safe. The docstring says which.
- Every call is bounded in time (seconds, not minutes), whatever the server does.
- Methods that take a `term` or a `Leadership` raise FencedError when it is not the newest any more, and change nothing.
"""

from cronkeeper.ports.access import (
    ABANDONED_MS,
    Event,
    EventStore,
    Idempotency,
    IdempotencyResult,
    IdempotencyStore,
    RequestKey,
    Role,
    Token,
    TokenStore,
    token_facts,
)
from cronkeeper.ports.audit import AuditMark, AuditStore, Fate, Fire, JobVersion, Missed, SignedRow
from cronkeeper.ports.blobs import BlobInfo, BlobStore
from cronkeeper.ports.calendars import CalendarStore
from cronkeeper.ports.coordinator import Coordinator, Leadership
from cronkeeper.ports.failures import FailureStore
from cronkeeper.ports.fleet import (
    AssignmentStore,
    Beat,
    Cordon,
    CordonStore,
    LeaseStore,
    MoveRequest,
    MoveRequestStore,
    TermStore,
)
from cronkeeper.ports.ledger import JobQuery, JobStore, LastFire, NewJob, PlanRow, RunStore, Span
from cronkeeper.ports.namespaces import NamespacePolicy, NamespaceStore, Weighing
from cronkeeper.ports.secrets import Secret, SecretStore
from cronkeeper.ports.store import Store
from cronkeeper.ports.trail import TrailQuery, TrailStore

__all__ = [
    "ABANDONED_MS",
    "AssignmentStore",
    "AuditMark",
    "AuditStore",
    "Beat",
    "BlobInfo",
    "BlobStore",
    "CalendarStore",
    "Coordinator",
    "Cordon",
    "CordonStore",
    "Event",
    "EventStore",
    "FailureStore",
    "Fate",
    "Fire",
    "Idempotency",
    "IdempotencyResult",
    "IdempotencyStore",
    "JobQuery",
    "JobStore",
    "JobVersion",
    "LastFire",
    "Leadership",
    "LeaseStore",
    "Missed",
    "MoveRequest",
    "MoveRequestStore",
    "NamespacePolicy",
    "NamespaceStore",
    "NewJob",
    "PlanRow",
    "RequestKey",
    "Role",
    "RunStore",
    "Secret",
    "SecretStore",
    "SignedRow",
    "Span",
    "Store",
    "TermStore",
    "Token",
    "TokenStore",
    "TrailQuery",
    "TrailStore",
    "Weighing",
    "token_facts",
]
