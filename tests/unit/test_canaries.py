"""What a part asks of the stores at its start, on a folder and SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import StoreConfig
from cronkeeper.stores import log_into_database, send_database_canary, send_object_canary


def _config(folder: Path, **changes: str) -> StoreConfig:
    known: dict[str, Any] = {
        "database_url": f"sqlite:///{folder / 'store.db'}",
        "blob_url": f"file://{folder / 'objects'}",
        **changes,
    }
    return StoreConfig(zookeeper="zk:2181/c", **known)


def test_who_writes_files_writes_one_and_who_reads_them_finds_it(tmp_path: Path) -> None:
    config = _config(tmp_path)
    send_object_canary(config, writes=False)
    assert not (tmp_path / "objects" / "canary").exists()
    send_object_canary(config, writes=True)
    send_object_canary(config, writes=False)
    assert (tmp_path / "objects" / "canary").read_bytes() == b"tweet"


def test_a_canary_that_somebody_else_has_changed_is_told(tmp_path: Path) -> None:
    config = _config(tmp_path)
    send_object_canary(config, writes=True)
    (tmp_path / "objects" / "canary").write_bytes(b"caw")
    with pytest.raises(ConfigError, match=r"blob_url: .*canary"):
        send_object_canary(config, writes=False)


def test_a_database_without_the_schema_is_told_and_one_that_is_away_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cronkeeper db upgrade"):
        send_database_canary(_config(tmp_path), "worker")
    log_into_database(_config(tmp_path))
    away = _config(tmp_path, database_url=f"sqlite:///{tmp_path / 'no' / 'such' / 'folder'}")
    log_into_database(away)
    send_database_canary(away, "worker")
