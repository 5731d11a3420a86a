from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cronkeeper.runtime.collector import without_collector


@pytest.fixture(autouse=True)
def _enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_the_collector_rests_until_the_last_one_has_left() -> None:
    with without_collector():
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_is_back_after_an_error() -> None:
    with suppress(ValueError), without_collector():
        raise ValueError
    assert gc.isenabled()
