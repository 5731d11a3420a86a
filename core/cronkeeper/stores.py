"""The three stores, opened as the settings say: one place, so that no part can leave out a certificate or a password.

Nothing is asked yet, so nothing has to answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronkeeper.ports import BlobStore, Coordinator, Store
    from cronkeeper.runtime.config import DatabaseConfig, StoreConfig


def open_database(config: DatabaseConfig, *, pool_size: int = 5) -> Store:
    """Return the store. Raises ConfigError; see `cronkeeper.store.open_store`."""
    from cronkeeper.store import open_store

    return open_store(config.database, pool_size=pool_size)


def open_coordinator(config: StoreConfig, *, name: str) -> Coordinator:
    """Return a coordinator that is not connected yet. Raises ConfigError; see `cronkeeper.coord.connect`."""
    from cronkeeper.coord import connect

    return connect(
        config.zookeeper,
        auth=config.zookeeper_auth,
        session_timeout_s=config.session_timeout_s,
        name=name,
        tls=config.zookeeper_tls,
    )


def open_objects(config: StoreConfig) -> BlobStore:
    """Return the object store. Raises ConfigError; see `cronkeeper.blob.open_blobs`."""
    from cronkeeper.blob import open_blobs

    return open_blobs(
        config.blob_url,
        endpoint_url=config.s3_endpoint,
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
        ca=config.s3_tls_ca,
    )
