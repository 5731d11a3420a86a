"""The memory double fails when, and only when, a test tells it to."""

from __future__ import annotations

import pytest

from cronkeeper.errors import UnavailableError
from cronkeeper.ports import JobQuery
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.testing.memory_store import MemoryStore
from tests.contract.test_store.builders import new_job, run


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(SystemClock())


def test_a_store_that_is_away_keeps_what_it_has(store: MemoryStore) -> None:
    job = store.jobs.create(new_job("a"))
    store.set_available(False)
    for call in (store.ping, lambda: store.jobs.page(JobQuery()), lambda: store.runs.claim([run()])):
        with pytest.raises(UnavailableError):
            call()
    store.set_available(True)
    assert store.jobs.page(JobQuery()) == [job]
    assert store.runs.history(1, limit=10) == []


def test_a_failure_is_for_the_next_calls_of_one_method(store: MemoryStore) -> None:
    store.fail_next("runs.claim", count=2)
    store.ping()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            store.runs.claim([run()])
    assert all(store.runs.claim([run()]).values())
    assert (store.calls("runs.claim"), store.calls("ping"), store.calls()) == (3, 1, 4)


def test_a_failure_may_be_for_whatever_comes_next(store: MemoryStore) -> None:
    store.fail_next()
    with pytest.raises(UnavailableError):
        store.events.latest(limit=1)
    store.ping()


def test_a_lost_answer_is_to_a_write_that_happened(store: MemoryStore) -> None:
    mine = run()
    store.fail_next("runs.claim", landed=True)
    with pytest.raises(UnavailableError):
        store.runs.claim([mine])
    assert store.runs.get(mine.key) == mine
    assert store.runs.claim([mine]) == {mine.key: True}
