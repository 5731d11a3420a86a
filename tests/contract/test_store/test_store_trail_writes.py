"""Every write takes its trail along: no change without its entry, and no entry without its change."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import Job
from cronkeeper.domain.run import RunState, Trigger
from cronkeeper.errors import ConflictError, CronkeeperError, NotFoundError, StaleWriteError
from cronkeeper.ports import Cordon, JobQuery, MoveRequest, NewJob, Role, Store, Token
from cronkeeper.wire.trail import Actor, Entry
from tests.contract.test_store.builders import new_job, run

_nonces = itertools.count(1)


def entry(action: str, object_id: object = "1") -> Entry:
    return Entry(f"{next(_nonces):032x}", 1000, Actor("1", "anna", "admin"), action, "thing", str(object_id))


def noted(name: str, action: str = "job.created") -> NewJob:
    return replace(new_job(name), note=lambda job: entry(action, job.id))


def saved(store: Store) -> Job:
    return store.jobs.create(new_job("saved"))


def _create(store: Store) -> str:
    return str(store.jobs.create(noted("one", "did")).id)


def _replace(store: Store) -> str:
    job = saved(store)
    store.jobs.replace(replace(job, generation=2), expected_generation=1, trail=[entry("did")])
    return "1"


def _save_many(store: Store) -> str:
    job = saved(store)
    store.jobs.save_many([], [(replace(job, generation=2), 1)], [], trail=[entry("did")])
    return "1"


def _delete(store: Store) -> str:
    assert store.jobs.delete(saved(store).id, trail=[entry("did")])
    return "1"


def _request(store: Store) -> str:
    store.runs.request(run(state=RunState.PENDING, trigger=Trigger.MANUAL), trail=[entry("did")])
    return "1"


def _cancel(store: Store) -> str:
    pending = run(state=RunState.PENDING, trigger=Trigger.MANUAL)
    store.runs.request(pending)
    store.runs.request_cancel(pending.key, trail=[entry("did")])
    return "1"


def _move(store: Store) -> str:
    store.move_requests.add([MoveRequest(TaskId(1, 0), "w1", 5)], trail=[entry("did")])
    return "1"


def _cordon(store: Store) -> str:
    store.cordons.save(Cordon("w1", True, False, 5), trail=[entry("did")])
    return "1"


def _reseal(store: Store) -> str:
    job = saved(store)
    # It has another envelope: nothing is done, and nothing is told.
    assert store.jobs.reseal({job.id: (b"another", b"new")}, trail=[entry("too late")]) == 0
    assert store.jobs.reseal({job.id: (job.envelope, b"new"), 99: (b"", b"new")}, trail=[entry("did")]) == 1
    assert store.jobs.get(job.id) == replace(job, envelope=b"new")
    assert store.jobs.envelopes([job.id, 99]) == {job.id: b"new"}
    return "1"


def _add_token(store: Store) -> str:
    def note(token: Token) -> Entry:
        return entry("did", token.id)

    added = store.tokens.add(name="ci", role=Role.VIEWER, digest="a" * 64, created_ms=5, expires_ms=None, note=note)
    return str(added.id)


def _revoke(store: Store) -> str:
    token = store.tokens.add(name="ci", role=Role.VIEWER, digest="a" * 64, created_ms=5, expires_ms=None)
    assert store.tokens.revoke(token.id, at_ms=70, trail=[entry("did")])
    # It was revoked before: nothing is done, and nothing is told.
    assert store.tokens.revoke(token.id, at_ms=80, trail=[entry("again")])
    return "1"


def _restore(store: Store) -> str:
    token = store.tokens.add(name="ci", role=Role.VIEWER, digest="a" * 64, created_ms=5, expires_ms=None)
    # It is not revoked: nothing is done, and nothing is told.
    assert store.tokens.restore(token.id, trail=[entry("too early")])
    assert store.tokens.revoke(token.id, at_ms=70)
    assert store.tokens.restore(token.id, trail=[entry("did")])
    assert store.tokens.find("a" * 64) == token
    return "1"


@pytest.mark.parametrize(
    "write",
    [_create, _replace, _save_many, _delete, _request, _cancel, _move, _cordon, _reseal, _add_token, _revoke, _restore],
    ids=lambda write: write.__name__.strip("_"),
)
def test_a_write_takes_its_entry_along(store: Store, write: Callable[[Store], str]) -> None:
    object_id = write(store)
    assert [(item.action, item.object_id) for item in store.trail.waiting(limit=10)] == [("did", object_id)]


def test_each_new_job_is_told_of_with_its_own_id(store: Store) -> None:
    jobs = store.jobs.save_many([noted("a"), new_job("b"), noted("c")], [], [])
    assert [item.object_id for item in store.trail.waiting(limit=10)] == [str(jobs[0].id), str(jobs[2].id)]


def _name_taken(store: Store) -> None:
    store.jobs.create(noted("saved", "did"))


def _stale(store: Store) -> None:
    [job] = store.jobs.page(JobQuery())
    store.jobs.replace(replace(job, generation=9), expected_generation=8, trail=[entry("did")])


def _one_of_many_is_stale(store: Store) -> None:
    [job] = store.jobs.page(JobQuery())
    store.jobs.save_many([noted("other", "did")], [(replace(job, generation=9), 8)], [], trail=[entry("did")])


def _no_such_job(store: Store) -> None:
    assert not store.jobs.delete(99, trail=[entry("did")])
    raise NotFoundError("it says so by False")


def _same_run(store: Store) -> None:
    pending = run(state=RunState.PENDING, trigger=Trigger.MANUAL)
    store.runs.request(pending)
    store.runs.request(replace(pending, nonce="f" * 32), trail=[entry("did")])


def _no_such_run(store: Store) -> None:
    store.runs.request_cancel(run(fire_ms=7).key, trail=[entry("did")])


def _no_such_token(store: Store) -> None:
    assert not store.tokens.revoke(99, at_ms=1, trail=[entry("did")])
    assert not store.tokens.restore(99, trail=[entry("did")])
    raise NotFoundError("it says so by False")


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (_name_taken, ConflictError),
        (_stale, StaleWriteError),
        (_one_of_many_is_stale, StaleWriteError),
        (_no_such_job, NotFoundError),
        (_same_run, ConflictError),
        (_no_such_run, NotFoundError),
        (_no_such_token, NotFoundError),
    ],
    ids=lambda item: item.__name__.strip("_"),
)
def test_a_refused_write_leaves_no_entry(
    store: Store, write: Callable[[Store], None], error: type[CronkeeperError]
) -> None:
    saved(store)
    with pytest.raises(error):
        write(store)
    assert store.trail.waiting(limit=10) == []
