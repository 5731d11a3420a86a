"""The API's configuration: secrets are refused unless they are kept as secrets."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper.runtime.key_files import write_key
from cronkeeper_api.config import ApiConfig, read_signing_key

STORES = {"database_url": "sqlite:////x", "zookeeper": "127.0.0.1:2181/cronkeeper", "blob_url": "file:///x"}


def _key(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def _load(**flags: Any) -> ApiConfig:
    return load(ApiConfig, file=None, environ={}, flags={**STORES, **flags})


def test_a_good_key_is_read(tmp_path: Path) -> None:
    seed = secrets.token_bytes(32)
    assert read_signing_key(_key(tmp_path, seed.hex() + "\n")) == seed
    assert _load(signing_key_file=tmp_path / "key").bind == "127.0.0.1:30001"


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        pytest.param(secrets.token_hex(32), 0o640, "read by others", id="the group may read it"),
        pytest.param(secrets.token_hex(32), 0o604, "read by others", id="the world may read it"),
        pytest.param("", 0o600, "32 random bytes", id="it is empty"),
        pytest.param(secrets.token_hex(16), 0o600, "32 random bytes", id="it is short"),
        pytest.param("00" * 32, 0o600, "32 random bytes", id="it is a placeholder"),
        pytest.param("changeme" * 8, 0o600, "not 64 hex digits", id="it is a word"),
        pytest.param("é" * 32, 0o600, "not 64 hex digits", id="it is not ASCII"),
    ],
)
@pytest.mark.parametrize("setting", ["signing_key_file", "secrets_key_files"])
def test_a_bad_key_stops_the_server(text: str, mode: int, words: str, setting: str, tmp_path: Path) -> None:
    good = tmp_path / "good"
    write_key(good, secrets.token_bytes(32))
    flags = {"signing_key_file": good, "secrets_key_files": str(good), setting: str(_key(tmp_path, text, mode))}
    with pytest.raises(ConfigError, match=rf"{setting}: .*{words}"):
        _load(**flags)
    assert _load(**{**flags, setting: str(good)})


def test_no_key_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="signing_key_file: not set"):
        _load()
    with pytest.raises(ConfigError, match="cannot read"):
        _load(signing_key_file=tmp_path / "missing")


def test_all_faults_come_out_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(
            bind="30001",
            threads="1",
            max_body_bytes=1000,
            run_as_allowed="nobody,root",
            signing_key_file=tmp_path / "x",
        )
    for key in ("bind", "threads", "max_body_bytes", "run_as_allowed", "signing_key_file"):
        assert f"{key}:" in str(caught.value)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = _load(
        signing_key_file=_key(tmp_path, secrets.token_hex(32)),
        zookeeper_auth="user:hunter2-9f3c1b7d",
        s3_secret_key="hunter3-64a58e02",
    )
    assert "hunter" not in repr(config)
