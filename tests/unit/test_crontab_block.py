"""Our block in somebody's own crontab: everything else survives to the byte."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cronkeeper_worker.crontab_file import join, split
from cronkeeper_worker.crontab_form import HEADER

OURS = HEADER.encode() + b"# tasks 1/0\n5 * * * * /var/bin/fire 42\n"
BLOCK = b"# BEGIN cronkeeper\n" + OURS + b"# END cronkeeper\n"


@pytest.mark.parametrize(
    ("content", "others"),
    [
        (b"", b""),
        (b"MAILTO=me\n@reboot run\n", b"MAILTO=me\n@reboot run\n"),
        (BLOCK, b""),
        (b"1 2 3 4 5 a\n" + BLOCK + b"6 7 8 9 1 b\n", b"1 2 3 4 5 a\n6 7 8 9 1 b\n"),
        (BLOCK.replace(b"# END cronkeeper\n", b"1 2 3 4 5 a\n"), b"1 2 3 4 5 a\n"),
        (BLOCK.replace(b"# tasks", b"7 * * * * mine\n# tasks"), b"7 * * * * mine\n"),
        (BLOCK + BLOCK, b""),
        (b"# END cronkeeper\n", b""),
    ],
)
def test_our_lines_are_told_from_all_others(content: bytes, others: bytes) -> None:
    assert split(content)[0] == others


def test_our_own_lines_outside_of_our_block_are_somebody_elses() -> None:
    assert split(OURS) == (OURS, b"")


@given(st.binary(max_size=400) | st.text(alphabet="#\r\n *a1", max_size=60).map(str.encode))
@example(b"no end")
@example(b"a\r\nb\r\n")
@example(b"a\rb\x0b\x0c\x1c\x85\n")
@example(b"\xff\xfe\x00\n\n\n")
@example(b"1 2 3 4 5 x\n" * 10_000)
def test_everything_else_survives_to_the_byte(content: bytes) -> None:
    if b"# BEGIN cronkeeper" in content or b"# END cronkeeper" in content:
        return
    written = join(content, OURS)
    others, ours = split(written)
    assert ours == OURS
    # A last line without an end gets one, which crontab(1) demands anyway.
    assert others == content + (b"\n" if content and not content.endswith(b"\n") else b"")
    assert join(others, b"") == others
    assert join(others, ours) == written
