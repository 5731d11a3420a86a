"""One fleet for all trials of a session; each leaves it well, and without its jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet
from tests.faults.trial import Bounds, Trial
from tests.harness.hosts import namespaces_in_use

MakeTrial = Callable[..., Trial]


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """A light fleet on a network of its own."""
    with Fleet() as running:
        yield running
        inodes = running.network.inodes()
    assert not inodes & namespaces_in_use(), "a process of the fleet is left"


@pytest.fixture
def trial(fleet: Fleet, tmp_path: Path) -> Iterator[Trial]:
    """A trial on the shared fleet, already begun; the test thread is in the fleet's network."""
    with Trial(fleet, tmp_path / "history") as begun:
        yield begun


@pytest.fixture
def make_trial(fleet: Fleet, tmp_path: Path) -> Iterator[MakeTrial]:
    """The same, for a test that needs other bounds or a seed of its own: call it with them."""
    with ExitStack() as stack:

        def make(*, seed: int | None = None, bounds: Bounds | None = None) -> Trial:
            return stack.enter_context(Trial(fleet, tmp_path / "history", seed=seed, bounds=bounds))

        yield make
