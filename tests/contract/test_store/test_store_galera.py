"""The same promises on a Galera cluster, whose members certify each other's commits and whose reads may be stale.

Here are T30 (a storm of conflicting commits) and T33 (reads from a member that has not yet applied a write) of the
fault catalogue.
"""

from __future__ import annotations

import functools
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.quota import Quotas
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import (
    ConflictError,
    FencedError,
    NotFoundError,
    QuotaExceededError,
    StaleWriteError,
    UnavailableError,
)
from cronkeeper.ports import NamespacePolicy, Store, Weighing
from cronkeeper.store import open_store
from cronkeeper.store.upgrade import check, current, head, upgrade
from tests.contract.test_store.builders import MINUTE_MS, new_job, nonce, run
from tests.contract.test_store.test_store_jobs import changed
from tests.harness.galera import Galera

STORM_S = 20.0


@pytest.fixture(scope="module")
def urls(galera_cluster: Galera) -> list[str]:
    """The URLs of one database with the schema in it, one for each member."""
    urls = galera_cluster.create_database("contract_store")
    upgrade(urls[0])
    return urls


@pytest.fixture
def members(urls: list[str]) -> Iterator[list[Store]]:
    stores = [open_store(url) for url in urls]
    yield stores
    for store in stores:
        store.close()


def test_every_member_gets_the_schema(urls: list[str]) -> None:
    for url in urls:
        deadline = time.monotonic() + 30
        # A member applies what the others have committed a little later.
        while current(url) != head() and time.monotonic() < deadline:
            time.sleep(0.1)
        check(url)


def test_members_racing_for_the_same_fires_never_both_win(members: list[Store]) -> None:
    keys = [RunKey(TaskId(1, 0), number * MINUTE_MS, 1) for number in range(1, 101)]
    start = threading.Barrier(len(members))

    def race(number: int) -> dict[RunKey, bool]:
        start.wait()
        won: dict[RunKey, bool] = {}
        for key in keys:
            mine = Run(key, Trigger.TIMER, RunState.CLAIMED, worker=f"w{number}", nonce=nonce(), claimed_ms=1)
            won |= members[number].runs.claim([mine])
        return won

    with ThreadPoolExecutor(len(members)) as pool:
        results = list(pool.map(race, range(len(members))))
    for key in keys:
        winners = [f"w{number}" for number, won in enumerate(results) if won[key]]
        assert winners == [members[0].runs.get(key).worker], key


def test_members_racing_for_a_batch_never_both_win(members: list[Store]) -> None:
    keys = [RunKey(TaskId(number, 0), MINUTE_MS, 2) for number in range(1, 101)]
    start = threading.Barrier(len(members))

    def race(number: int) -> dict[RunKey, bool]:
        start.wait()
        mine = [Run(key, Trigger.TIMER, RunState.CLAIMED, worker=f"w{number}", nonce=nonce()) for key in keys]
        return members[number].runs.claim(mine)

    with ThreadPoolExecutor(len(members)) as pool:
        results = list(pool.map(race, range(len(members))))
    for key in keys:
        assert sum(won[key] for won in results) == 1, key


def test_jobs_made_on_all_members_get_different_ids(members: list[Store]) -> None:
    start = threading.Barrier(len(members))

    def make(number: int) -> list[int]:
        start.wait()
        named = members[number].jobs.save_many([new_job(f"m{number} {i}") for i in range(300)], [], [])
        assert [job.spec.name for job in named] == [f"m{number} {i}" for i in range(300)]
        assert all(job.envelope == f"envelope of {job.id}".encode() for job in named)
        return [job.id for job in named]

    with ThreadPoolExecutor(len(members)) as pool:
        ids = [job_id for made in pool.map(make, range(len(members))) for job_id in made]
    assert len(set(ids)) == 300 * len(members)


def test_of_two_writers_on_two_members_the_second_is_told(members: list[Store]) -> None:
    job = members[0].jobs.create(new_job("edited on two members"))
    start, told = threading.Barrier(2), []

    def edit(number: int) -> None:
        start.wait()
        try:
            members[number].jobs.replace(changed(job, description=f"by {number}"), expected_generation=1)
        except StaleWriteError:
            told.append(number)

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert members[told[0]].jobs.get(job.id).spec.description == f"by {1 - told[0]}"


def test_t30_galera_cert_storm(members: list[Store]) -> None:
    """Three servers change the same job through three members: each change is there in the end, none was lost."""
    job = members[0].jobs.create(new_job("edited by a storm"))
    start, deadline = threading.Barrier(len(members)), time.monotonic() + 60
    mine = 15

    def edit(number: int) -> int:
        start.wait()
        done = refused = 0
        while done < mine:
            assert time.monotonic() < deadline, (number, done, refused)
            try:
                seen = members[number].jobs.get(job.id)
                new = changed(seen, description=f"{seen.spec.description} {number}.{done}")
                members[number].jobs.replace(new, expected_generation=seen.generation)
                done += 1
            except NotFoundError:
                time.sleep(0.01)  # this member has not heard of the job yet
            except StaleWriteError:
                refused += 1
        return refused

    with ThreadPoolExecutor(len(members)) as pool:
        refused = sum(pool.map(edit, range(len(members))))
    assert refused > 0, "they never met: this was no storm"
    # A change that went through was seen by every later one; the member that wrote last has seen them all.
    last = max((member.jobs.get(job.id) for member in members), key=lambda found: found.generation)
    assert sorted(last.spec.description.split()) == sorted(f"{n}.{i}" for n in range(len(members)) for i in range(mine))
    assert last.generation == 1 + mine * len(members)


