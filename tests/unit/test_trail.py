"""The audit trail's chain: what is altered shows, and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from cronkeeper.errors import WireFormatError
from cronkeeper.wire.trail import (
    CUT,
    ORIGIN,
    Actor,
    Anchor,
    Entry,
    Fault,
    Link,
    allows_first,
    check,
    check_anchor,
    cut_text,
    decode_anchor,
    encode_anchor,
    link,
    link_all,
    text_of,
)

ANNA = Actor("1", "anna", "admin", "192.0.2.7", "req-1")


def entry(number: int, action: str = "job.created") -> Entry:
    return Entry(f"{number:032x}", 1000 * number, ANNA, action, "job", str(number), "default", "", '{"name":"x"}')


def chain(length: int = 6) -> list[Link]:
    return link_all([entry(number) for number in range(1, length + 1)], None)


def faults(links: list[Link]) -> Fault | None:
    return check(links, seq=1, prev_hash=ORIGIN)


def test_a_chain_as_it_was_made_is_good() -> None:
    links = chain()
    assert [item.seq for item in links] == [1, 2, 3, 4, 5, 6]
    assert faults(links) is None
    assert check(links[2:], seq=3, prev_hash=links[1].hash) is None
    assert check([], seq=1, prev_hash=ORIGIN) is None


def test_an_entry_is_chained_the_same_way_whoever_does_it() -> None:
    # Written down once: whoever changes the format must say so by a new version.
    assert chain(1)[0].hash == "40ef8dd2e0db3ac1686a993526e93eb4bc614148593f7fba86fa3df770e44903"
    assert link_all([entry(2)], chain(1)[0]) == [chain(2)[1]]


ALTERED: list[tuple[str, Callable[[Entry], Entry]]] = [
    ("its instant", lambda e: replace(e, at_ms=e.at_ms + 1)),
    ("who did it", lambda e: replace(e, actor=replace(e.actor, name="ben"))),
    ("by which token", lambda e: replace(e, actor=replace(e.actor, token="2"))),
    ("in which role", lambda e: replace(e, actor=replace(e.actor, role="viewer"))),
    ("from where", lambda e: replace(e, actor=replace(e.actor, source="192.0.2.8"))),
    ("by which request", lambda e: replace(e, actor=replace(e.actor, request_id="x"))),
    ("what was done", lambda e: replace(e, action="job.paused")),
    ("to what kind", lambda e: replace(e, kind="run")),
    ("to which", lambda e: replace(e, object_id="9")),
    ("in which namespace", lambda e: replace(e, namespace="other")),
    ("what was", lambda e: replace(e, old="{}")),
    ("what became of it", lambda e: replace(e, new='{"name":"y"}')),
    ("its nonce", lambda e: replace(e, nonce="f" * 32)),
    ("a letter from one field to the next", lambda e: replace(e, kind="jo", object_id="b" + e.object_id)),
]


@pytest.mark.parametrize(("case", "alter"), ALTERED, ids=[case for case, _ in ALTERED])
def test_a_changed_entry_is_named(case: str, alter: Callable[[Entry], Entry]) -> None:
    links = chain()
    links[3] = replace(links[3], entry=alter(links[3].entry))
    assert faults(links) == Fault(4, "its content is not what was linked")


def test_an_entry_changed_with_its_hash_shows_at_the_next_one() -> None:
    links = chain()
    links[3] = link(replace(links[3].entry, new="{}"), links[2])
    assert faults(links) == Fault(5, "it does not follow the one before it")


@pytest.mark.parametrize("gone", range(1, 6))
def test_an_entry_taken_out_is_named(gone: int) -> None:
    found = faults([item for item in chain() if item.seq != gone])
    assert found == Fault(gone, f"it is missing: the next one is {gone + 1}")


def test_an_entry_put_in_is_named() -> None:
    links = chain()
    inside = [*links[:3], link(entry(99), links[2]), *[replace(item, seq=item.seq + 1) for item in links[3:]]]
    assert faults(inside) == Fault(5, "it does not follow the one before it")


def test_entries_in_another_order_are_named() -> None:
    links = chain()
    links[2], links[3] = replace(links[2], entry=links[3].entry), replace(links[3], entry=links[2].entry)
    assert faults(links) == Fault(3, "its content is not what was linked")


def anchor_of(item: Link) -> Anchor:
    return Anchor(item.seq, item.hash, 5000)


def test_an_anchor_shows_that_the_end_was_cut_off() -> None:
    links = chain()
    anchor = anchor_of(links[4])
    assert check_anchor(anchor, links[5], links[4]) is None
    assert check_anchor(anchor, links[4], links[4]) is None
    assert check_anchor(anchor, links[3], None) == Fault(5, "the chain ends at 4, and it was 5 long")
    assert check_anchor(anchor, None, None) == Fault(1, "the chain ends at 0, and it was 5 long")
    assert check_anchor(Anchor(0, ORIGIN, 0), None, None) is None


def test_an_anchor_shows_that_the_chain_was_made_anew() -> None:
    links = chain()
    anew = link_all([replace(item.entry, new="{}") for item in links], None)
    assert faults(anew) is None
    found = check_anchor(anchor_of(links[4]), anew[5], anew[4])
    assert found is not None and found.seq == 5


def test_a_chain_begins_at_one_or_where_a_cut_has_left_it() -> None:
    links = chain()
    fourth, anchor = links[3], replace(anchor_of(links[5]), floor=4, floor_hash=links[2].hash)
    cut = replace(entry(7, CUT), new=cut_text(4, links[2].hash))
    assert allows_first(links[0], anchor=None, cuts=[])
    assert allows_first(links[0], anchor=anchor, cuts=[])
    assert allows_first(fourth, anchor=anchor, cuts=[])
    # Not all below the floor need be gone yet.
    assert allows_first(links[2], anchor=anchor, cuts=[])
    assert allows_first(fourth, anchor=None, cuts=[cut])

    assert not allows_first(fourth, anchor=None, cuts=[])
    assert not allows_first(fourth, anchor=anchor_of(links[5]), cuts=[cut])
    assert not allows_first(links[4], anchor=anchor, cuts=[cut])
    assert not allows_first(links[4], anchor=None, cuts=[cut])
    assert not allows_first(replace(fourth, prev_hash="f" * 64), anchor=anchor, cuts=[cut])
    assert not allows_first(replace(fourth, prev_hash="f" * 64), anchor=None, cuts=[cut])
    assert not allows_first(replace(links[0], prev_hash="f" * 64), anchor=None, cuts=[])


def test_nobody_but_the_leader_writes_in_the_leader_s_name() -> None:
    [found] = link_all([entry(1, CUT)], None)
    assert found.entry.action == "forged.trail.cut"
    assert not allows_first(Link(4, entry(4), "e" * 64, ""), anchor=None, cuts=[found.entry])


def test_an_anchor_is_read_as_it_was_written() -> None:
    anchor = Anchor(7, "a" * 64, 1000, 3, "b" * 64)
    assert decode_anchor(encode_anchor(anchor)) == anchor


@pytest.mark.parametrize("raw", [b"", b"7", b"{}", b'{"v":1}', b'{"v":2,"seq":1}', b'{"v":1,"seq":[]}', b"[" * 9999])
def test_an_anchor_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(WireFormatError):
        decode_anchor(raw)


def test_values_of_the_environment_are_left_out() -> None:
    text = text_of({"env": {"PGPASSWORD": "hunter2", "KEY": {"secret": "pg"}}, "name": "x"})
    assert json.loads(text) == {"env": {"PGPASSWORD": "***", "KEY": {"secret": "pg"}}, "name": "x"}


def test_what_is_long_is_told_by_its_hash() -> None:
    told = json.loads(text_of({"executable": "x" * 5000, "name": "y"}))
    assert told["name"] == "y"
    assert told["executable"]["bytes"] == 5002 and len(told["executable"]["sha256"]) == 64
    assert len(text_of({f"field{number}": "x" * 4000 for number in range(100)})) < 200
    assert text_of(None) == ""
