"""Whoever dies within a transaction, without a word, keeps nothing locked."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from cronkeeper.store.driver_errors import Trouble, classify
from cronkeeper.store.engine import make_engine

_MOVE = "UPDATE term SET beat = beat + 1 WHERE id = 1"


def test_the_locks_of_a_client_that_fell_silent_are_given_back(mariadb_store_url: str) -> None:
    silent, other = make_engine(mariadb_store_url, pool_size=1), make_engine(mariadb_store_url, pool_size=1)
    try:
        with silent.connect() as dead, other.connect() as alive:
            dead.exec_driver_sql("START TRANSACTION")
            assert dead.exec_driver_sql(_MOVE).rowcount == 1
            # It waits until the server gives the other one up: its own patience for a lock is a second longer.
            assert alive.exec_driver_sql(_MOVE).rowcount == 1
            assert alive.exec_driver_sql("SELECT beat FROM term WHERE id = 1").scalar_one() == 1
            with pytest.raises(DBAPIError) as caught:
                dead.exec_driver_sql(_MOVE)
            assert classify(caught.value) is Trouble.LOST
    finally:
        silent.dispose()
        other.dispose()
