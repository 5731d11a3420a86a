"""The three stores as a node's daemon opens them."""

from __future__ import annotations

from dataclasses import dataclass

from cronkeeper.blob import open_blobs
from cronkeeper.coord import connect
from cronkeeper.ports import BlobStore, Coordinator, Store
from cronkeeper.store import open_store
from cronkeeper_worker.config import WorkerConfig


@dataclass(frozen=True, slots=True)
class Stores:
    """The three stores, as this process sees them. None of them needs to be up for a node to fire."""

    store: Store
    coordinator: Coordinator
    blobs: BlobStore


def open_stores(config: WorkerConfig, worker: str) -> Stores:
    """Return the stores that the settings name. Nothing is asked yet, so nothing has to answer."""
    return Stores(
        open_store(config.database_url, pool_size=4),
        connect(
            config.zookeeper,
            auth=config.zookeeper_auth,
            session_timeout_s=config.session_timeout_s,
            name=f"worker-{worker}",
        ),
        open_blobs(
            config.blob_url,
            endpoint_url=config.s3_endpoint,
            access_key=config.s3_access_key,
            secret_key=config.s3_secret_key,
        ),
    )
