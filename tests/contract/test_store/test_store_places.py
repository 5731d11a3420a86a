"""Which ids new jobs get that are saved together, where the server numbers rows in steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from cronkeeper.ports import JobQuery
from cronkeeper.store.engine import make_engine
from cronkeeper.store.jobs import SqlJobStore
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
