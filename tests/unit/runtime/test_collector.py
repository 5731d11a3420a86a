from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cronkeeper.runtime import collector
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


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_where_one_comes_before_the_other_goes_garbage_is_collected_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients that apply one after the other, for hours, must not have the server grow."""
    monkeypatch.setattr(collector, "RESTS_S", -1.0)
    garbage = weakref.ref(_Cycle())
    under_way = without_collector()
    under_way.__enter__()
    try:
        following = without_collector()
        following.__enter__()
        under_way.__exit__(None, None, None)
        under_way = following
        assert (garbage(), gc.isenabled()) == (None, False)
    finally:
        under_way.__exit__(None, None, None)
    assert gc.isenabled()


def test_one_that_is_not_long_under_way_is_not_disturbed() -> None:
    garbage = weakref.ref(_Cycle())
    with without_collector():
        with without_collector():
            pass
        assert garbage() is not None
