"""Whoever holds a store's password attacks the fleet: nothing of theirs runs, and the jobs of others fire on.

One attacker each for ZooKeeper, MySQL and the bucket, with all rights there. Their attacks stand in three tables
(`tests/acceptance/hostile/`): name, what is done, what must be seen: each is told, or healed, or both. They are done
side by side in one cluster, each on a job of its own. What they can still do is in SECURITY.md; which defence keeps
which attack out was seen by taking the defences out, one by one: "Broken by hand" in docs/measurements.md.
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hostile import bucket, mysql, zookeeper
from tests.acceptance.hostile.ground import TICKING, Attack, Battle, Ground, Watch
from tests.harness.cluster import Cluster
from tests.harness.ports import free_port
from tests.harness.processes import Process

TABLES = {"zookeeper": zookeeper.attack.attacks, "mysql": mysql.attack.attacks, "bucket": bucket.attack.attacks}
#: The ledger is looked through a minute after a fire; healing takes up to a minute; the machine may be busy.
SEEN_WITHIN_S = 200.0
LIAR = Path(__file__).parents[1] / "harness" / "s3_liar.py"
ALL = [pytest.param(store, one, id=f"{store}: {one}") for store, attacks in TABLES.items() for one in attacks]


class Liar:
    """A server that lies, between one worker and the bucket."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.mode_file, self.port = folder / "mode", free_port()
        self.lie("")
        argv = [sys.executable, "-IS", str(LIAR), "127.0.0.1", str(self.port), str(cluster.objects.port)]
        self.process = Process("liar", [*argv, str(self.mode_file)], log_path=folder / "liar.log").start()

    def lie(self, modes: str) -> None:
        new = self.mode_file.with_suffix(".new")
        new.write_text(modes)
        new.replace(self.mode_file)


def posted(store: str) -> list[Attack]:
    """Return the attacks with the jobs that they are done to."""
    if store != "bucket":
        return TABLES[store]
    return [Attack(one.name, one.act, {**bucket.file_of_its_own(), **one.job}) for one in TABLES[store]]


@pytest.fixture(scope="module")
def battles(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Battle]]:
    # Runs are of an account that does not get into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="theirs-"))
    folder.chmod(0o777)
    liar = Liar(cluster, tmp_path_factory.mktemp("liar"))
    # The liar speaks plain HTTP, which a node that names a CA does not.
    settings = {"CRONKEEPER_S3_ENDPOINT": f"http://127.0.0.1:{liar.port}", "CRONKEEPER_S3_TLS_CA": ""}
    cluster.add_worker(bucket.WORKER, {"zone": bucket.ZONE}, settings)
    for name, value in (("mine", "my own value"), ("yours", f"yours {secrets.token_hex(8)}")):
        assert cluster.request("PUT", f"/secrets/{name}", {"value": value}).status == 200
    cluster.wait(lambda: bucket.WORKER in cluster.workers_up(), "the fourth worker is up", 60)
    ground = Ground(cluster, folder)
    ground.see_that_a_command_would_leave_a_trace()
    intruders: dict[str, Any] = {
        "zookeeper": zookeeper.Intruder(ground),
        "mysql": mysql.Intruder(ground),
        "bucket": bucket.Intruder(ground, liar.mode_file.parent, liar.lie, cluster.objects.client()),
    }
    found = {store: Battle(ground, intruders[store]) for store in TABLES}
    watch = Watch()
    looking = threading.Thread(target=watch.look_out, args=(SEEN_WITHIN_S,))
    try:
        for store, battle in found.items():
            battle.post(posted(store), **({"selector": f"zone={bucket.ZONE}"} if store == "bucket" else {}))
        # The leader has to have seen the jobs as they were, to notice what becomes of them.
        time.sleep(5)
        for store, battle in found.items():
            battle.fight(TABLES[store])
            battle.watch_with(watch)
        looking.start()
        yield found
    finally:
        watch.done.set()
        if looking.is_alive():
            looking.join()
        for battle in found.values():
            battle.end()
        for intruder in intruders.values():
            intruder.close()
        cluster.workers[bucket.WORKER].stop(60)
        cluster.nodes.pop(bucket.WORKER).stop()
        cluster.workers.pop(bucket.WORKER)
        liar.process.kill()
        shutil.rmtree(folder)


@pytest.mark.parametrize(("store", "attack"), ALL)
def test_each_attack_is_told_or_healed(battles: dict[str, Battle], store: str, attack: Attack) -> None:
    battles[store].see(attack.name)


@pytest.mark.parametrize("store", TABLES)
def test_nothing_of_an_attackers_ran_and_the_jobs_of_others_fire_on(battles: dict[str, Battle], store: str) -> None:
    assert len(TABLES[store]) >= 12
    battles[store].nothing_ran_and_all_fire_on()


def test_a_term_set_ahead_and_assignments_removed_end_a_leader_and_no_job(
    battles: dict[str, Battle], cluster: Cluster
) -> None:
    battle = battles["mysql"]
    before = {name: battle.ground.done(job) for name, job in list(battle.jobs.items())[:2]}
    number = next(battle.jobs[name]["id"] for name in before)
    battle.attacker.sql("DELETE FROM assignments WHERE job_id = %s", number)
    terms = sum(1 for _ in battle.ground.lines("leader.elected"))
    battle.attacker.sql("UPDATE term SET term = term + 1000000 WHERE id = 1")

    cluster.wait(lambda: battle.ground.log_says("leader.fenced"), "the leader stops, and says so", 60)
    cluster.wait(lambda: sum(1 for _ in battle.ground.lines("leader.elected")) > terms, "another one leads", 60)
    given = "SELECT 1 FROM assignments WHERE job_id = %s AND worker <> ''"
    cluster.wait(lambda: battle.attacker.rows(given, number), "the next leader knows who has the job", 90)
    for name, count in before.items():
        cluster.wait(lambda: battle.ground.done(battle.jobs[name]) > count, "it fires on", 60)  # noqa: B023


def test_a_forged_candidate_keeps_all_from_leading_and_no_job_from_firing(
    battles: dict[str, Battle], cluster: Cluster
) -> None:
    battle = battles["zookeeper"]
    job = cluster.post_job(**TICKING)
    cluster.wait(lambda: battle.ground.done(job), "it fires", 60)
    path = zookeeper.forged_candidate(battle.attacker)
    try:
        cluster.wait(lambda: battle.ground.log_says("leader.fenced"), "the leader stops, and says so", 60)
        time.sleep(zookeeper.NO_LEADER_S)
        before = battle.ground.done(job)
        cluster.wait(lambda: battle.ground.done(job) >= before + 2, "it fires on", 60)
    finally:
        battle.attacker.remove(path)
    cluster.wait(lambda: battle.ground.log_says("audit.gap"), "that nobody led is told", 90)
    cluster.request("DELETE", f"/jobs/{job['id']}")
