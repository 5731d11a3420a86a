"""The three stores as a node's daemon opens them."""

from __future__ import annotations

from dataclasses import dataclass

from cronkeeper.ports import BlobStore, Coordinator, Store
from cronkeeper.stores import open_coordinator, open_database, open_objects
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
        open_database(config, pool_size=4),
        open_coordinator(config, name=f"worker-{worker}"),
        open_objects(config),
    )
