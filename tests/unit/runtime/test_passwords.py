"""Passwords of the stores are judged at the start, and so is the file that holds them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import DatabaseConfig, StoreConfig, load
from cronkeeper.runtime.passwords import database_weakness, weakness, zookeeper_weakness

GOOD = "9f3c1b7d20e85a64"
STORES = {
    "database_url": f"mysql+pymysql://cronkeeper_api:{GOOD}@db/cronkeeper",
    "zookeeper": "zk-1:2181,zk-2:2181/cronkeeper",
    "zookeeper_auth": f"cronkeeper:{GOOD}",
    "blob_url": "s3://jobs",
    "s3_access_key": "AKIA",
    "s3_secret_key": GOOD,
}


def _load(*, file: Path | None = None, judge: bool = True, **flags: Any) -> StoreConfig:
    return load(StoreConfig, file=file, environ={}, flags={} if file else {**STORES, **flags}, judge=judge)


@pytest.mark.parametrize(
    "password",
    [
        "cronkeeper", "password", "changeme", "root", "secret", "minioadmin", "hunter2", "9f3c1b7d20e",
        "cronkeeper-secret", "changemechangeme", "Password1234!", "another-secret", "CHANGE_ME_now!",
        "minioadmin123", "secret-password", "123456789012", "aaaaaaaaaaaaaaaa", "abababababab", "your-password",
        "cronkeeper_api", "root.root.root", "...............",
    ],
)  # fmt: skip
def test_what_is_short_or_a_sample_is_refused_by_the_setting_s_name_and_is_not_repeated(password: str) -> None:
    for setting, value in {
        "database_url": f"mysql+pymysql://cronkeeper_api:{password}@db/cronkeeper",
        "zookeeper_auth": f"cronkeeper_api:{password}",
        "s3_secret_key": password,
    }.items():
        with pytest.raises(ConfigError, match=rf"{setting}: a password .*; make one with: openssl rand") as caught:
            load(
                StoreConfig,
                file=None,
                environ={},
                flags={**STORES, setting: value, "s3_access_key": "cronkeeper_api"},
            )
        assert str(caught.value).count("\n") == 1, "only the setting that is at fault is named"
        assert password not in str(caught.value) or password in ("password", "secret")


@pytest.mark.parametrize("make", [lambda: secrets.token_hex(16), lambda: secrets.token_hex(32), secrets.token_urlsafe])
def test_what_is_random_is_taken(make: Any) -> None:
    assert [found for found in (weakness(make(), ("cronkeeper", "db")) for _ in range(300)) if found] == []


def test_a_passphrase_is_taken() -> None:
    assert weakness("correct horse battery staple") == ""
    assert weakness("Ünïcödé-würd-gehn") == ""


@given(st.text(max_size=200), st.lists(st.text(max_size=10), max_size=3))
def test_any_text_is_judged_and_soon(text: str, names: list[str]) -> None:
    found = weakness(text, names)
    assert (len(text) >= 12) or found
    assert weakness("minioadminadminminio" * 10 + "~é" + text)[:1] in ("", "a")


def test_none_is_refused_where_it_opens_something() -> None:
    assert database_weakness("mysql+pymysql://u@db/x") == "no password"
    assert database_weakness("mysql+pymysql://db/x") == "no password"
    assert database_weakness("mysql+pymysql://u:@db/x") == "no password"
    assert database_weakness("sqlite:////var/lib/x.db") == ""
    # The server asks the kernel who is at the other end.
    assert database_weakness("mysql+pymysql://u@/x?unix_socket=/run/mysqld/mysqld.sock") == ""
    with pytest.raises(ConfigError, match="database_url: no password"):
        load(DatabaseConfig, file=None, environ={}, flags={"database_url": "mysql+pymysql://u@db/x"})


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("127.0.0.1:2181/c", ""),
        ("localhost:2181,[::1]:2181/c", ""),
        ("10.0.0.1:2181/c", "no password"),
        ("127.0.0.1:2181,zk-2:2181/c", "no password"),
        ("127.0.0.1.example.net:2181/c", "no password"),
        ("localhost.example.net:2181/c", "no password"),
    ],
)
def test_zookeeper_without_a_password_is_for_one_machine_only(hosts: str, expected: str) -> None:
    assert zookeeper_weakness("", hosts) == expected
    assert zookeeper_weakness("u:short", hosts)


def test_a_url_s_password_is_judged_as_the_server_gets_it() -> None:
    assert database_weakness("mysql+pymysql://u:%73%65%63%72%65%74%73%65%63%72%65%74@db/x")
    assert not database_weakness(f"mysql+pymysql://u:{GOOD}%40@db/x")


@pytest.mark.parametrize("sign", ["/", "#", "?", "[", ":", "+", "%2F"])
def test_a_url_s_password_is_what_sqlalchemy_takes_for_it(sign: str) -> None:
    """`openssl rand -base64` makes slashes, which work where they are, and open databases of before."""
    url = f"mysql+pymysql://u:{sign}{GOOD}{sign}@db/x?charset=utf8mb4"
    assert unquote(str(make_url(url).password)) == unquote(f"{sign}{GOOD}{sign}"), "else it opened nothing before"
    assert database_weakness(url) == ""
    assert database_weakness(f"mysql+pymysql://u:{sign}short@db/x") == "a password of less than 12 characters"
    assert "well-known" in database_weakness(f"mysql+pymysql://me:cron{sign}orders-db9@db9.example/orders")


def test_what_a_service_has_started_with_is_not_judged_again() -> None:
    """Else the stand-in of a daemon of before, which cron calls, would start nothing after an upgrade."""
    assert _load(judge=False, s3_secret_key="short").s3_secret_key == "short"


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_file_with_passwords_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cronkeeper.toml"
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in STORES.items()))
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        _load(file=path)
    assert f"{path}: holds database_url, s3_secret_key, zookeeper_auth and can be read by others; chmod 600" in str(
        caught.value
    )
    assert GOOD not in str(caught.value)
    path.chmod(0o600)
    assert _load(file=path).s3_secret_key == GOOD


def test_a_file_without_passwords_may_be_read_by_anybody(tmp_path: Path) -> None:
    path = tmp_path / "cronkeeper.toml"
    path.write_text('database_url = "sqlite:////x"\nzookeeper = "127.0.0.1:1/x"\nblob_url = "file:///x"\n')
    path.chmod(0o644)
    assert _load(file=path).database_url == "sqlite:////x"
    environ = {f"CRONKEEPER_{key.upper()}": value for key, value in STORES.items()}
    assert load(StoreConfig, file=path, environ=environ, flags={}).s3_secret_key == GOOD
