"""Secrets of jobs: set, listed without their values, deleted; and what a job gets of them when it is saved.

A value is sealed here, in the request that brings it, and opened on a node when a run starts. A job holds a sealed copy
of each secret that it names, so that a node needs nobody to start it; a new value is therefore copied into every job
that uses it, as a new generation. That is done after the secret's own row is written and before the answer: whoever
gets no answer repeats the request, and it goes on where the first one stopped.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cronkeeper.domain.job import Job, JobSpec
from cronkeeper.domain.scope import NAMESPACE
from cronkeeper.domain.secret_env import MAX_VALUE_BYTES, Sealed
from cronkeeper.errors import (
    ConflictError,
    FieldError,
    NotFoundError,
    SealError,
    StaleWriteError,
    ValidationFailedError,
)
from cronkeeper.ports import JobQuery, Secret, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.sealed import SecretsKeys
from cronkeeper.wire.trail import Entry
from cronkeeper_manager.service import rules
from cronkeeper_manager.service.jobs import Jobs
from cronkeeper_manager.service.named_copies import NamedCopies
from cronkeeper_manager.service.trail import note
from cronkeeper_manager.service.values import Caller

log = logging.getLogger(__name__)

MAX_SECRETS = 1000
_TRIES = 5
#: Jobs that are saved in one transaction.
_BATCH = 100
_NAMED_JOBS = 10
_UNSEALABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SavedSecret:
    """A secret that was set, and the jobs that got its new value."""

    secret: Secret
    jobs: tuple[int, ...]


class Secrets:
    """The use cases of secrets. No answer and no error of theirs holds a value."""

    def __init__(self, store: Store, jobs: Jobs, keys: SecretsKeys, clock: Clock) -> None:
        self._store = store
        self._jobs = jobs
        self._keys = keys
        self._clock = clock
        self._copies = NamedCopies(store)

    def all(self, namespace: str | None = None) -> list[Secret]:
        """Return the secrets (of one namespace), by namespace and name."""
        return self._store.secrets.all(namespace)

    def put(self, namespace: str, name: str, value: str, caller: Caller) -> SavedSecret:
        """Set a secret, and hand its value to all jobs that use it, from now on. Safe to repeat: the same value stays
        the same version, and only jobs that have not got it yet are changed.

        Raises NotFoundError (a foreign namespace) or ValidationFailedError: a bad name or value, a full namespace, or
        a server without a key.
        """
        if not caller.scope.holds(namespace):
            raise NotFoundError(f"there is no secret of this name in namespace {namespace}")
        if faults := [*_name_faults(namespace, name), *_value_faults(value)]:
            raise ValidationFailedError(faults)
        if not self._keys:
            hint = "set secrets_key_files on the API servers and workers, then restart them"
            raise ValidationFailedError(
                [FieldError("value", "cannot be kept: this server has no key for secrets", hint)]
            )
        secret = self._save(namespace, name, value, caller)
        version = secret.sealed.version
        facts = {"secret": name, "namespace": namespace, "version": version, "by": caller.name}
        log.info("a secret was set", extra={"event": "secret.set", **facts})
        return SavedSecret(secret, tuple(self._renew(namespace, name, caller)))

    def rotate(self, caller: Caller) -> tuple[SavedSecret, ...]:
        """Seal everything anew that was sealed with an older key, and hand it to the jobs. Safe to repeat.

        Afterwards no secret and no job needs the older keys. ConflictError at the first that none of the keys opens.
        """
        try:
            return tuple(
                self.put(old.namespace, old.name, self._value(old), caller)
                for old in self.all()
                if not self._keys.is_newest(old.sealed.box) or self._is_behind(old)
            )
        except SealError as exc:
            raise ConflictError(f"{exc}; set it again, or delete it") from exc

    def delete(self, namespace: str, name: str, caller: Caller, *, force: bool = False) -> None:
        """Remove a secret. ConflictError while jobs use it; with `force` they go without: none of them runs any more.

        Raises NotFoundError.
        """
        users = [] if force else self._users(namespace, name)
        if users and self._store.secrets.find(namespace, [name]):
            raise ConflictError(f"secret {name} is used by {_listed(users)}; change them first, or use force")
        old = self._store.secrets.find(namespace, [name]).get(name)
        told = [] if old is None else [_note(caller, old, None, self._clock.now_ms())]
        deleted = self._store.secrets.delete(namespace, name, trail=told)
        # Also when it is gone: an earlier call may have stopped here.
        changed = self._renew(namespace, name, caller) if force else []
        if not deleted and not changed:
            raise NotFoundError(f"there is no secret of this name in namespace {namespace}")
        facts = {"secret": name, "namespace": namespace, "jobs": len(changed), "by": caller.name}
        log.info("a secret was deleted", extra={"event": "secret.deleted", **facts})

    def _save(self, namespace: str, name: str, value: str, caller: Caller) -> Secret:
        secrets = self._store.secrets
        for _ in range(_TRIES):
            old = secrets.find(namespace, [name]).get(name)
            if old is None and len(secrets.all(namespace)) >= MAX_SECRETS:
                raise ValidationFailedError([FieldError("", f"the namespace has {MAX_SECRETS} secrets already")])
            if old is not None and self._keys.is_newest(old.sealed.box) and self._is(old, value):
                return old
            before = 0 if old is None else old.sealed.version
            box = self._keys.seal(value, namespace=namespace, name=name, version=before + 1)
            new = Secret(namespace, name, Sealed(before + 1, box), self._clock.now_ms(), caller.name)
            try:
                secrets.save(new, expected_version=before, trail=[_note(caller, old, new, new.updated_ms)])
            except StaleWriteError:
                continue
            return new
        raise ConflictError(f"secret {name} is being set by others at the same time; try again")

    def _value(self, secret: Secret) -> str:
        sealed = secret.sealed
        return self._keys.open(sealed.box, namespace=secret.namespace, name=secret.name, version=sealed.version)

    def _is_behind(self, secret: Secret) -> bool:
        """Say whether any job has another copy: an earlier call may have stopped half-way."""
        query = JobQuery(limit=_BATCH, namespace=secret.namespace, secret=secret.name)
        while page := self._store.jobs.page(query):
            if any(job.spec.secrets.sealed.get(secret.name) != secret.sealed for job in page):
                return True
            query = replace(query, after=page[-1].id)
        return False

    def _is(self, secret: Secret, value: str) -> bool:
        """Say whether the secret has that value already: then an earlier call may have stopped half-way."""
        try:
            stored = self._value(secret)
        except SealError:
            # Of a key that was lost, or damaged: it is set anew.
            return False
        return hmac.compare_digest(stored.encode(), value.encode())

    def _renew(self, namespace: str, name: str, caller: Caller) -> list[int]:
        """Save the jobs anew that have another copy than there is now; return their ids."""
        changed: list[int] = []
        query = JobQuery(limit=_BATCH, namespace=namespace, secret=name)
        while page := self._store.jobs.page(query):
            changed += self._renew_all(page, caller)
            query = replace(query, after=page[-1].id)
        return changed

    def _renew_all(self, jobs: Sequence[Job], caller: Caller) -> list[int]:
        """Save in one transaction what has changed; each job on its own if one is being changed by others."""
        try:
            wanted = self._outdated(jobs)
            if wanted:
                self._jobs.renew(wanted, caller)
            return [job.id for job, _ in wanted]
        except (StaleWriteError, NotFoundError):
            return [job.id for job in jobs if self._renew_one(job.id, caller)]

    def _renew_one(self, job_id: int, caller: Caller) -> bool:
        for _ in range(_TRIES):
            try:
                wanted = self._outdated([self._store.jobs.get(job_id)])
                if wanted:
                    self._jobs.renew(wanted, caller)
                return bool(wanted)
            except StaleWriteError:
                continue
            except NotFoundError:
                return False
        raise ConflictError(f"job {job_id} is being changed by others at the same time; try again")

    def _outdated(self, jobs: Sequence[Job]) -> list[tuple[Job, JobSpec]]:
        specs = self._copies.refreshed([job.spec for job in jobs])
        return [(job, spec) for job, spec in zip(jobs, specs, strict=True) if job.spec != spec]

    def _users(self, namespace: str, name: str) -> list[Job]:
        query = JobQuery(limit=_NAMED_JOBS + 1, namespace=namespace, secret=name)
        return self._store.jobs.page(query)


def _note(caller: Caller, old: Secret | None, new: Secret | None, at_ms: int) -> Entry:
    one = new or old
    assert one is not None
    was, becomes = (None if it is None else {"version": it.sealed.version} for it in (old, new))
    action = "secret.deleted" if new is None else "secret.set"
    return note(caller, action, "secret", one.name, at_ms=at_ms, namespace=one.namespace, old=was, new=becomes)


def _name_faults(namespace: str, name: str) -> list[FieldError]:
    faults = []
    if not rules.NAME.fullmatch(name):
        hint = "write 1 to 128 letters, digits, '_', '.' or '-', with a letter or digit at both ends"
        faults.append(FieldError("name", f"{rules.shown(name[:40])} is not the name of a secret", hint))
    if not NAMESPACE.fullmatch(namespace):
        faults.append(FieldError("namespace", "is not a namespace", "write 1 to 63 lower-case letters, digits or '-'"))
    return faults


def _value_faults(value: str) -> list[FieldError]:
    if _UNSEALABLE.search(value):
        return [
            FieldError("value", "holds a NUL character or half a surrogate pair", "encode it, as BASE64 for example")
        ]
    if not value:
        return [FieldError("value", "is empty", "delete the secret instead")]
    if (size := len(value.encode())) > MAX_VALUE_BYTES:
        return [
            FieldError("value", f"is {size} bytes long, {MAX_VALUE_BYTES} are allowed", "keep large files as artifacts")
        ]
    return []


def _listed(jobs: Sequence[Job]) -> str:
    named = [f"{job.id} ({job.spec.name})" if job.spec.name else str(job.id) for job in jobs[:_NAMED_JOBS]]
    more = " and more" if len(jobs) > _NAMED_JOBS else ""
    return f"{'jobs' if len(jobs) > 1 else 'job'} {', '.join(named)}{more}"
