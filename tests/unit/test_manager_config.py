"""The manager's settings: sound by default, and every fault named by its key."""

from __future__ import annotations

import pytest

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.liveness import LivenessSettings

_STORES = {
    "CRONKEEPER_DATABASE_URL": "mysql+pymysql://cronkeeper:9f3c1b7d20e85a64@db/cronkeeper",
    "CRONKEEPER_ZOOKEEPER": "zk:2181/cronkeeper",
    "CRONKEEPER_ZOOKEEPER_AUTH": "cronkeeper:64a58e02d7b1c3f9",
    "CRONKEEPER_BLOB_URL": "s3://bucket",
}


def test_defaults_are_those_of_the_design() -> None:
    config = load(ManagerConfig, file=None, environ=_STORES, flags={})

    assert config.liveness == LivenessSettings()
    assert config.runs_keep_days == 90
    assert "9f3c1b7d20e85a64" not in repr(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"GRACE_S": "0.1"}, ["grace_s"]),
        ({"SESSION_TIMEOUT_S": "12"}, ["mysql_silent_s"]),
        ({"LOST_BRAKE_SHARE": "2"}, ["lost_brake_share"]),
        ({"LOST_BRAKE_PAUSE_S": "1"}, ["lost_brake_pause_s"]),
        ({"RUNS_KEEP_DAYS": "0"}, ["runs_keep_days"]),
        ({"METRICS_BIND": "everywhere"}, ["metrics_bind"]),
        ({"GRACE_S": "soon", "RUNS_KEEP_DAYS": "-1"}, ["grace_s", "runs_keep_days"]),
    ],
)
def test_settings_that_do_not_add_up_are_all_named(settings: dict[str, str], named: list[str]) -> None:
    environ = {**_STORES, **{f"CRONKEEPER_{key}": value for key, value in settings.items()}}

    with pytest.raises(ConfigError) as caught:
        load(ManagerConfig, file=None, environ=environ, flags={})
    lines = str(caught.value).splitlines()[1:]
    assert sorted(line.strip().split(":")[0] for line in lines) == named
