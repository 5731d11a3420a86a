"""Migrations make exactly the schema that the code expects, once, however many processes start."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from cronkeeper.domain.job import JobState
from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper.ports import JobQuery
from cronkeeper.store import open_store
from cronkeeper.store.schema import metadata
from cronkeeper.store.upgrade import check, current, head, upgrade
from tests.contract.test_store.builders import new_job
from tests.harness.ports import free_port


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.db'}"
    else:
        yield request.getfixturevalue("mariadb_url")


def run_sql(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(text(statement))
    engine.dispose()


def take_back(url: str, revision: str) -> None:
    """Undo all migrations after this one."""
    config = Config()
    config.set_main_option("script_location", "cronkeeper.store:migrations")
    engine = create_engine(url)
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.downgrade(config, revision)
    engine.dispose()


def test_the_migrated_schema_is_the_one_the_code_expects(url: str) -> None:
    upgrade(url)
    engine = create_engine(url)
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_difference_between_schema_and_code_would_be_seen(url: str) -> None:
    upgrade(url)
    run_sql(url, "DROP INDEX runs_by_state ON runs" if url.startswith("mysql") else "DROP INDEX runs_by_state")
    run_sql(url, "ALTER TABLE leases ADD COLUMN extra INTEGER")
    engine = create_engine(url)
    with engine.connect() as conn:
        found = compare_metadata(MigrationContext.configure(conn), metadata)
    engine.dispose()
    assert sorted(entry[0] for entry in found) == ["add_index", "remove_column"]


def test_upgrading_twice_is_safe_and_keeps_what_is_there(url: str) -> None:
    assert current(url) == ""
    upgrade(url)
    store = open_store(url)
    job = store.jobs.create(new_job("a"))
    upgrade(url)
    assert store.jobs.page(JobQuery()) == [job]
    store.close()
    assert current(url) == head() != ""
    check(url)


def test_several_may_upgrade_at_once(url: str) -> None:
    start = threading.Barrier(4)

    def go(_: int) -> None:
        start.wait()
        upgrade(url)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go, range(4)))
    check(url)
    store = open_store(url)
    assert store.terms.take("m1") == 1, "the one row of the term was inserted once"
    store.close()


def test_a_database_without_a_schema_is_told_apart_and_mended(url: str) -> None:
    with pytest.raises(ConfigError, match="cronkeeper db upgrade"):
        check(url)
    store = open_store(url)
    with pytest.raises(UnavailableError, match="cronkeeper db upgrade"):
        store.jobs.page(JobQuery())
    upgrade(url)
    assert store.jobs.page(JobQuery()) == [], "a daemon need not be restarted"
    store.close()


def test_a_schema_of_a_newer_program_is_left_alone(url: str) -> None:
    upgrade(url)
    run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    for call in (check, upgrade):
        with pytest.raises(ConfigError, match="newer"):
            call(url)
    assert current(url) == "9999"


def test_a_database_that_cannot_be_reached_is_unavailable() -> None:
    url = f"mysql+pymysql://nobody:secret-word@127.0.0.1:{free_port()}/none"
    for call in (check, current, upgrade):
        with pytest.raises(UnavailableError) as caught:
            call(url)
        assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "postgresql://localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql+pymysql://user:secret-word@host",
        "mysql+mysqldb://user:secret-word@host/x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_a_password(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(bad)
    assert "secret-word" not in str(caught.value)


def test_using_a_store_does_not_load_alembic() -> None:
    code = "import sys, cronkeeper.store; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_jobs_of_before_begin_their_history_with_what_they_are(url: str) -> None:
    upgrade(url)
    store = open_store(url)
    paused = store.jobs.create(new_job("a", state=JobState.PAUSED))
    over = store.jobs.create(new_job("b"))
    store.jobs.mark_finished(over.id, generation=1)
    finished_ms = store.jobs.get(over.id).updated_ms
    take_back(url, "0001")
    upgrade(url)
    found = store.audit.versions([paused.id, over.id])
    store.close()
    assert [(item.state, item.since_ms, item.effective_from_ms) for item in found] == [
        (JobState.PAUSED, 900, 900),
        (JobState.FINISHED, finished_ms, 900),
    ]
    assert [item.spec for item in found] == [paused.spec, over.spec]
