"""Whoever may write in the database alters the audit trail by SQL: the first entry that is not right is named."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from sqlalchemy import create_engine

from cronkeeper.ports import Store, TrailQuery
from cronkeeper.store import open_store
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.wire.codec import dumps
from cronkeeper.wire.trail import Actor, Anchor, Entry, link_all
from cronkeeper.wire.znodes import LeaderNote
from cronkeeper_manager.service.trail import Trail

_nonces = itertools.count(1)
COPIED = (
    "`nonce`, `at_ms`, `actor_token`, `actor_name`, `actor_role`, `source`, `request_id`, `action`, `kind`, "
    "`object_id`, `namespace`, `old`, `new`, `prev_hash`, `hash`"
)
#: What is done, and what is then said. Eight entries are linked, seven of them anchored.
ATTACKS: dict[str, tuple[list[str], str]] = {
    "an action is changed": (["UPDATE trail SET action = 'job.paused' WHERE seq = 3"], "3: its content"),
    "somebody else is named": (["UPDATE trail SET actor_name = 'ben' WHERE seq = 1"], "1: its content"),
    "another address is named": (["UPDATE trail SET source = '192.0.2.1' WHERE seq = 8"], "8: its content"),
    "what was done is emptied": (["UPDATE trail SET `old` = '', `new` = '' WHERE seq = 5"], "5: its content"),
    "the time is moved": (["UPDATE trail SET at_ms = at_ms + 1 WHERE seq = 4"], "4: its content"),
    "a hash is changed": (["UPDATE trail SET hash = SUBSTR(hash, 2) WHERE seq = 4"], "4: its content"),
    "one is taken out": (["DELETE FROM trail WHERE seq = 4"], "4: it is missing"),
    "the first are taken out": (["DELETE FROM trail WHERE seq < 3"], "1: the chain begins at 3"),
    "one is taken out and the gap is closed": (
        ["DELETE FROM trail WHERE seq = 4", *(f"UPDATE trail SET seq = {n - 1} WHERE seq = {n}" for n in (5, 6, 7, 8))],
        "4: it does not follow",
    ),
    "one is put in": (
        [
            *(f"UPDATE trail SET seq = {n + 1} WHERE seq = {n}" for n in (8, 7, 6, 5)),
            f"INSERT INTO trail (seq, {COPIED}) SELECT 5, "
            + COPIED.replace("`nonce`", "'f'")
            + " FROM trail WHERE seq = 2",
        ],
        "5: it does not follow",
    ),
    "two change places": (
        [
            "UPDATE trail SET seq = 99 WHERE seq = 3",
            "UPDATE trail SET seq = 3 WHERE seq = 4",
            "UPDATE trail SET seq = 4 WHERE seq = 99",
        ],
        "3: it does not follow",
    ),
    "the end is cut off": (["DELETE FROM trail WHERE seq > 5"], "6: the chain ends at 5, and it was 7 long"),
    "all is removed": (["DELETE FROM trail"], "1: the chain ends at 0, and it was 7 long"),
    "what the anchor does not know yet is cut off": (["DELETE FROM trail WHERE seq = 8"], ""),
}


def entry() -> Entry:
    number = next(_nonces)
    return Entry(
        f"{number:032x}", 1000 + number, Actor("1", "anna", "admin", "192.0.2.7"), "job.created", "job", "1", new="{}"
    )


def linked_and_anchored(store: Store) -> Trail:
    store.trail.record([entry() for _ in range(8)])
    links = link_all(store.trail.waiting(limit=10), None)
    store.trail.link(links, term=store.terms.take("m1"))
    coordinator = MemoryCoordinator(MemoryEnsemble(), "m1")
    coordinator.start(1.0)
    coordinator.ensure_layout()
    coordinator.campaign(LeaderNote("m1", "", 1))
    leadership = coordinator.leadership()
    assert leadership is not None
    coordinator.anchor_trail(Anchor(7, links[6].hash, 5000), leadership)
    return Trail(store.trail, coordinator)


def said(trail: Trail, limit: int) -> str:
    """Check the trail in pieces, as the command line does."""
    after = 0
    while True:
        found = trail.check(after=after, limit=limit)
        if found.fault is not None:
            return f"{found.fault.seq}: {found.fault.why}"
        if found.done:
            return ""
        after = found.through


@pytest.mark.parametrize("limit", [100, 2])
@pytest.mark.parametrize(("attack", "answer"), ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_what_is_altered_is_named(
    request: pytest.FixtureRequest, kind: str, attack: list[str], answer: str, limit: int
) -> None:
    url = request.getfixturevalue(f"{kind}_store_url")
    store = open_store(url)
    trail = linked_and_anchored(store)
    assert said(trail, limit) == ""
    engine = create_engine(url)
    with engine.begin() as conn:
        for statement in attack:
            conn.exec_driver_sql(statement)
    engine.dispose()
    found = said(trail, limit)
    store.close()
    assert found.startswith(answer) if answer else found == ""


def test_a_chain_made_anew_with_all_hashes_right_is_named_by_its_anchor(sqlite_store_url: str) -> None:
    store = open_store(sqlite_store_url)
    trail = linked_and_anchored(store)
    anew = link_all(
        [replace(link.entry, new=dumps({"x": 1}).decode()) for link in store.trail.page(TrailQuery())], None
    )
    engine = create_engine(sqlite_store_url)
    with engine.begin() as conn:
        for link in anew:
            conn.exec_driver_sql(
                "UPDATE trail SET `new` = ?, prev_hash = ?, hash = ? WHERE seq = ?",
                (link.entry.new, link.prev_hash, link.hash, link.seq),
            )
    engine.dispose()
    found = said(trail, 100)
    store.close()
    assert found == "7: it is not the one that was anchored: the chain was made anew up to here"
