"""A save that is broken off while it is under way: all of it is saved, or nothing is, and we know which."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from pymysql.err import OperationalError
from sqlalchemy.engine import make_url

from cronkeeper.errors import UnavailableError
from cronkeeper.ports import JobQuery, Store
from cronkeeper.store import open_store
from tests.contract.test_store.builders import new_job
from tests.contract.test_store.lossy_proxy import Lose, LossyProxy
from tests.harness.mariadb import MariaDB

#: Connections with these under way; of a compound statement the server shows the part that it is at.
WAITING = "SELECT `id` FROM `information_schema`.`processlist` WHERE `db` = '{}' AND `state` LIKE 'Waiting%'"
SAVING = (
    "SELECT `id` FROM `information_schema`.`processlist`"
    " WHERE `db` = '{}' AND (`info` LIKE 'BEGIN NOT ATOMIC%' OR `info` LIKE 'INSERT INTO%')"
)
FUZZ_S = 5.0


class Server:
    """The back door to the database."""

    def __init__(self, server: MariaDB, url: str) -> None:
        self._server = server
        self.name = str(make_url(url).database)

    def ask(self, text: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._server.execute(text, self.name)]

    def ids(self, text: str) -> set[int]:
        return {int(row[0]) for row in self.ask(text)}

    def connect(self) -> Any:
        return self._server.connect(self.name)


@pytest.fixture
def server(mariadb_server: MariaDB, mariadb_store_url: str) -> Server:
    return Server(mariadb_server, mariadb_store_url)


@pytest.fixture(params=[1, 3])
def store(request: pytest.FixtureRequest, mariadb_store_url: str) -> Iterator[Store]:
    store = open_store(mariadb_store_url, pool_size=request.param)
    yield store
    store.close()


def test_a_save_that_is_broken_off_halfway_is_not_saved(store: Store, server: Server) -> None:
    store.jobs.page(JobQuery())
    locker = server.connect()
    try:
        locker.cursor().execute("LOCK TABLES `job_labels` WRITE")
        with ThreadPoolExecutor(1) as pool:
            saving = pool.submit(store.jobs.save_many, [new_job("a", labels={"k": "v"})], [], [])
            server.ask(f"KILL QUERY {_waiting(server)}")
            locker.cursor().execute("UNLOCK TABLES")
            with pytest.raises(UnavailableError):
                saving.result(60)
    finally:
        locker.close()
    for table in ("jobs", "job_labels", "job_history"):
        assert server.ask(f"SELECT * FROM `{table}`") == []
    saved = store.jobs.save_many([new_job("a", labels={"k": "v"})], [], [])
    assert store.jobs.page(JobQuery()) == saved


def _waiting(server: Server) -> int:
    deadline = time.monotonic() + 30
    while not (found := server.ask(WAITING.format(server.name))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(found[0][0])


def test_what_is_broken_off_anywhere_is_saved_or_not_as_was_said(store: Store, server: Server) -> None:
    stop, kills = threading.Event(), list[int]()

    def kill() -> None:
        with server.connect() as conn, conn.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(SAVING.format(server.name))
                for (number,) in cursor.fetchall():
                    with suppress(OperationalError):  # it has gone meanwhile
                        cursor.execute(f"KILL QUERY {number}")
                        kills.append(number)

    said, refused, end = set[int](), 0, time.monotonic() + FUZZ_S
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        try:
            while time.monotonic() < end:
                names = [f"{len(said)}-{refused}-{number}" for number in range(130 if refused % 2 else 40)]
                try:
                    saved = store.jobs.save_many([new_job(name, labels={"k": "v"}) for name in names], [], [])
                    said |= {job.id for job in saved}
                except UnavailableError:
                    refused += 1
        finally:
            stop.set()
        killing.result(30)
    assert kills
    assert server.ids("SELECT `id` FROM `jobs` WHERE `generation` = 1") == said
    assert server.ids("SELECT `id` FROM `jobs`") == said, "a placeholder was committed"
    for table in ("job_labels", "job_history"):
        assert server.ids(f"SELECT `job_id` FROM `{table}`") == said, table


@pytest.mark.parametrize("what", [Lose.ANSWER, Lose.QUESTION])
def test_jobs_that_were_only_removed_are_known_to_be_removed_or_not(
    server: Server, mariadb_server: MariaDB, mariadb_store_url: str, store: Store, what: Lose
) -> None:
    jobs = store.jobs.save_many([new_job(f"j{number}") for number in range(3)], [], [])
    removed = [job.id for job in jobs[:2]]
    with LossyProxy(mariadb_server.port) as proxy:
        url = make_url(mariadb_store_url).set(port=proxy.port)
        through = open_store(url.render_as_string(hide_password=False))
        through.jobs.page(JobQuery())
        proxy.lose(what, "; COMMIT; END")
        if what is Lose.QUESTION:
            with pytest.raises(UnavailableError):
                through.jobs.save_many([], [], removed)
        else:
            assert through.jobs.save_many([], [], removed) == []
        assert proxy.pending_faults() == 0
        through.close()
    finished = server.ids("SELECT `id` FROM `jobs` WHERE `state` = 'finished'")
    assert finished == (set() if what is Lose.QUESTION else set(removed))
