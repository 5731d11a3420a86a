"""The servers that the other tests stand on: each comes up, answers, can be hurt, and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest
from botocore.exceptions import ClientError
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import KazooState

from cronkeeper.runtime.zookeeper_server import ZooKeeperServer, ZooKeeperServerError
from tests.harness.cron import Node
from tests.harness.galera import Galera
from tests.harness.haproxy import HAProxy
from tests.harness.leftovers import RUN_VARIABLE, find_tagged
from tests.harness.link import Link
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.ports import free_port, is_free
from tests.harness.processes import Process, ServerError, alive
from tests.harness.zookeeper import ZooKeeper


def eventually(check: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# MariaDB


def test_mariadb_keeps_what_was_committed_through_kill_9_and_leaves_no_process() -> None:
    with MariaDB() as server:
        server.create_database("fleet")
        server.execute("CREATE TABLE t (n INT PRIMARY KEY)", "fleet")
        server.execute("INSERT INTO t VALUES (42)", "fleet")
        first_pid = server.process.pid
        server.kill()
        with pytest.raises(pymysql.err.OperationalError):
            server.execute("SELECT 1")
        server.start()
        assert server.execute("SELECT n FROM t", "fleet") == ((42,),)
        pid, port, folder = server.process.pid, server.port, server.folder
        assert pid != first_pid
    assert not alive(pid)
    assert is_free(port)
    assert not folder.exists()


def test_mariadb_is_set_up_like_a_careful_owner_would(mariadb_server: MariaDB) -> None:
    rows = mariadb_server.execute(
        "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@max_connections, @@bind_address, @@sql_mode"
    )
    flush, log_bin, connections, address, sql_mode = rows[0]
    assert (flush, log_bin, connections, address) == (1, 0, 500, "127.0.0.1")
    assert "STRICT_TRANS_TABLES" in str(sql_mode)


def test_mariadb_refuses_a_wrong_password(mariadb_server: MariaDB) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        pymysql.connect(host="127.0.0.1", port=mariadb_server.port, user=mariadb_server.user, password="wrong")


def test_a_paused_mariadb_does_not_answer_and_then_does(mariadb_server: MariaDB) -> None:
    mariadb_server.pause()
    try:
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(
                host="127.0.0.1",
                port=mariadb_server.port,
                user=mariadb_server.user,
                password=mariadb_server.password,
                connect_timeout=1,
                read_timeout=1,
            )
    finally:
        mariadb_server.resume()
    assert mariadb_server.execute("SELECT 1") == ((1,),)


def test_each_test_gets_an_empty_database(mariadb_url: str, mariadb_server: MariaDB) -> None:
    name = mariadb_url.rpartition("/")[2]
    assert mariadb_url == mariadb_server.url(name)
    assert mariadb_server.execute("SHOW TABLES", name) == ()


def test_a_galera_cluster_agrees_and_takes_a_killed_member_back(galera_cluster: Galera) -> None:
    galera_cluster.create_database("agreed")
    galera_cluster.members[0].execute("CREATE TABLE t (n INT PRIMARY KEY)", "agreed")
    galera_cluster.members[1].execute("INSERT INTO t VALUES (1)", "agreed")
    with pytest.raises(pymysql.err.IntegrityError):
        galera_cluster.members[2].execute("INSERT INTO t VALUES (1)", "agreed")
    galera_cluster.kill_member(2)
    eventually(lambda: galera_cluster.status(0, "wsrep_cluster_size") == "2", timeout_s=60.0)
    galera_cluster.members[0].execute("INSERT INTO t VALUES (2)", "agreed")
    galera_cluster.start_member(2)
    assert galera_cluster.members[2].execute("SELECT n FROM t ORDER BY n", "agreed") == ((1,), (2,))
    assert [galera_cluster.status(number, "wsrep_cluster_size") for number in range(3)] == ["3", "3", "3"]


# ZooKeeper


def kazoo(hosts: str) -> KazooClient:
    client = KazooClient(hosts=hosts, timeout=5.0)
    client.start(timeout=15.0)
    return client


def end(client: KazooClient) -> None:
    client.stop()
    client.close()


def test_zookeeper_keeps_znodes_through_kill_9_and_leaves_no_process() -> None:
    with ZooKeeper() as server:
        client = kazoo(server.hosts)
        client.create("/kept", b"yes")
        end(client)
        server.kill_member(0)
        assert server.pids == []
        server.start_member(0)
        client = kazoo(server.hosts)
        assert client.get("/kept")[0] == b"yes"
        end(client)
        pids, folder = server.pids, server.folder
        assert len(pids) == 1
    assert not any(alive(pid) for pid in pids)
    assert not folder.exists()


def test_an_ensemble_goes_on_without_its_leader(zookeeper_ensemble: ZooKeeper) -> None:
    client = kazoo(zookeeper_ensemble.hosts)
    client.create("/before", b"1")
    leader = zookeeper_ensemble.leader()
    zookeeper_ensemble.kill_member(leader)
    try:
        zookeeper_ensemble.wait_healthy()
        assert zookeeper_ensemble.leader() != leader
        eventually(lambda: client.state == KazooState.CONNECTED)
        assert client.retry(client.get, "/before")[0] == b"1"
    finally:
        zookeeper_ensemble.start_member(leader)
        client.retry(client.delete, "/before")
        end(client)
    assert len(zookeeper_ensemble.pids) == 3


def test_a_paused_follower_does_not_stop_the_ensemble(zookeeper_ensemble: ZooKeeper) -> None:
    follower = (zookeeper_ensemble.leader() + 1) % 3
    zookeeper_ensemble.pause_member(follower)
    try:
        zookeeper_ensemble.wait_healthy()
    finally:
        zookeeper_ensemble.resume_member(follower)
    eventually(lambda: zookeeper_ensemble.members[follower].mode())


def test_each_test_gets_an_empty_chroot(zookeeper_chroot: str, zookeeper_server: ZooKeeper) -> None:
    client = kazoo(zookeeper_chroot)
    assert client.get_children("/") == []
    client.create("/mine")
    end(client)
    outside = kazoo(zookeeper_server.hosts)
    with pytest.raises(NoNodeError):
        outside.get("/mine")
    end(outside)


def test_two_servers_cannot_share_a_data_folder(zookeeper_server: ZooKeeper) -> None:
    second = ZooKeeperServer(zookeeper_server.data_dir(0), free_port())
    with pytest.raises(ZooKeeperServerError, match="another ZooKeeper server uses"):
        second.start()
    assert second.pid is None


def test_a_server_that_cannot_come_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "version-2").write_text("a file where a folder should be")
    server = ZooKeeperServer(tmp_path, free_port())
    server.start()
    with pytest.raises(ZooKeeperServerError, match=r"ended with status[\s\S]*version-2"):
        server.wait_listening()
    assert not server.running


def test_the_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from cronkeeper.runtime.zookeeper_server import ZooKeeperServer\n"
        "server = ZooKeeperServer(pathlib.Path(sys.argv[1]), int(sys.argv[2]))\n"
        "server.start(); server.wait_listening(); print(server.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data"), str(free_port())],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(pid))


# S3


def test_the_object_store_keeps_what_it_was_given_through_kill_9(object_store_server: ObjectStore) -> None:
    bucket = object_store_server.create_bucket(f"kept-{secrets.token_hex(4)}")
    client = object_store_server.client()
    client.put_object(Bucket=bucket, Key="jobs/1/run.sh", Body=b"#!/bin/sh\n")
    object_store_server.kill()
    object_store_server.start()
    answer = client.get_object(Bucket=bucket, Key="jobs/1/run.sh", Range="bytes=2-8")
    assert answer["Body"].read() == b"/bin/sh"
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket, Prefix="jobs/")["Contents"]] == [
        "jobs/1/run.sh"
    ]
    client.close()


def test_the_object_store_refuses_a_wrong_secret(object_store_server: ObjectStore) -> None:
    client = object_store_server.client(secret_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()
    client.close()


def test_the_object_store_refuses_a_stranger_and_an_altered_link(object_store_server: ObjectStore) -> None:
    bucket = object_store_server.create_bucket(f"links-{secrets.token_hex(4)}")
    client = object_store_server.client()
    client.put_object(Bucket=bucket, Key="a", Body=b"a")
    client.put_object(Bucket=bucket, Key="b", Body=b"b")
    link = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"}, ExpiresIn=60)
    client.close()
    with urllib.request.urlopen(link, timeout=20) as answer:
        assert answer.read() == b"a"
    for refused in (link.replace(f"{bucket}/a", f"{bucket}/b"), f"{object_store_server.endpoint_url}/{bucket}/a"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(refused, timeout=20)
        assert error.value.code in {400, 401, 403}
        error.value.close()


def test_the_object_store_leaves_no_process() -> None:
    with ObjectStore() as server:
        pid, port, folder = server.process.pid, server.port, server.folder
    assert not alive(pid)
    assert is_free(port)
    assert not folder.exists()


# cron


def test_a_node_runs_its_own_cron_and_the_machines_crontabs_stay_as_they_were() -> None:
    before = {path: path.stat().st_mtime_ns for path in (Path("/etc/cron.d"), Path("/etc/crontab"))}
    names_before = sorted(os.listdir("/etc/cron.d"))
    with Node("cron-node") as node:
        out = node.folder / "out"
        (node.cron_d / "hello").write_text(f"* * * * * root hostname >> {out}\n")
        # Ten seconds before a full minute, twenty times as fast: the first run comes after half a second.
        node.start_cron(faketime="@2026-03-28 11:00:50 x20")
        eventually(out.exists)
        eventually(out.read_text)
        assert out.read_text().splitlines()[0] == "cron-node"
        eventually(lambda: f"hostname >> {out}" in node.cron_log())
        assert node.read_crontabs() == {"/etc/cron.d/hello": f"* * * * * root hostname >> {out}\n".encode()}
        assert sorted(os.listdir("/etc/cron.d")) == names_before
        pids = node.pids()
        assert len(pids) >= 2
    assert not any(alive(pid) for pid in pids)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_cron_can_be_paused_and_killed_without_its_node() -> None:
    with Node("pause-node") as node:
        first = node.start_cron()
        node.pause_cron()
        eventually(lambda: Path(f"/proc/{first.pid}/stat").read_text().split()[2] == "T")
        node.resume_cron()
        eventually(lambda: Path(f"/proc/{first.pid}/stat").read_text().split()[2] != "T")
        node.kill_cron()
        assert not node.cron_running
        second = node.start_cron()
        assert second.pid != first.pid
        node.stop_cron()
        assert not node.cron_running
        assert node.run(["hostname"]) == "pause-node\n"


def test_what_a_program_started_outlives_it_but_not_its_node() -> None:
    with Node("orphan-node") as node:
        program = node.spawn(["sh", "-c", "setsid sleep 4242 & sleep 4243"])
        eventually(lambda: len(node.pids()) == 4)
        program.kill()
        eventually(lambda: len(node.pids()) == 2)
        pids = node.pids()
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


def test_the_shortest_programs_are_run_in_a_node_without_a_race() -> None:
    with Node("short-node") as node:
        assert [node.run(["echo", str(number)]) for number in range(30)] == [f"{number}\n" for number in range(30)]


def test_a_program_in_a_node_has_the_environment_and_account_it_was_given() -> None:
    with Node("env-node") as node:
        program = node.spawn(["sh", "-c", 'echo "$GREETING $(id -un) $(pwd)"'], {"GREETING": "hi"}, user="nobody")
        assert program.wait() == 0
        assert program.log_text().splitlines()[-1] == "hi nobody /"
        with pytest.raises(ServerError, match="ended with status 3"):
            node.run(["sh", "-c", "exit 3"])


# HAProxy


def test_haproxy_takes_a_valid_file_and_refuses_another(tmp_path: Path) -> None:
    good = tmp_path / "good.cfg"
    good.write_text(
        "defaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n"
        'frontend api\n  bind "${CRONKEEPER_HAPROXY_BIND}"\n  http-request return status 200 if TRUE\n'
    )
    with HAProxy("127.0.0.1:1", "127.0.0.1:2", config=good) as proxy:
        with urllib.request.urlopen(proxy.url, timeout=20) as answer:
            assert answer.status == 200
        pid = proxy.process.pid
    assert not alive(pid)
    bad = tmp_path / "bad.cfg"
    bad.write_text("frontend api\n  bind nonsense\n")
    refused = HAProxy("127.0.0.1:1", "127.0.0.1:2", config=bad)
    with pytest.raises(ServerError, match="haproxy refuses"):
        refused.start()
    refused.stop()


# Links


def connect(port: int, server: MariaDB) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
    return pymysql.connect(
        host="127.0.0.1",
        port=port,
        user=server.user,
        password=server.password,
        autocommit=True,
        connect_timeout=5,
        read_timeout=2,
    )


def test_a_cut_link_hurts_only_those_who_go_through_it(mariadb_server: MariaDB) -> None:
    with Link(mariadb_server.port) as link:
        connection = connect(link.port, mariadb_server)
        link.cut()
        with pytest.raises(pymysql.err.OperationalError, match="timed out"), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert mariadb_server.execute("SELECT 1") == ((1,),)
        link.heal()
        connection = connect(link.port, mariadb_server)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == ((1,),)
        connection.close()


def test_a_link_that_loses_answers_still_carries_the_write(mariadb_server: MariaDB, mariadb_url: str) -> None:
    database = mariadb_url.rpartition("/")[2]
    mariadb_server.execute("CREATE TABLE t (n INT PRIMARY KEY)", database)
    with Link(mariadb_server.port) as link:
        connection = connect(link.port, mariadb_server)
        link.cut(requests=False)
        with pytest.raises(pymysql.err.OperationalError), connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {database}.t VALUES (7)")
        assert mariadb_server.execute("SELECT n FROM t", database) == ((7,),)


def test_a_link_that_refuses_looks_like_a_dead_server_until_it_is_healed(mariadb_server: MariaDB) -> None:
    with Link(mariadb_server.port) as link:
        connection = connect(link.port, mariadb_server)
        link.refuse()
        with pytest.raises(pymysql.err.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        with pytest.raises(pymysql.err.OperationalError, match="refused"):
            connect(link.port, mariadb_server)
        link.heal()
        connect(link.port, mariadb_server).close()


# Processes


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = Process("talker", ["sh", "-c", "echo out of cheese; exit 7"], log_path=tmp_path / "log").start()
    with pytest.raises(ServerError, match=r"ended with status 7[\s\S]*out of cheese"):
        process.wait_until(lambda: False, timeout_s=20.0, what="ready")


def test_stopping_ends_the_whole_group(tmp_path: Path) -> None:
    with Process("parent", ["sh", "-c", "sleep 4244 & echo $!; wait"], log_path=tmp_path / "log") as process:
        eventually(lambda: process.log_text().splitlines()[1:])
        child = int(process.log_text().splitlines()[-1])
        assert alive(child)
    eventually(lambda: not alive(child))


def test_a_leftover_is_found_by_the_runs_id_even_in_a_session_of_its_own() -> None:
    run_id = secrets.token_hex(8)
    command = ["setsid", "--fork", "sleep", "4245"]
    subprocess.run(command, env={**os.environ, RUN_VARIABLE: run_id}, check=True)
    eventually(lambda: [found.command for found in find_tagged(RUN_VARIABLE, run_id)] == ["sleep 4245"])
    pid = find_tagged(RUN_VARIABLE, run_id)[0].pid
    repository = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "tests.harness.leftovers", run_id],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"pid {pid}: sleep 4245" in result.stdout
    assert not alive(pid)
    assert find_tagged(RUN_VARIABLE, run_id) == []
