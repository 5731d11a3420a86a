"""The API on the doubles that we ship: the real application, use cases and rules, without a server or a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cronkeeper.ports import BlobStore, Role
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_blobs import MemoryBlobs
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.wire.sealed import SecretsKeys
from cronkeeper.wire.task import Signer, Verifier
from cronkeeper_api.app import create_app
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.services import Services, assemble
from cronkeeper_manager.fleet import Fleet

SEED = bytes(range(100, 132))
SECRETS_KEYS = SecretsKeys([bytes(range(150, 182))])
#: 2026-03-01T12:00:00Z
NOON_MS = 1_772_366_400_000
JOB: dict[str, Any] = {"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}


class World:
    """One API server on doubles, with a token for every role."""

    def __init__(
        self,
        *,
        secrets_keys: SecretsKeys = SECRETS_KEYS,
        store: MemoryStore | None = None,
        blobs: BlobStore | None = None,
        **settings: Any,
    ) -> None:
        self.clock = FakeClock(NOON_MS)
        self.store = MemoryStore(self.clock) if store is None else store
        self.ensemble = MemoryEnsemble()
        self.coordinator = MemoryCoordinator(self.ensemble, "api", clock=self.clock)
        self.coordinator.start(1.0)
        self.coordinator.ensure_layout()
        self.blobs = MemoryBlobs()
        self.config = ApiConfig(**settings)
        self.signer = Signer.from_seed(SEED)
        self.verifier = Verifier([self.signer.public_bytes])
        self.secrets_keys = secrets_keys
        self.draining = False
        self.services: Services = assemble(
            self.config,
            store=self.store,
            coordinator=self.coordinator,
            blobs=self.blobs if blobs is None else blobs,
            signer=self.signer,
            fleet=Fleet(self.store, self.coordinator, self.clock),
            clock=self.clock,
            draining=lambda: self.draining,
            secrets_keys=secrets_keys,
        )
        self.app = create_app(self.services)
        self.client: FlaskClient = self.app.test_client()
        self.tokens = {role: self.services.tokens.create(name=f"the-{role}", role=role)[1] for role in Role}

    def close(self) -> None:
        """End the thread that tells ZooKeeper."""
        self.services.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        role: Role | None = Role.OPERATOR,
        headers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> TestResponse:
        """Send a request with the role's token (None: without one); `json`, `data` and `query_string` go to Flask."""
        sent = dict(headers or {})
        if role is not None:
            sent["Authorization"] = f"Bearer {self.tokens[role]}"
        return self.client.open(path, method=method, headers=sent, **rest)

    def post_job(self, **fields: Any) -> dict[str, Any]:
        """Create a job and return the answer's JSON."""
        answer = self.call("POST", "/jobs", json={**JOB, **fields})
        assert answer.status_code == 201, answer.get_data(as_text=True)
        found: dict[str, Any] = answer.get_json()
        return found


def fields_of(answer: TestResponse) -> set[str]:
    """Return the fields that a problem names."""
    return {error["field"] for error in answer.get_json()["errors"]}
