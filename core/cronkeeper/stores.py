"""The three stores, opened as the settings say: one place, so that no part can leave out a certificate or a password.

Opening asks nothing, so nothing has to answer. The canaries do ask: each part sends its own at its start, and does not
start where a store answers and refuses what the part will have to do. A store that is away refuses nobody.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cronkeeper.errors import ConfigError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from cronkeeper.ports import BlobStore, Coordinator, Store
    from cronkeeper.runtime.config import DatabaseConfig, StoreConfig

log = logging.getLogger(__name__)

_CANARY_KEY, _CANARY = "canary", b"tweet"


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


def send_database_canary(config: DatabaseConfig, part: str) -> None:
    """Ask for every right and column that this part (`api`, `manager`, `worker`) needs. Raises ConfigError."""
    from cronkeeper.store import canary
    from cronkeeper.store.grants import Account

    try:
        canary.check(config.database, Account(part))
    except UnavailableError as exc:
        log.warning("the database is away; nothing was asked", extra={"event": "canary.away", "error": str(exc)})


def log_into_database(config: DatabaseConfig) -> None:
    """Ask whether the account is taken, and nothing more. Raises ConfigError."""
    from cronkeeper.store import canary

    try:
        canary.log_in(config.database)
    except UnavailableError as exc:
        log.warning("the database is away; nothing was asked", extra={"event": "canary.away", "error": str(exc)})


def send_object_canary(config: StoreConfig, *, writes: bool) -> None:
    """Read an object, having written it first where this part writes some. Raises ConfigError."""
    blobs = open_objects(config)
    try:
        if writes:
            blobs.put(_CANARY_KEY, _CANARY)
        found = b"".join(blobs.read(_CANARY_KEY))
    except NotFoundError:
        if writes:
            raise ConfigError("blob_url: what was written is not there") from None
    except UnavailableError as exc:
        log.warning("the object store is away; nothing was asked", extra={"event": "canary.away", "error": str(exc)})
    except ConfigError as exc:
        raise ConfigError(f"blob_url or an s3_ setting: {exc}") from exc
    else:
        if found != _CANARY:
            raise ConfigError("blob_url: the object `canary` is not what was written; is somebody else writing there?")
