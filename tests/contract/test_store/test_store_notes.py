"""Tokens, remembered answers and events."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from cronkeeper.domain.scope import EVERYWHERE, NOWHERE, scope_of
from cronkeeper.errors import ConflictError
from cronkeeper.ports import Event, Idempotency, IdempotencyResult, Role, Store
from tests.contract.test_store.builders import begin, taken

DAY_MS = 24 * 3600 * 1000


def digest(number: int) -> str:
    return f"{number:064x}"


def test_a_token_is_found_by_its_digest(store: Store) -> None:
    token = store.tokens.add(name="ci", role=Role.OPERATOR, digest=digest(1), created_ms=5, expires_ms=DAY_MS)
    other = store.tokens.add(name="ci", role=Role.ADMIN, digest=digest(2), created_ms=6, expires_ms=None)
    assert (token.name, token.role, token.digest, token.created_ms) == ("ci", Role.OPERATOR, digest(1), 5)
    assert (token.expires_ms, token.revoked_ms, other.expires_ms) == (DAY_MS, None, None)
    assert store.tokens.find(digest(1)) == token
    assert store.tokens.find(digest(3)) is None
    assert store.tokens.all() == [token, other]


def test_adding_the_same_token_again_is_safe_and_another_with_its_secret_is_refused(store: Store) -> None:
    token = store.tokens.add(name="ci", role=Role.VIEWER, digest=digest(1), created_ms=5, expires_ms=None)
    assert store.tokens.add(name="ci", role=Role.VIEWER, digest=digest(1), created_ms=5, expires_ms=None) == token
    with pytest.raises(ConflictError):
        store.tokens.add(name="other", role=Role.ADMIN, digest=digest(1), created_ms=5, expires_ms=None)
    assert store.tokens.all() == [token]


def test_a_token_is_revoked_once(store: Store) -> None:
    token = store.tokens.add(name="ci", role=Role.VIEWER, digest=digest(1), created_ms=5, expires_ms=None)
    assert store.tokens.revoke(token.id, at_ms=70)
    assert store.tokens.revoke(token.id, at_ms=80)
    assert not store.tokens.revoke(token.id + 1, at_ms=80)
    found = store.tokens.find(digest(1))
    assert found is not None and found.revoked_ms == 70


def test_a_token_keeps_its_namespaces(store: Store) -> None:
    everything = store.tokens.add(name="a", role=Role.VIEWER, digest=digest(1), created_ms=5, expires_ms=None)
    scope = scope_of([f"team-{number}-{'x' * 50}" for number in range(50)])
    some = store.tokens.add(name="b", role=Role.VIEWER, digest=digest(2), created_ms=5, expires_ms=None, scope=scope)
    none = store.tokens.add(name="c", role=Role.VIEWER, digest=digest(3), created_ms=5, expires_ms=None, scope=NOWHERE)
    assert [token.scope for token in (everything, some, none)] == [EVERYWHERE, scope, NOWHERE]
    assert store.tokens.all() == [everything, some, none]
    assert store.tokens.find(digest(2)) == some
    with pytest.raises(ConflictError):
        store.tokens.add(name="b", role=Role.VIEWER, digest=digest(2), created_ms=5, expires_ms=None)


def test_an_answer_is_replayed(store: Store) -> None:
    request = taken(begin(store))
    assert begin(store) == IdempotencyResult(Idempotency.IN_FLIGHT)
    store.idempotency.finish(request, status=201, body=b'{"id": "1"}\x00\xff')
    for _ in range(2):
        assert begin(store, now_ms=2000) == IdempotencyResult(Idempotency.REPLAY, 201, b'{"id": "1"}\x00\xff')


def test_a_key_belongs_to_its_scope_and_its_body(store: Store) -> None:
    begin(store)
    assert begin(store, body="b2").outcome is Idempotency.MISMATCH
    assert begin(store, scope="t2 POST /jobs").outcome is Idempotency.NEW
    # The same letters, divided otherwise.
    assert store.idempotency.begin("t1 POST /jobsk", "ey", body_digest="b1", now_ms=1).outcome is Idempotency.NEW


def test_scope_and_key_may_be_long(store: Store) -> None:
    scope = "t1 POST /" + "x" * 3000
    assert begin(store, scope=scope).outcome is Idempotency.NEW
    assert begin(store, scope=scope + "y").outcome is Idempotency.NEW
    assert begin(store, scope=scope).outcome is Idempotency.IN_FLIGHT


def test_an_abandoned_key_is_new_again_but_a_finished_one_is_not(store: Store) -> None:
    store.idempotency.abandon(taken(begin(store)))
    request = taken(begin(store))
    store.idempotency.finish(request, status=201, body=b"")
    store.idempotency.abandon(request)
    assert begin(store).outcome is Idempotency.REPLAY


def test_a_key_is_forgotten_after_a_day(store: Store) -> None:
    store.idempotency.finish(taken(begin(store, now_ms=1000)), status=201, body=b"")
    assert begin(store, now_ms=1000 + DAY_MS - 1).outcome is Idempotency.REPLAY
    assert begin(store, now_ms=1000 + DAY_MS).outcome is Idempotency.NEW


def test_of_many_equal_requests_one_is_new(store: Store) -> None:
    start = threading.Barrier(6)

    def race(_: int) -> Idempotency:
        start.wait()
        return begin(store).outcome

    with ThreadPoolExecutor(6) as pool:
        outcomes = Counter(pool.map(race, range(6)))
    assert outcomes == {Idempotency.NEW: 1, Idempotency.IN_FLIGHT: 5}


def test_events_come_newest_first(store: Store) -> None:
    events = [
        Event(1, "worker.lost", "w1", "no sign for 8 s"),
        Event(3, "run.double", "1-0-60000-1", "w1 and w2"),
        Event(2, "worker.lost", "w2", "Größe \U0001f600"),
        Event(3, "worker.lost", "w1", "again"),
    ]
    store.events.add(events)
    newest_first = [events[index] for index in (1, 3, 2, 0)]
    found = store.events.latest(limit=10)
    assert sorted(found[:2], key=lambda event: event.kind) == newest_first[:2]
    assert found[2:] == newest_first[2:]
    assert store.events.latest(limit=1, kind="worker.lost") == [events[3]]
    assert store.events.latest(limit=10, kind="worker.lost", subject="w1") == [events[3], events[0]]
    assert store.events.latest(limit=10, subject="nobody") == []
    assert store.events.latest(limit=2, skip=1) == found[1:3]
    lost = store.events.latest(limit=10, kind="worker.lost")
    assert store.events.latest(limit=10, kind="worker.lost", skip=1) == lost[1:] != []
    assert store.events.latest(limit=10, skip=len(found)) == []


def test_an_event_told_twice_is_one_event(store: Store) -> None:
    event = Event(1, "worker.lost", "w1", "x")
    store.events.add([event])
    store.events.add([event, Event(2, "worker.lost", "w1", "x")])
    store.events.add([])
    assert len(store.events.latest(limit=10)) == 2


def test_purge_takes_old_events_and_answers_along(store: Store) -> None:
    store.events.add([Event(1, "a.b", "x", ""), Event(100, "a.b", "x", "")])
    begin(store, now_ms=1)
    store.runs.purge(before_ms=50, limit=10)
    assert [event.at_ms for event in store.events.latest(limit=10)] == [100]
    assert begin(store, now_ms=60).outcome is Idempotency.NEW