def test_t33_stale_read_node(galera_cluster: Galera, urls: list[str], members: list[Store]) -> None:
    """What a member has not applied yet it may not see, but no decision is made by that: claims are refused all the
    same, a stale edit is refused, and nothing is done twice."""
    job = members[0].jobs.create(new_job("read elsewhere"))
    _eventually_there(members[1], job.id)
    behind = galera_cluster.members[1]
    # The member holds back what the others commit: its reads are stale for sure, not just perhaps.
    locker = behind.connect(make_url(urls[1]).database)
    try:
        with locker.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
        theirs = run(job_id=job.id, fire_ms=77 * MINUTE_MS)
        assert members[0].runs.claim([theirs]) == {theirs.key: True}
        new = changed(job, description="new")
        members[0].jobs.replace(new, expected_generation=1)
        assert members[1].jobs.get(job.id).generation == 1, "it is not behind"
        assert members[1].runs.at(job.id, 77 * MINUTE_MS) == []
    finally:
        locker.close()
    claimed = members[1].runs.claim([run(job_id=job.id, fire_ms=77 * MINUTE_MS, worker="w2")])
    assert claimed == {theirs.key: False}
    with pytest.raises(StaleWriteError):
        members[1].jobs.replace(changed(job, description="of old"), expected_generation=1)
    assert members[0].jobs.get(job.id) == new
    assert members[0].runs.at(job.id, 77 * MINUTE_MS) == [theirs]


def _eventually_there(store: Store, job_id: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            store.jobs.get(job_id)
        except NotFoundError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_an_old_leader_is_fenced_on_every_member(members: list[Store]) -> None:
    members[0].runs.claim([run(job_id=99)])
    old = members[0].terms.take("m1")
    new = members[1].terms.take("m2")
    assert new > old
    with pytest.raises(FencedError):
        members[0].runs.lose("w1", term=old, reason="worker_lost")
    members[1].terms.hold(new)


def test_members_that_create_at_once_do_not_get_beyond_a_quota(members: list[Store]) -> None:
    start = threading.Barrier(6)

    def create(number: int) -> int:
        store = members[number % len(members)]
        # A member applies what the others have committed a little later: the policy, too.
        while store.namespaces.get("crowded").quotas.max_jobs != limit:
            time.sleep(0.01)
        start.wait(30)
        try:
            store.jobs.create(new_job(f"{number}-{limit}", namespace="crowded"), weighing=Weighing(1, lambda _: 1.0))
        except (QuotaExceededError, UnavailableError):
            return 0  # unavailable: given up after so many collisions; nothing was saved
        return 1

    saved = 0
    with ThreadPoolExecutor(6) as pool:
        for limit in range(1, 9):
            members[0].namespaces.save(NamespacePolicy("crowded", None, Quotas(max_jobs=limit), 1))
            saved += sum(pool.map(create, range(6)))
            assert 1 <= saved <= limit


def test_what_was_said_to_be_saved_is_there_whoever_else_wanted_its_name(
    galera_cluster: Galera, urls: list[str]
) -> None:
    """Savers on two members want the same names: at any point one's commit may undo what the other has begun."""
    stores = [open_store(urls[number % 2], pool_size=1) for number in range(4)]
    end = time.monotonic() + STORM_S

    def save(number: int) -> list[tuple[int, str]]:
        said: list[tuple[int, str]] = []
        rounds = itertools.count()
        while time.monotonic() < end:
            mine, now = f"{number}.{next(rounds)}", int(time.monotonic() * 25)
            tags = [f"{mine}.{index};" for index in range(random.choice((1, 1, 3)))]
            jobs = [
                new_job(f"storm {now}-{index}", executable=tag, labels={"t": tag}) for index, tag in enumerate(tags)
            ]
            with suppress(ConflictError, UnavailableError):
                said += [(job.id, job.spec.executable) for job in stores[number].jobs.save_many(jobs, [], [])]
        return said

    with ThreadPoolExecutor(len(stores)) as pool:
        said = [pair for some in pool.map(save, range(len(stores))) for pair in some]
    for store in stores:
        store.close()
    storm = "`jobs`.`name` LIKE 'storm %'"
    ask = functools.partial(_ask_synced, galera_cluster, str(make_url(urls[0]).database))
    assert [job_id for job_id, count in Counter(job_id for job_id, _ in said).items() if count > 1] == []
    rows = dict(ask(f"SELECT `id`, JSON_VALUE(`spec`, '$.executable') FROM `jobs` WHERE {storm}"))
    theirs = f"LEFT JOIN `jobs` ON `id` = `job_id` WHERE {storm} OR `id` IS NULL"
    labels = dict(ask(f"SELECT `job_id`, `value` FROM `job_labels` {theirs}"))
    history = {row[0] for row in ask(f"SELECT `job_id` FROM `job_history` {theirs}")}
    assert rows == labels == dict(said)
    assert history == set(rows)


def _ask_synced(cluster: Galera, database: str, text: str) -> list[tuple[Any, ...]]:
    with cluster.members[0].connect(database) as conn, conn.cursor() as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = 1")
        cursor.execute(text)
        return list(cursor.fetchall())
