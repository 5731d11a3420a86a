"""The worker's settings: sound by default, and every fault named by its key."""

from __future__ import annotations

import pytest

from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper_worker.config import WorkerConfig

_STORES = {
    "CRONKEEPER_DATABASE_URL": "mysql+pymysql://cronkeeper:9f3c1b7d20e85a64@db/cronkeeper",
    "CRONKEEPER_ZOOKEEPER": "zk:2181/cronkeeper",
    "CRONKEEPER_ZOOKEEPER_AUTH": "cronkeeper:64a58e02d7b1c3f9",
    "CRONKEEPER_BLOB_URL": "s3://bucket",
    "CRONKEEPER_VERIFY_KEYS": "ab" * 32,
}


def test_defaults_need_nothing_but_the_stores_and_a_key() -> None:
    config = load(WorkerConfig, file=None, environ=_STORES, flags={})

    assert (config.lease_every_s, config.on_stop, config.cron) == (2.0, "leave", "auto")
    assert "9f3c1b7d20e85a64" not in repr(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"WORKER_ID": "a/b"}, ["worker_id"]),
        ({"CAPACITY": "0"}, ["capacity"]),
        ({"VERIFY_KEYS": "ab"}, ["verify_keys"]),
        ({"CRON": "maybe"}, ["cron"]),
        ({"CRON_SILENT_S": "1"}, ["cron_silent_s"]),
        ({"ON_STOP": "wait"}, ["on_stop"]),
        ({"LEASE_EVERY_S": "0.1"}, ["lease_every_s"]),
        # A claim is good for 4 s after the last sign of life; where ZooKeeper is away, the lease is the only one.
        ({"LEASE_EVERY_S": "3.1", "SESSION_TIMEOUT_S": "12"}, ["lease_every_s"]),
        ({"LEASE_EVERY_S": "3", "SESSION_TIMEOUT_S": "5"}, ["lease_every_s"]),
        ({"STOP_WAIT_S": "-1"}, ["stop_wait_s"]),
        ({"CAPACITY": "-1", "ON_STOP": ""}, ["capacity", "on_stop"]),
    ],
)
def test_settings_that_do_not_add_up_are_all_named(settings: dict[str, str], named: list[str]) -> None:
    environ = {**_STORES, **{f"CRONKEEPER_{key}": value for key, value in settings.items()}}

    with pytest.raises(ConfigError) as caught:
        load(WorkerConfig, file=None, environ=environ, flags={})
    lines = str(caught.value).splitlines()[1:]
    assert sorted(line.strip().split(":")[0] for line in lines) == named


def test_longest_beat_is_a_second_less_than_a_claim_is_good_for() -> None:
    environ = {**_STORES, "CRONKEEPER_LEASE_EVERY_S": "3", "CRONKEEPER_SESSION_TIMEOUT_S": "12"}

    assert load(WorkerConfig, file=None, environ=environ, flags={}).lease_every_s == 3.0
