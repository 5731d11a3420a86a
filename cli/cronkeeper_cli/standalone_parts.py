"""The configurations of standalone's parts: the same services as in a fleet, with embedded stores."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Any, TypeVar

from cronkeeper.runtime.config import Config, load
from cronkeeper_cli.standalone_home import Home, Secrets

if TYPE_CHECKING:
    from cronkeeper_api.config import ApiConfig
    from cronkeeper_manager.config import ManagerConfig
    from cronkeeper_worker.config import WorkerConfig

C = TypeVar("C", bound=Config)

ZOOKEEPER_USER = "cronkeeper"


def stores(home: Home, secrets: Secrets, zookeeper: str) -> dict[str, Any]:
    """Return the settings that all services share. `zookeeper` is host:port."""
    return {
        "database_url": home.database_url,
        "zookeeper": f"{zookeeper}/cronkeeper",
        "zookeeper_auth": f"{ZOOKEEPER_USER}:{secrets.zookeeper_password}",
        "blob_url": home.blob_url,
    }


def run_accounts() -> tuple[str, ...]:
    """Return the accounts that runs may use: `nobody` when we are root, else our own, as we cannot become another."""
    return ("nobody",) if os.geteuid() == 0 else (pwd.getpwuid(os.geteuid()).pw_name,)


def api_config(home: Home, shared: dict[str, Any], port: int) -> ApiConfig:
    """One server, one worker process, on loopback."""
    from cronkeeper_api.config import ApiConfig

    return _load(
        ApiConfig,
        shared,
        bind=f"127.0.0.1:{port}",
        workers=1,
        signing_key_file=home.signing_key_file,
        secrets_key_files=(str(home.secrets_key_file),),
        run_as_allowed=run_accounts(),
        # Nobody stands in front who would have to be sent elsewhere first.
        drain_s=0.0,
        graceful_timeout_s=5,
    )


def manager_config(shared: dict[str, Any]) -> ManagerConfig:
    """The only manager: it leads."""
    from cronkeeper_manager.config import ManagerConfig

    # Its own way of starting afresh runs the command line again, which here is ours: we are its supervisor.
    return _load(ManagerConfig, shared, restart_itself=False)


def worker_config(home: Home, secrets: Secrets, shared: dict[str, Any]) -> WorkerConfig:
    """The worker of this machine. It trusts the tasks that our API server signed."""
    from cronkeeper.wire.task import Signer
    from cronkeeper_worker.config import WorkerConfig

    signer = Signer.from_seed(bytes.fromhex(secrets.signing_seed))
    return _load(
        WorkerConfig,
        shared,
        state_dir=home.worker_dir,
        verify_keys=(signer.public_bytes.hex(),),
        secrets_key_files=(str(home.secrets_key_file),),
        node_accounts=run_accounts(),
        # All parts share one database file, and the API server beside it can sign any task: there is no border here.
        daemon_account="root",
        # Who presses Ctrl-C here means that nothing of this runs any more: no entry stays in the crontab.
        on_stop="leave",
    )


def _load(cls: type[C], shared: dict[str, Any], **own: Any) -> C:
    # An empty environment: settings of a fleet that this shell may hold are not for standalone.
    return load(cls, file=None, environ={}, flags={**shared, **own})
