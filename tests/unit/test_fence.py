"""The fence around the unit tests stands: see tests/conftest.py."""

from __future__ import annotations

import socket
import time

import pytest


def test_a_unit_test_cannot_open_a_socket() -> None:
    with pytest.raises(AssertionError, match="must not open a socket"):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="must not open a socket"):
        socket.socketpair()


def test_a_unit_test_cannot_sleep() -> None:
    with pytest.raises(AssertionError, match="must not sleep"):
        time.sleep(0)


def test_every_unit_test_wears_the_mark_of_its_folder(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("unit") is not None
    assert request.node.get_closest_marker("integration") is None
