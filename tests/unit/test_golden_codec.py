"""The golden files' format: what is written is read back, and what is no such line is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden.codec import Window, decode, encode, read_golden, write_golden

MINUTES = st.lists(st.integers(0, 40_000_000).map(lambda minute: minute * 60), max_size=50).map(sorted)


@given(fires=MINUTES)
def test_fires_come_back(fires: list[int]) -> None:
    assert decode(encode(fires)) == fires


def test_it_can_be_read_by_a_person() -> None:
    assert encode([0, 3600, 7200, 7200, 10800]) == "1970-01-01T00:00Z 60x2 0 60"


def test_a_file_comes_back(tmp_path: Path) -> None:
    golden = {Window("Europe/Berlin", 0, 86_400): {"0 0 * * *": [82_800], "*/5 2 * * *": []}}
    write_golden(tmp_path / "x.golden", ["a header"], golden)
    assert read_golden(tmp_path / "x.golden") == golden


@pytest.mark.parametrize(
    "text",
    [
        "0 0 * * * = 1970-01-01T00:00Z",
        "@ UTC 1970-01-01T00:00Z 1970-01-02T00:00Z\n0 0 * * *",
        "@ UTC 1970-01-01T00:00Z 1970-01-02T00:00Z\n0 0 * * * =\n0 0 * * * =",
        "@ UTC 1970-01-01T00:00Z",
    ],
    ids=["before any window", "without fires", "twice", "half a window"],
)
def test_what_is_no_golden_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.golden").write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        read_golden(tmp_path / "x.golden")
