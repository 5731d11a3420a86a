"""From a claimed run to the order that the runner carries out; and what this node refuses."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable
from pathlib import Path

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Artifact, JobType
from cronkeeper.domain.run import Reason, Run
from cronkeeper.errors import SealError
from cronkeeper.wire.sealed import SecretsKeys
from cronkeeper_worker.orders import Order, OrderError, Secret, check
from cronkeeper_worker.tasks import Installed

log = logging.getLogger(__name__)


class NodeOrders:
    """Makes orders under this node's own rules: which accounts runs may use is decided here, whatever the task says.

    Whether an account exists, whoever makes the process finds out: here it would be asked at every fire, and among many
    threads nobody can tell an account that is not there from one that could not be read.

    `sealed` returns the signed task, for a root part: that decides all of this once more, by what was signed.
    """

    def __init__(
        self,
        *,
        worker: str,
        account: str,
        accounts: tuple[str, ...],
        artifact_path: Callable[[Artifact], Path],
        secrets_keys: SecretsKeys,
        sealed: Callable[[TaskId], bytes] | None = None,
    ) -> None:
        self._worker = worker
        self._sealed = sealed
        self._privileged = os.geteuid() == 0 or sealed is not None
        self._me = _own_name()
        self._default = account
        self._allowed = frozenset(accounts) | {account}
        self._artifact_path = artifact_path
        self._secrets_keys = secrets_keys

    def obstacle(self, item: Installed) -> Reason | None:
        """Return why a run of this task cannot be started here now, or None."""
        if self._account_fault(item.view.spec.run_as):
            return Reason.USER_REFUSED
        artifact = item.work.artifact
        if item.view.spec.type is not JobType.COMMAND and artifact is None:
            return Reason.BAD_TASK
        if artifact is not None and not self._artifact_path(artifact).is_file():
            return Reason.ARTIFACT_MISSING
        try:
            self._secrets(item)
        except SealError as exc:
            facts = {"event": "secret.unreadable", "task": str(item.id), "error": str(exc)}
            log.error("a job's secret cannot be opened on this node", extra=facts)
            return Reason.SECRET_UNREADABLE
        return None

    def make(self, item: Installed, run: Run) -> Order:
        """Return the order. Raises ValueError (OrderError) when the task asks for what cannot be."""
        try:
            order = self._order(item, run)
        except SealError as exc:
            raise OrderError(str(exc)) from None
        check(order)
        return order

    def _order(self, item: Installed, run: Run) -> Order:
        spec, work = item.view.spec, item.work
        try:
            sealed = "" if self._sealed is None else self._sealed(item.id).decode("ascii")
        except KeyError:
            raise OrderError(f"task {item.id} is not in the journal any more") from None
        order = Order(
            run_id=run.id,
            nonce=run.nonce,
            env={**work.env, **_variables(item, run)},
            secrets=self._secrets(item),
            run_as=(spec.run_as or self._default) if self._privileged else None,
            timeout_s=spec.timeout_s,
            output_kb=spec.limits.output_kb,
            cpu_s=spec.limits.cpu,
            memory_mb=spec.limits.memory_mb,
            sealed=sealed,
        )
        if work.artifact is not None:
            path = str(self._artifact_path(work.artifact))
            return order._replace(executable=path, sha256=work.artifact.sha256, argv=work.args)
        if work.args:
            # The arguments travel beside the command line, never inside it: the shell does not read them again.
            return order._replace(argv=("/bin/sh", "-c", f'{work.executable} "$@"', "sh", *work.args))
        return order._replace(command=work.executable)

    def _secrets(self, item: Installed) -> dict[str, Secret]:
        """Open what the task's variables need: here for the first time, and kept by nobody but the run. SealError."""
        secrets, namespace = item.work.secrets, item.view.spec.namespace
        values: dict[str, str] = {}
        for name in secrets.names:
            sealed = secrets.sealed.get(name)
            if sealed is None:
                raise SealError(f"secret {name} of namespace {namespace} was deleted; set it again")
            values[name] = self._secrets_keys.open(sealed.box, namespace=namespace, name=name, version=sealed.version)
        return {variable: Secret(values[use.secret], use.as_file) for variable, use in secrets.uses.items()}

    def _account_fault(self, run_as: str | None) -> bool:
        if not self._privileged:
            return run_as is not None and run_as != self._me
        return (run_as or self._default) not in self._allowed


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run under a number that no account has
        return ""


def _variables(item: Installed, run: Run) -> dict[str, str]:
    """Return what a run is told about itself: with fire time and fence, an effect outside can be exactly-once."""
    return {
        "CRONKEEPER_JOB_ID": str(run.key.task.job_id),
        "CRONKEEPER_RUN_ID": run.id,
        "CRONKEEPER_FIRE_TIME": rfc3339(run.key.fire_ms),
        "CRONKEEPER_ATTEMPT": str(run.key.attempt),
        "CRONKEEPER_SHARD": "0" if run.key.task.of_node else str(run.key.task.shard),
        "CRONKEEPER_SHARDS": str(item.view.spec.shards),
        "CRONKEEPER_WORKER": run.worker,
        "CRONKEEPER_FENCE": str(run.fence),
    }
