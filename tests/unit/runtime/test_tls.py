"""The certificates in the settings: what does not add up is refused before anything is asked."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import DatabaseConfig, StoreConfig, load
from tests.harness.certificates import Authority

STORES = {
    "database_url": "mysql+pymysql://u:9f3c1b7d20e85a64@db/x",
    "zookeeper": "zk:2281/c",
    "zookeeper_auth": "u:64a58e02d7b1c3f9",
    "blob_url": "s3://x",
}


def _load(**flags: Any) -> StoreConfig:
    return load(StoreConfig, file=None, environ={}, flags={**STORES, **flags})


def test_the_context_trusts_one_ca_verifies_names_and_speaks_nothing_old(tmp_path: Path) -> None:
    config = _load(zookeeper_tls_ca=str(Authority(tmp_path, "the one").ca))
    context = config.zookeeper_tls.context()
    assert ["the one" in str(ca["subject"]) for ca in context.get_ca_certs()] == [True]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_without_a_setting_nothing_is_said_of_tls() -> None:
    config = _load()
    assert not config.zookeeper_tls
    assert config.database == STORES["database_url"]


def test_the_urls_of_the_database_carry_the_certificates_to_whoever_opens_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "with space & more")
    config = _load(database_tls_ca=str(authority.ca))
    assert config.database.startswith(STORES["database_url"] + "?ssl_ca=")
    timed = _load(database_url=STORES["database_url"] + "?read_timeout=9", database_tls_ca=str(authority.ca))
    assert timed.database.count("?") == 1

    from cronkeeper.store.engine import make_engine

    engine = make_engine(config.database, pool_size=1)
    assert "ssl_ca" not in engine.url.query
    engine.dispose()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"zookeeper_tls_cert": "{crt}", "zookeeper_tls_key": "{key}"}, "zookeeper_tls_ca: not set"),
        ({"zookeeper_tls_ca": "{ca}", "zookeeper_tls_cert": "{crt}"}, "zookeeper_tls_cert: set both"),
        ({"zookeeper_tls_ca": "{ca}", "zookeeper_tls_key": "{key}"}, "zookeeper_tls_cert: set both"),
        ({"database_tls_ca": "/none"}, "database_tls_ca: /none: No such file"),
        ({"database_tls_ca": "{key}"}, "database_tls_ca: .*no certificate"),
        (
            {"database_tls_ca": "{ca}", "database_tls_cert": "{crt}", "database_tls_key": "{other}"},
            "database_tls_cert: .*do not belong together",
        ),
        ({"database_tls_ca": "{ca}", "database_url": "sqlite:////x"}, "database_tls_ca: only MySQL"),
        ({"database_tls_ca": "{ca}", "database_url": "mysql+pymysql://h/x?ssl_ca=y"}, "database_tls_ca: .*URL|names"),
        ({"s3_tls_ca": "{ca}", "s3_endpoint": "http://s3"}, "s3_endpoint: .*https"),
        ({"s3_tls_ca": "{ca}"}, "s3_endpoint: .*https"),
    ],
)
def test_what_does_not_add_up_is_refused_by_name(tmp_path: Path, flags: dict[str, str], words: str) -> None:
    authority = Authority(tmp_path)
    issued, other = authority.issue("one"), authority.issue("two")
    files = {"ca": authority.ca, "crt": issued.cert, "key": issued.key, "other": other.key}
    with pytest.raises(ConfigError, match=words):
        _load(**{key: value.format(**files) for key, value in flags.items()})


def test_the_command_lines_database_settings_hold_the_same(tmp_path: Path) -> None:
    ca = str(Authority(tmp_path).ca)
    flags = {"database_url": STORES["database_url"], "database_tls_ca": ca}
    assert "ssl_ca=" in load(DatabaseConfig, file=None, environ={}, flags=flags).database
