"""What each part's own account may do on a real MariaDB, and what it is refused; and the look at it at each start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from cronkeeper.domain.run import RunState
from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper.ports import Event
from cronkeeper.store import canary, open_store
from cronkeeper.store.grants import GRANTS, Account, grant_statements, rights, user_statements
from cronkeeper.store.schema import metadata
from cronkeeper.store.upgrade import upgrade
from tests.contract.test_store.builders import new_job, recorded
from tests.contract.test_store.test_store_trail import entry as trail_entry
from tests.harness.mariadb import MariaDB
from tests.harness.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
DATABASE = "grants_of_parts"
HOST = "127.0.0.1"
PASSWORD = "not-a-secret-of-anybody"
PARTS = [Account.API, Account.MANAGER, Account.WORKER]


@pytest.fixture(scope="module")
def server(mariadb_server: MariaDB) -> Iterator[MariaDB]:
    upgrade(mariadb_server.create_database(DATABASE))
    for account in Account:
        for statement in [
            *user_statements(f"g_{account}", host=HOST, password=PASSWORD),
            *grant_statements(account, f"g_{account}", host=HOST, database=DATABASE),
        ]:
            mariadb_server.execute(statement)
    yield mariadb_server
    for account in Account:
        mariadb_server.execute(f"DROP USER 'g_{account}'@'{HOST}'")
    mariadb_server.drop_database(DATABASE)


def url(server: MariaDB, account: str, *, password: str = PASSWORD, database: str = DATABASE) -> str:
    return f"mysql+pymysql://g_{account}:{password}@{HOST}:{server.port}/{database}"


def as_account(server: MariaDB, account: Account, statement: str) -> None:
    connection = pymysql.connect(
        host=HOST, port=server.port, user=f"g_{account}", password=PASSWORD, database=DATABASE, autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize("account", [*PARTS, Account.READER])
def test_each_account_may_do_what_its_part_has_to(server: MariaDB, account: Account) -> None:
    canary.check(url(server, account), account)


def test_what_may_be_there_already_is_written_with_the_right_to_insert(server: MariaDB) -> None:
    """MariaDB wants more than MySQL for ON DUPLICATE KEY UPDATE, which statements that concern no row do not show."""
    api, manager, worker = (open_store(url(server, account)) for account in PARTS)
    try:
        first, second, event = trail_entry(), trail_entry(), Event(1, "worker.lost", "w1", "")
        for some in ([first], [first, second]):
            api.trail.record(some)
            manager.trail.record(some)
        assert manager.trail.waiting(limit=10) == [first, second]
        for store in (worker, manager, worker):
            store.events.add([event, replace(event, subject=f"of {id(store)}")])
        assert [found.subject for found in api.events.latest(limit=10)].count("w1") == 1
        job = api.jobs.create(new_job("a", pause_after_failures=3))
        for minute in (1, 2):
            recorded(worker, RunState.FAILED, job_id=job.id, fire_ms=minute * 60_000)
        assert manager.failures.noted(limit=10).keys() == {job.id}
    finally:
        for store in (api, manager, worker):
            store.close()


REFUSED = [
    (Account.WORKER, "INSERT INTO jobs (id) VALUES (1)"),
    (Account.WORKER, "UPDATE jobs SET state = 'paused'"),
    (Account.WORKER, "DELETE FROM jobs"),
    (Account.WORKER, "SELECT spec FROM jobs"),
    (Account.WORKER, "SELECT envelope FROM jobs"),
    (Account.WORKER, "INSERT INTO tokens (name) VALUES ('x')"),
    (Account.WORKER, "UPDATE tokens SET role = 'admin'"),
    (Account.WORKER, "SELECT digest FROM tokens"),
    (Account.WORKER, "UPDATE assignments SET worker = 'me'"),
    (Account.WORKER, "DELETE FROM assignments"),
    (Account.WORKER, "SELECT * FROM secrets"),
    (Account.WORKER, "DELETE FROM secrets"),
    (Account.WORKER, "INSERT INTO trail_inbox (nonce) VALUES ('x')"),
    (Account.WORKER, "DELETE FROM trail_inbox"),
    (Account.WORKER, "DELETE FROM trail"),
    (Account.WORKER, "DELETE FROM runs"),
    (Account.WORKER, "DELETE FROM run_output"),
    (Account.WORKER, "DELETE FROM events"),
    (Account.WORKER, "UPDATE leases SET lost_incarnation = incarnation"),
    (Account.WORKER, "UPDATE term SET term = term + 1"),
    (Account.WORKER, "UPDATE missed SET held = 0"),
    (Account.WORKER, "UPDATE cordons SET cordoned = 0"),
    (Account.WORKER, "INSERT INTO move_requests (job_id) VALUES (1)"),
    (Account.WORKER, "SELECT body FROM idempotency"),
    (Account.WORKER, "DROP TABLE runs"),
    (Account.API, "UPDATE runs SET worker = 'w1'"),
    (Account.API, "UPDATE runs SET exit_code = 0"),
    (Account.API, "UPDATE runs SET fence = 9"),
    (Account.API, "INSERT INTO assignments (job_id) VALUES (1)"),
    (Account.API, "UPDATE assignments SET worker = 'w1'"),
    (Account.API, "DELETE FROM assignments"),
    (Account.API, "UPDATE term SET term = 0"),
    (Account.API, "UPDATE leases SET beat_ms = 0"),
    (Account.API, "INSERT INTO trail (seq) VALUES (1)"),
    (Account.API, "DELETE FROM trail"),
    (Account.API, "UPDATE trail SET actor_name = 'x'"),
    (Account.API, "DELETE FROM trail_inbox"),
    (Account.API, "UPDATE trail_inbox SET actor_name = 'x'"),
    (Account.API, "UPDATE tokens SET role = 'admin'"),
    (Account.API, "UPDATE tokens SET digest = 'x'"),
    (Account.API, "DELETE FROM tokens"),
    (Account.API, "UPDATE audit SET decided_ms = 0"),
    (Account.API, "DELETE FROM events"),
    (Account.API, "CREATE TABLE mine (n INT)"),
    (Account.MANAGER, "INSERT INTO tokens (name) VALUES ('x')"),
    (Account.MANAGER, "INSERT INTO jobs (id) VALUES (1)"),
    (Account.MANAGER, "UPDATE jobs SET spec = ''"),
    (Account.MANAGER, "UPDATE jobs SET envelope = ''"),
    (Account.MANAGER, "DELETE FROM jobs"),
    (Account.MANAGER, "SELECT box FROM secrets"),
    (Account.MANAGER, "DELETE FROM secrets"),
    (Account.MANAGER, "UPDATE trail SET actor_name = 'x'"),
    (Account.MANAGER, "UPDATE leases SET beat_ms = 0"),
    (Account.MANAGER, "UPDATE cordons SET cordoned = 0"),
    (Account.MANAGER, "UPDATE namespaces SET run_as = NULL"),
    (Account.MANAGER, "SELECT body FROM idempotency"),
    (Account.MANAGER, "ALTER TABLE jobs ADD COLUMN mine INT"),
    (Account.READER, "SELECT * FROM tokens"),
    (Account.READER, "SELECT * FROM secrets"),
    (Account.READER, "SELECT * FROM idempotency"),
    (Account.READER, "UPDATE jobs SET state = 'paused'"),
    (Account.READER, "DELETE FROM events"),
]


@pytest.mark.parametrize(("account", "statement"), REFUSED, ids=[f"{account}: {text}" for account, text in REFUSED])
def test_what_a_part_must_not_touch_is_refused(server: MariaDB, account: Account, statement: str) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="command denied"):
        as_account(server, account, statement)


@pytest.mark.parametrize("account", list(Account))
def test_no_account_may_give_rights_or_read_files(server: MariaDB, account: Account) -> None:
    for statement in ("CREATE USER 'x'@'%'", f"GRANT SELECT ON {DATABASE}.runs TO g_reader@'{HOST}'"):
        with pytest.raises(pymysql.err.MySQLError, match=r"denied"):
            as_account(server, account, statement)
    with pytest.raises(pymysql.err.MySQLError, match="Access denied"):
        as_account(server, account, "SELECT 1 INTO OUTFILE '/tmp/nowhere'")


def test_every_table_has_a_part_that_may_write_it_and_no_right_names_a_table_that_is_not_there() -> None:
    written = {
        table for account in PARTS for table in GRANTS[account] if set(rights(account, table)) & {"INSERT", "UPDATE"}
    }
    assert written == set(metadata.tables)
    for account, tables in GRANTS.items():
        for table in tables:
            known = {column.name for column in metadata.tables[table].columns}
            assert all(set(columns) <= known for columns in rights(account, table).values()), (account, table)


@pytest.mark.parametrize("account", PARTS)
def test_a_start_without_one_of_the_rights_is_refused(server: MariaDB, account: Account) -> None:
    table = next(iter(GRANTS[account]))
    word = "INSERT" if "INSERT" in GRANTS[account][table] else "UPDATE"
    server.execute(f"REVOKE {word} ON {DATABASE}.{table} FROM 'g_{account}'@'{HOST}'")
    try:
        with pytest.raises(ConfigError, match=rf"table {table}: .*{word} command denied.*deploy/mysql-accounts"):
            canary.check(url(server, account), account)
    finally:
        server.execute(f"GRANT {word} ON {DATABASE}.{table} TO 'g_{account}'@'{HOST}'")


def test_a_start_with_a_wrong_password_or_without_the_schema_is_refused(server: MariaDB) -> None:
    with pytest.raises(ConfigError, match="Access denied"):
        canary.check(url(server, Account.API, password="wrong"), Account.API)
    with pytest.raises(ConfigError, match="Access denied"):
        canary.log_in(url(server, Account.API, password="wrong"))
    server.create_database("grants_empty")
    try:
        with pytest.raises(ConfigError, match="cronkeeper db upgrade"):
            canary.check(server.url("grants_empty"), Account.API)
    finally:
        server.drop_database("grants_empty")
    with pytest.raises(ConfigError, match="Unknown database"):
        canary.log_in(server.url("grants_nowhere"))


def test_a_database_that_does_not_answer_refuses_nobody() -> None:
    away = f"mysql+pymysql://x:x@127.0.0.1:{free_port()}/x"
    with pytest.raises(UnavailableError):
        canary.check(away, Account.WORKER)
    with pytest.raises(UnavailableError):
        canary.log_in(away)


def test_sqlite_is_asked_for_its_tables(tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path / 'there.db'}"
    upgrade(there)
    canary.check(there, Account.MANAGER)
    with pytest.raises(ConfigError, match="cronkeeper db upgrade"):
        canary.check(f"sqlite:///{tmp_path / 'empty.db'}", Account.MANAGER)


def test_the_script_prints_what_makes_the_accounts(server: MariaDB) -> None:
    script = [sys.executable, str(ROOT / "deploy" / "mysql-accounts"), "--database", DATABASE, "--prefix", "s_"]
    printed = subprocess.run(
        [*script, "--host", HOST, "--server", f"{HOST}:{server.port}", "--require", "plain"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    urls = [line.split('"')[1] for line in printed.splitlines() if line.startswith("-- database_url")]
    assert len({found.split(":")[2] for found in urls}) == len(Account)
    try:
        for statement in printed.splitlines():
            if statement and not statement.startswith("--"):
                server.execute(statement)
        for found in urls:
            account = Account(found.partition("://s_")[2].partition(":")[0])
            if account is Account.SCHEMA:
                upgrade(found)
            else:
                canary.check(found, account)
    finally:
        for account in Account:
            server.execute(f"DROP USER IF EXISTS 's_{account}'@'{HOST}'")
    again = subprocess.run([*script, "--grants-only", "--only", "worker"], capture_output=True, text=True, check=True)
    assert "CREATE USER" not in again.stdout
    with_tls = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert with_tls.count("REQUIRE SSL") == len(Account)
