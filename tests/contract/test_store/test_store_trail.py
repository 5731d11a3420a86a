"""The audit trail: an inbox for entries, and the chain that a leader makes of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from cronkeeper.errors import FencedError, StaleWriteError
from cronkeeper.ports import Store, TrailQuery
from cronkeeper.wire.trail import ORIGIN, Actor, Entry, Link, check, link_all

_nonces = itertools.count(1)
ANNA = Actor("1", "anna", "admin", "192.0.2.7", "req-1")
BEN = Actor("2", "ben", "operator", "2001:db8::1", "req-2")


def entry(action: str = "job.created", *, actor: Actor = ANNA, object_id: str = "1", at_ms: int = 1000) -> Entry:
    nonce = f"{next(_nonces):032x}"
    return Entry(
        nonce, at_ms, actor, action, action.partition(".")[0], object_id, "default", "", '{"name":"Größe \U0001f600"}'
    )


def linked(store: Store, *entries: Entry) -> list[Link]:
    """Link the entries behind what there is, as a leader does."""
    store.trail.record(entries)
    term = store.terms.take("m1")
    links = link_all(store.trail.waiting(limit=100), store.trail.head())
    store.trail.link(links, term=term)
    return links


def test_an_entry_waits_until_it_is_linked(store: Store) -> None:
    first, second = entry(), entry("job.paused", actor=BEN)
    store.trail.record([first])
    store.trail.record([second])
    assert store.trail.waiting(limit=10) == [first, second]
    assert store.trail.waiting(limit=1) == [first]
    assert store.trail.head() is None
    assert store.trail.page(TrailQuery()) == []

    links = linked(store)
    assert [(item.seq, item.entry) for item in links] == [(1, first), (2, second)]
    assert store.trail.waiting(limit=10) == []
    assert store.trail.page(TrailQuery()) == links
    assert store.trail.head() == links[-1]
    assert check(store.trail.page(TrailQuery()), seq=1, prev_hash=ORIGIN) is None


def test_an_entry_recorded_twice_is_one_entry(store: Store) -> None:
    one = entry()
    store.trail.record([one])
    store.trail.record([one, entry()])
    store.trail.record([])
    assert len(store.trail.waiting(limit=10)) == 2


def test_an_entry_that_comes_again_after_it_was_linked_is_known(store: Store) -> None:
    one, other = entry(), entry()
    linked(store, one)
    store.trail.record([one, other])
    assert store.trail.linked([one.nonce, other.nonce]) == {one.nonce}
    store.trail.forget([one.nonce], term=store.terms.take("m1"))
    assert store.trail.waiting(limit=10) == [other]


def test_linking_the_same_again_changes_nothing(store: Store) -> None:
    links = linked(store, entry(), entry())
    store.trail.link(links, term=store.terms.take("m1"))
    store.trail.link([], term=0)
    assert store.trail.page(TrailQuery()) == links


def test_links_fit_the_newest_one_only(store: Store) -> None:
    linked(store, entry())
    head = store.trail.head()
    assert head is not None
    term = store.terms.take("m1")
    for before in (None, replace(head, hash="f" * 64), replace(head, seq=2)):
        with pytest.raises(StaleWriteError):
            store.trail.link(link_all([entry()], before), term=term)
    assert store.trail.page(TrailQuery()) == [head]


def test_only_the_newest_leader_links_and_cuts(store: Store) -> None:
    one = entry()
    store.trail.record([one])
    old = store.terms.take("m1")
    store.terms.take("m2")
    with pytest.raises(FencedError):
        store.trail.link(link_all([one], None), term=old)
    with pytest.raises(FencedError):
        store.trail.forget([one.nonce], term=old)
    with pytest.raises(FencedError):
        store.trail.cut(10, limit=10, term=old)
    assert store.trail.waiting(limit=10) == [one]
    assert store.trail.head() is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param(TrailQuery(), [1, 2, 3, 4], id="everything"),
        pytest.param(TrailQuery(after=2), [3, 4], id="what comes after"),
        pytest.param(TrailQuery(limit=3), [1, 2, 3], id="so many"),
        pytest.param(TrailQuery(actor="ben"), [2, 4], id="of one actor"),
        pytest.param(TrailQuery(action="job.paused"), [2, 3], id="of one action"),
        pytest.param(TrailQuery(kind="worker"), [4], id="of one kind of object"),
        pytest.param(TrailQuery(kind="job", object_id="1"), [1, 3], id="of one object"),
        pytest.param(TrailQuery(from_ms=2000), [2, 3, 4], id="from an instant on"),
        pytest.param(TrailQuery(from_ms=2000, to_ms=3000), [2, 3], id="between two instants"),
        pytest.param(TrailQuery(actor="anna", action="job.paused", after=1, limit=1), [3], id="all at once"),
    ],
)
def test_links_are_found(store: Store, query: TrailQuery, found: list[int]) -> None:
    linked(
        store,
        entry(at_ms=1000),
        entry("job.paused", actor=BEN, object_id="2", at_ms=2000),
        entry("job.paused", at_ms=3000),
        entry("worker.cordoned", actor=BEN, object_id="w1", at_ms=4000),
    )
    assert [item.seq for item in store.trail.page(query)] == found


def test_the_oldest_links_are_cut_in_pieces(store: Store) -> None:
    links = linked(store, *(entry(at_ms=at_ms) for at_ms in (1000, 3000, 2000, 4000)))
    assert store.trail.since(2500) == links[1]
    assert store.trail.since(5000) is None
    term = store.terms.take("m1")
    assert store.trail.cut(4, limit=2, term=term) == 2
    assert store.trail.cut(4, limit=2, term=term) == 1
    assert store.trail.cut(4, limit=2, term=term) == 0
    assert store.trail.page(TrailQuery()) == links[3:]
    assert store.trail.head() == links[3]
