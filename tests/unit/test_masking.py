"""Known values in the output of runs: masked wherever the stream is cut, and nothing else is touched."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cronkeeper_worker.masking import MASK, MIN_BYTES, Masker, patterns

SECRET = b"p4ss/w+rd =\xc3\xa9!"


def masked(forms: tuple[bytes, ...], pieces: list[bytes]) -> bytes:
    masker = Masker(forms)
    return b"".join([*(masker.feed(piece) for piece in pieces), masker.finish()])


def covered(forms: tuple[bytes, ...], text: bytes) -> bytes:
    """The definition, in the plainest way: each byte that any form covers, with what overlaps as one."""
    spans = sorted(
        (at, at + len(form)) for form in forms if form for at in range(len(text)) if text.startswith(form, at)
    )
    merged: list[list[int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    out, at = b"", 0
    for start, end in merged:
        out += text[at:start] + MASK
        at = end
    return out + text[at:]


#: Few letters, so that forms overlap, repeat and begin alike all the time.
LETTERS = st.binary(max_size=40).map(lambda raw: bytes(b"ab"[byte % 2] for byte in raw))
FORMS = st.lists(LETTERS.filter(bool).map(lambda text: text[:12]), min_size=1, max_size=4).map(tuple)


@given(FORMS, st.lists(LETTERS, max_size=8))
@example((b"aaa",), [b"aa", b"aaaa", b"a"])
@example((b"ab", b"aba"), [b"ab", b"a"])
@example((b"abab", b"babb"), [b"ab", b"ab", b"b"])
def test_however_the_stream_is_cut_the_same_is_masked(forms: tuple[bytes, ...], pieces: list[bytes]) -> None:
    assert masked(forms, pieces) == covered(forms, b"".join(pieces))


@given(st.binary(min_size=MIN_BYTES, max_size=60), st.binary(max_size=50), st.binary(max_size=50), st.data())
def test_a_value_never_comes_through(value: bytes, before: bytes, after: bytes, data: st.DataObject) -> None:
    text = before + value + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    said = masked(patterns([value]), pieces)
    # The marks themselves may complete a value that is made of stars.
    assert MASK in said
    assert all(value not in part for part in said.split(MASK))


@given(st.binary(min_size=MIN_BYTES, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_a_value_is_found_in_whatever_was_encoded_with_it(value: bytes, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        line = b"Authorization: Basic " + encode(before + value + after)
        said = masked(patterns([value]), [line])
        assert MASK in said
        # At both ends the value shares a character with its neighbours; all that lies between is gone.
        assert len(said) - len(MASK) <= len(b"Authorization: Basic ") + len(encode(before + after)) + 8


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(base64.b64encode(SECRET), id="base64"),
        pytest.param(base64.urlsafe_b64encode(SECRET), id="base64 for URLs"),
        pytest.param(urllib.parse.quote(SECRET).encode(), id="quoted for a path"),
        pytest.param(urllib.parse.quote(SECRET, safe="").encode(), id="quoted for a query"),
        pytest.param(urllib.parse.quote_plus(SECRET).encode(), id="quoted for a form"),
        pytest.param(urllib.parse.quote(SECRET).lower().encode(), id="quoted in lower case"),
        pytest.param(json.dumps(SECRET.decode())[1:-1].encode(), id="in JSON, as ASCII"),
        pytest.param(json.dumps(SECRET.decode(), ensure_ascii=False)[1:-1].encode(), id="in JSON"),
    ],
)
def test_every_form_becomes_one_mask(form: bytes) -> None:
    assert masked(patterns([SECRET]), [b"<", form, b">"]) == b"<" + MASK + b">"


def test_a_line_end_at_the_end_of_a_value_makes_no_difference() -> None:
    assert masked(patterns([b"s3cret-word\n"]), [b"x s3cret-word y\n"]) == b"x *** y\n"


def test_the_lines_of_a_key_are_masked_one_by_one() -> None:
    key = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
    said = masked(patterns([key]), [b"  | " + line + b"\n" for line in key.splitlines()])
    assert said == b"  | ***\n" * 4


def test_short_values_stay_as_they_are() -> None:
    assert patterns([b"12345"]) == ()
    assert masked((), [b"12345", b""]) == b"12345"


def test_output_is_held_back_only_while_it_may_become_a_value() -> None:
    masker = Masker(patterns([b"hunter-two"]))
    assert masker.feed(b"a line without anything\nhunt") == b"a line without anything\n"
    assert masker.feed(b"ing season\n") == b"hunting season\n"
    assert masker.feed(b"hunter-tw") == b""
    assert masker.feed(b"o!") == b"***!"


@pytest.mark.parametrize("size", [64, 4096])
def test_a_flood_that_looks_like_a_value_is_held_in_bounds(size: int) -> None:
    masker = Masker((b"a" * size,))
    for _ in range(4):
        masker.feed(b"a" * 2000)
    assert len(masker.finish()) <= size
