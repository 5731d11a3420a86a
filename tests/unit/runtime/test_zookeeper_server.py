from __future__ import annotations

from pathlib import Path

import pytest

from cronkeeper.runtime.zookeeper_server import EnsembleMember, ZooKeeperServer, ZooKeeperServerError, render_config


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_single_server_listens_on_loopback_only_and_purges_its_snapshots() -> None:
    found = settings(render_config(Path("/data/zk"), 2181, tick_time_ms=500))
    assert found["clientPortAddress"] == "127.0.0.1"
    assert found["admin.enableServer"] == "false"
    assert found["dataDir"] == "/data/zk"
    assert found["clientPort"] == "2181"
    assert int(found["autopurge.purgeInterval"]) > 0
    assert not any(key.startswith("server.") for key in found)


def test_the_session_that_a_worker_asks_for_is_within_the_servers_bounds() -> None:
    found = settings(render_config(Path("/data/zk"), 2181, tick_time_ms=500))
    assert int(found["minSessionTimeout"]) <= 6_000 <= int(found["maxSessionTimeout"])


def test_every_member_knows_all_members() -> None:
    members = [EnsembleMember(n, 2180 + n, 2880 + n, 3880 + n) for n in (1, 2, 3)]
    found = settings(render_config(Path("/data/zk"), 2181, tick_time_ms=500, ensemble=members))
    assert [found[f"server.{n}"] for n in (1, 2, 3)] == [
        "127.0.0.1:2881:3881",
        "127.0.0.1:2882:3882",
        "127.0.0.1:2883:3883",
    ]
    assert {"initLimit", "syncLimit"} <= found.keys()


def test_a_missing_java_names_the_package(tmp_path: Path) -> None:
    server = ZooKeeperServer(tmp_path / "data", 2181, java=str(tmp_path / "no-java"))
    with pytest.raises(ZooKeeperServerError, match="openjdk-17-jre-headless"):
        server.start()
    assert not server.running


def test_a_missing_jar_names_the_package_and_leaves_no_folder(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    server = ZooKeeperServer(tmp_path / "data", 2181, java=str(java), jars_dir=tmp_path)
    with pytest.raises(ZooKeeperServerError, match=r"snappy-java\.jar.*libzookeeper-java"):
        server.start()
    assert not (tmp_path / "data").exists()
