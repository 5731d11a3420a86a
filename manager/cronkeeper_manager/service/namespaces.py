"""Namespaces: what administrators allow in each, and what it holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from cronkeeper.domain.job import JobSpec
from cronkeeper.domain.quota import Quotas, Usage, excess
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper.domain.scope import NAMESPACE
from cronkeeper.errors import FieldError, NotFoundError, QuotaExceededError, ValidationFailedError
from cronkeeper.ports import NamespacePolicy, Role, Store, Weighing
from cronkeeper.runtime.clock import Clock
from cronkeeper_manager.load import MIN_LOAD, expected_load
from cronkeeper_manager.service.rules import ACCOUNT
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller, Policy

log = logging.getLogger(__name__)

#: How long an answer of the store is believed. What was allowed or forbidden holds everywhere after that.
CACHE_S = 3.0
MAX_ACCOUNTS = 100
_MAX_CACHED = 10_000
#: So many fires are looked at for the shortest time between two of them.
_LOOKED_AT = 2000
ROOT = "root"


@dataclass(frozen=True, slots=True)
class NamespaceView:
    """A namespace as people see it."""

    policy: NamespacePolicy
    usage: Usage


class Namespaces:
    """What is allowed where. Safe to use from several threads. All methods raise UnavailableError."""

    def __init__(self, store: Store, clock: Clock, defaults: Policy) -> None:
        self._store = store
        self._clock = clock
        self._defaults = defaults
        self._lock = threading.Lock()
        self._known: dict[str, tuple[NamespacePolicy, float]] = {}

    def policy(self, name: str) -> NamespacePolicy:
        """Return what is allowed in a namespace, as of the last seconds. A foreign one is as one that nobody knows."""
        entry = self._known.get(name)
        if entry is not None and entry[1] > self._clock.boot_s():
            return entry[0]
        found = NamespacePolicy(name)
        if NAMESPACE.fullmatch(name):
            with suppress(NotFoundError):
                found = self._store.namespaces.get(name)
        with self._lock:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[name] = (found, self._clock.boot_s() + CACHE_S)
        return found

    def run_as_of(self, name: object) -> tuple[str, ...]:
        """Return the accounts that jobs of the namespace may name; those of the installation for what is no name."""
        own = self.policy(name).run_as if isinstance(name, str) else None
        return self._defaults.run_as_allowed if own is None else own

    def weighing(self, names: Iterable[str]) -> Weighing | None:
        """Return how writes into these namespaces are held against quotas; None: none of them has any."""
        counted = any(self.policy(name).quotas.counted for name in set(names))
        return Weighing(self._clock.now_ms(), load_of) if counted else None

    def check_room(self, spec: JobSpec) -> None:
        """Raise QuotaExceededError if the job's file has no room. Before it is stored; the write decides."""
        if spec.artifact is None:
            return
        quotas = self.policy(spec.namespace).quotas
        if quotas.max_artifact_bytes is None:
            return
        before = self._store.namespaces.usage(spec.namespace, load_of)
        after = replace(before, artifact_bytes=before.artifact_bytes + spec.artifact.size)
        found = excess(Quotas(max_artifact_bytes=quotas.max_artifact_bytes), before, after)
        if found is not None:
            raise QuotaExceededError(spec.namespace, found.quota, found.field, found.limit, found.wanted)

    def show(self, name: str) -> NamespaceView:
        """Return a namespace. Raises NotFoundError for what is no name, and for a foreign one."""
        if not NAMESPACE.fullmatch(name):
            raise NotFoundError(f"there is no namespace {name[:63]!a}")
        return NamespaceView(self._store.namespaces.get(name), self._store.namespaces.usage(name, load_of))

    def all(self) -> list[NamespaceView]:
        """Return the namespaces that anybody has decided about or that hold a job, by name."""
        found = self._store.namespaces.all()
        return [NamespaceView(policy, self._store.namespaces.usage(policy.name, load_of)) for policy in found]

    def save(self, name: str, run_as: tuple[str, ...] | None, quotas: Quotas, caller: Caller) -> NamespaceView:
        """Decide what is allowed from now on; jobs that are there stay as they are. Raises ValidationFailedError."""
        if faults := [*_name_faults(name), *_account_faults(run_as or ())]:
            raise ValidationFailedError(faults)
        now_ms, old = self._clock.now_ms(), self._store.namespaces.get(name)
        new = NamespacePolicy(name, run_as, quotas, now_ms)
        was, becomes = _told(old), _told(new)
        told = note(caller, "namespace.changed", "namespace", name, at_ms=now_ms, namespace=name, old=was, new=becomes)
        self._store.namespaces.save(new, trail=[told])
        with self._lock:
            self._known.pop(name, None)
        log.info("a namespace was changed", extra={"event": "namespace.changed", "namespace": name, "by": caller.name})
        return self.show(name)


# ---------------------------------------------------------------------------------------------------------------- PURE


@lru_cache(maxsize=65_536)
def load_of(schedule: str) -> float:
    """Return the expected fires a minute of one task; the least for a schedule that cannot be read."""
    try:
        return expected_load(parse_schedule(schedule))
    except ValueError:
        return MIN_LOAD


def check_interval(spec: JobSpec, shortest_s: int | None, now_ms: int, before: JobSpec | None) -> list[FieldError]:
    """Return what is wrong with a schedule that has passed the other rules: two of its fires are too close.

    A job whose schedule stays as it was is left alone.
    """
    if shortest_s is None or (before is not None and before.timing == spec.timing):
        return []
    low, high = spec.due_between(now_ms, now_ms + 5 * 366 * 86_400_000)
    times = spec.parsed_schedule().fire_times(low, high, limit=_LOOKED_AT) if high > low else []
    gap_ms = min((after - one for one, after in pairwise(times)), default=None)
    if gap_ms is None or gap_ms >= shortest_s * 1000:
        return []
    message = f"fires every {gap_ms / 1000:g} s at times; the namespace's min_interval_s is {shortest_s}"
    return [FieldError("schedule", message, "let more time pass between two fires")]


def root_fault(caller: Caller, own: tuple[str, ...] | None) -> str:
    """Return why a caller may not have a job run as root, or an empty text. `own` are the namespace's accounts.

    Where nobody has decided, only somebody may who could decide it. The node has its own word in any case.
    """
    if caller.role is not Role.ADMIN:
        return "a job may run as root only if an admin's token asks for it"
    if own is None and not caller.scope.everywhere:
        return "root is not among the accounts of this namespace; it takes an admin of all namespaces to allow it"
    if own is not None and ROOT not in own:
        return "root is not among the accounts of this namespace"
    return ""


def _told(policy: NamespacePolicy) -> dict[str, Any]:
    return {"run_as": None if policy.run_as is None else list(policy.run_as), **asdict(policy.quotas)}


def _name_faults(name: str) -> list[FieldError]:
    if NAMESPACE.fullmatch(name):
        return []
    return [FieldError("namespace", "is not a namespace", "write 1 to 63 lower-case letters, digits or '-'")]


def _account_faults(accounts: Iterable[str]) -> list[FieldError]:
    return [
        FieldError(f"run_as[{index}]", f"{account[:40]!a} is not an account's name", "write names such as nobody")
        for index, account in enumerate(accounts)
        if not ACCOUNT.fullmatch(account)
    ]
