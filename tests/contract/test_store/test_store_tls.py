"""TLS to a real MariaDB: one private CA, the host verified, and no way back to plain."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper.runtime.config import DatabaseConfig
from cronkeeper.store import open_store
from cronkeeper.store import upgrade as schema
from cronkeeper.store.engine import make_engine
from tests.harness.certificates import Authority, Issued
from tests.harness.folders import make_folder, remove_folder
from tests.harness.mariadb import MariaDB


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = make_folder("mariadb-tls")
    yield folder
    remove_folder(folder)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "ours")


def options(authority: Authority, issued: Issued) -> tuple[str, ...]:
    return (
        f"--ssl-ca={authority.ca}",
        f"--ssl-cert={issued.cert}",
        f"--ssl-key={issued.key}",
        "--require-secure-transport=ON",
    )


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[MariaDB]:
    with MariaDB("mariadb-tls", extra_options=options(authority, authority.issue("mariadb"))) as server:
        server.create_database("tls")
        yield server


def config(url: str, ca: Path | str, issued: Issued | None = None) -> DatabaseConfig:
    cert, key = (str(issued.cert), str(issued.key)) if issued else ("", "")
    return DatabaseConfig(database_url=url, database_tls_ca=str(ca), database_tls_cert=cert, database_tls_key=key)


def ping(url: str) -> None:
    store = open_store(url)
    try:
        store.ping()
    finally:
        store.close()


def test_the_schema_is_made_and_the_store_used_over_tls(server: MariaDB, authority: Authority) -> None:
    url = config(server.url("tls"), authority.ca).database
    schema.upgrade(url)
    schema.check(url)
    ping(url)


def test_a_certificate_of_ours_is_shown_to_a_server_that_wants_one(server: MariaDB, authority: Authority) -> None:
    server.execute("CREATE USER 'shows'@'127.0.0.1' IDENTIFIED BY 'x' REQUIRE X509")
    server.execute("GRANT SELECT ON tls.* TO 'shows'@'127.0.0.1'")
    url = f"mysql+pymysql://shows:x@127.0.0.1:{server.port}/tls"
    ping(config(url, authority.ca, authority.issue("api")).database)
    with pytest.raises(UnavailableError, match="Access denied"):
        ping(config(url, authority.ca).database)


def test_a_server_that_another_ca_signed_is_refused(server: MariaDB, folder: Path) -> None:
    stranger = Authority(folder / "stranger")
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        ping(config(server.url("tls"), stranger.ca).database)
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        schema.upgrade(config(server.url("tls"), stranger.ca).database)


def test_a_server_with_another_name_is_refused(authority: Authority) -> None:
    issued = authority.issue("elsewhere", ("db.example",))
    server = MariaDB("mariadb-other", extra_options=options(authority, issued))
    with server, pytest.raises(UnavailableError, match="IP address mismatch"):
        ping(config(server.url("mysql"), authority.ca).database)


def test_a_server_that_offers_no_tls_hears_no_word_of_ours(mariadb_server: MariaDB, authority: Authority) -> None:
    # Its own greeting, as somebody in between would send it who wants us to speak plain.
    with socket.create_connection(("127.0.0.1", mariadb_server.port), timeout=5) as real:
        greeting = real.recv(4096)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"mysql+pymysql://cronkeeper:secret@127.0.0.1:{listener.getsockname()[1]}/tls"
        with pytest.raises(UnavailableError, match="SSL is required but the server doesn't support it"):
            ping(config(url, authority.ca).database)
        thread.join(5)
    assert heard == [b""]


@pytest.mark.parametrize("option", ["local_infile=1", "ssl_disabled=true", "ssl_verify_cert=false", "init_command=x"])
def test_a_url_cannot_open_what_is_closed(server: MariaDB, option: str) -> None:
    with pytest.raises(ConfigError, match="must not say"):
        open_store(f"{server.url('tls')}?{option}")


def test_the_server_may_not_ask_for_our_files_and_takes_no_value_that_does_not_fit(
    server: MariaDB, authority: Authority, folder: Path
) -> None:
    server.execute("SET GLOBAL local_infile = 1")
    server.execute("CREATE TABLE tls.files (line VARCHAR(3) NOT NULL)")
    wanted = folder / "wanted"
    wanted.write_text("abc\n")
    engine = make_engine(config(server.url("tls"), authority.ca).database, pool_size=1)
    try:
        with engine.connect() as conn, pytest.raises(DBAPIError, match=r"LOAD DATA LOCAL INFILE|local.infile"):
            conn.exec_driver_sql(f"LOAD DATA LOCAL INFILE '{wanted}' INTO TABLE files")
        with engine.connect() as conn, pytest.raises(DBAPIError, match="Data too long"):
            conn.exec_driver_sql("INSERT INTO files VALUES ('too long')")
    finally:
        engine.dispose()
