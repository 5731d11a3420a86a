"""Which ids new jobs get that are saved together, where the server numbers rows in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from cronkeeper.domain.job import Job
from cronkeeper.errors import ConflictError
from cronkeeper.ports import JobQuery, NewJob
from cronkeeper.store import job_ids
from cronkeeper.store.engine import make_engine
from cronkeeper.store.job_ids import MANY
from cronkeeper.store.jobs import SqlJobStore
from cronkeeper.store.script import Script
from cronkeeper.store.session import Database
from tests.contract.test_store.builders import new_job

STEP = 3


def in_steps(connection: Any, _record: Any) -> None:
    """As in a cluster of three."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION auto_increment_increment = {STEP}")


@pytest.mark.parametrize("told", [True, False], ids=["MariaDB tells the ids", "MySQL has to be asked for them"])
@pytest.mark.parametrize("count", [1, 2, 1201])
def test_each_job_is_saved_under_the_id_that_it_was_made_with(told: bool, count: int, mariadb_store_url: str) -> None:
    engine = make_engine(mariadb_store_url, pool_size=1)
    event.listen(engine, "connect", in_steps)
    db = Database(engine)
    assert db.flavour.returning_id
    if not told:
        db.flavour = replace(db.flavour, returning_id="")
        with engine.connect():
            # The first connection finds out what server it is.
            engine.dialect.is_mariadb = False  # type: ignore[attr-defined]
    jobs = SqlJobStore(db)
    saved = jobs.save_many([new_job(f"j{number}") for number in range(count)], [], [])
    assert [job.id - saved[0].id for job in saved] == list(range(0, count * STEP, STEP))
    assert [(job.id, job.spec.name, job.envelope) for job in jobs.page(JobQuery(limit=2000))] == [
        (job.id, f"j{number}", job.envelope) for number, job in enumerate(saved)
    ]
    db.close()


@pytest.fixture
def jobs(mariadb_store_url: str) -> Iterator[SqlJobStore]:
    db = Database(make_engine(mariadb_store_url, pool_size=8))
    yield SqlJobStore(db)
    db.close()


def named(prefix: str, count: int) -> list[NewJob]:
    return [new_job(f"{prefix}-{number}") for number in range(count)]


@pytest.mark.parametrize("count", [MANY - 1, MANY, 1201])
def test_of_many_jobs_nothing_is_left_of_the_places_and_the_next_one_comes_behind(
    count: int, jobs: SqlJobStore
) -> None:
    before = jobs.create(new_job("before"))
    saved = jobs.save_many(named("j", count), [], [])
    behind = jobs.create(new_job("behind"))
    assert jobs.page(JobQuery(limit=2000)) == [before, *saved, behind]
    assert [job.id for job in saved] == list(range(before.id + 1, behind.id))
    assert [job.envelope for job in saved] == [f"envelope of {job.id}".encode() for job in saved]


@pytest.mark.parametrize("count", [MANY, MANY + 1, 5001, 5002])
def test_what_one_has_taken_nobody_else_gets_though_no_row_is_there(count: int, mariadb_store_url: str) -> None:
    db, sent = Database(make_engine(mariadb_store_url, pool_size=2)), list[str]()
    event.listen(db._engine, "before_cursor_execute", lambda _conn, _cursor, text, *_: sent.append(text))
    other = SqlJobStore(db)

    def body(script: Script) -> tuple[job_ids.Ids, Job, int]:
        taken = job_ids.take(script, db.flavour, named("j", count))
        beside = other.create(new_job("beside"))
        rows = script.conn.exec_driver_sql("SELECT COUNT(*) FROM `jobs` WHERE `generation` = 0").scalar_one()
        return taken, beside, int(rows)

    taken, beside, rows = db.script(body, landed=lambda _: False)
    assert (taken.placed, rows) == (False, 0)
    assert taken.ids == sorted(set(taken.ids))
    assert len(taken.ids) == count
    assert beside.id > taken.ids[-1]
    assert any("INSERT IGNORE INTO `jobs`" in text for text in sent)
    db.close()


def test_numbers_of_removed_jobs_are_never_given_again(jobs: SqlJobStore) -> None:
    saved = jobs.save_many(named("j", MANY), [], [])
    for job in saved:
        assert jobs.delete(job.id)
    again = [*jobs.save_many(named("j", MANY), [], []), jobs.create(new_job())]
    assert min(job.id for job in again) > max(job.id for job in saved)


def test_numbers_that_were_taken_in_vain_are_nobody_s(jobs: SqlJobStore) -> None:
    taken = jobs.create(new_job("j-7"))
    with pytest.raises(ConflictError):
        jobs.save_many(named("j", MANY), [], [])
    assert jobs.page(JobQuery()) == [taken]
    assert jobs.create(new_job()).id > taken.id + MANY


def test_many_jobs_and_single_ones_at_the_same_time_get_numbers_of_their_own(jobs: SqlJobStore) -> None:
    """As many servers do, of this version and of the one before, which inserts and is told the number."""

    def many(worker: int) -> list[Job]:
        return [job for turn in range(4) for job in jobs.save_many(named(f"m-{worker}-{turn}", MANY + 50), [], [])]

    def few(worker: int) -> list[Job]:
        return [job for turn in range(60) for job in jobs.save_many(named(f"f-{worker}-{turn}", 1 + turn % 3), [], [])]

    calls: list[Callable[[int], list[Job]]] = [many, few] * 3
    with ThreadPoolExecutor(len(calls)) as pool:
        saved = [job for found in pool.map(lambda call: call[1](call[0]), enumerate(calls)) for job in found]
    assert len({job.id for job in saved}) == len(saved) == 3 * 4 * (MANY + 50) + 3 * 120
    assert jobs.page(JobQuery(limit=5000)) == sorted(saved, key=lambda job: job.id)
