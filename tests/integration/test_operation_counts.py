"""What a job, a fire, an edit and a look at everything cost, counted in operations: the same on every machine.

Each cost is counted with FEW jobs and with MANY. What is done for one of them must not depend on how many there are,
and what is done for all of them must not grow faster than they do. Who makes something dearer on purpose changes the
figure here, where a reviewer sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.coord.paths import BUCKETS
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.store.flavour import MAX_ROWS
from cronkeeper_manager.healing import COMPARE_EACH_TURN
from tests.harness.counting import Counts, counted, traced
from tests.harness.folders import make_folder, remove_folder
from tests.harness.mariadb import MariaDB
from tests.harness.one_process import OneProcess
from tests.harness.zookeeper import ZooKeeper

#: MANY is more than one statement or one multi-operation takes.
FEW, MANY = 60, 600


@dataclass(frozen=True)
class Cost:
    sql: int
    #: Requests of ZooKeeper, and the writes in them.
    zookeeper: int = 0
    writes: int = 0


def cost(counts: Counts) -> Cost:
    """Leave out what is kept for some seconds, whoever asks first after that: who the caller is and what it may."""
    kept = sum("FROM tokens" in text or "FROM namespaces" in text for text in counts.statements)
    return Cost(counts.sql - kept, counts.zookeeper, counts.writes)


@dataclass(frozen=True)
class Costs:
    """All that was counted with one number of jobs."""

    requests: Mapping[str, Cost]
    edit_of_leader: Counts
    edit_of_worker: Counts
    rest_of_leader: Counts
    rest_of_worker: Counts
    full_look: Counts
    bulk: Counts


@pytest.fixture(scope="module")
def place(mariadb_server: MariaDB, zookeeper_server: ZooKeeper) -> Iterator[OneProcess]:
    """An API, a leader and a worker for all tests here."""
    folder = make_folder("counts")
    url = mariadb_server.create_database("operation_counts")
    with OneProcess(folder, url, zookeeper_server.create_chroot()) as found:
        yield found
    mariadb_server.drop_database("operation_counts")
    remove_folder(folder)


@pytest.fixture(scope="module")
def costs(place: OneProcess) -> tuple[Costs, Costs]:
    """The costs with FEW jobs and with MANY."""
    return measure(place, FEW), measure(place, MANY)


def never_due(name: str) -> dict[str, Any]:
    return {"name": name, "executable": "true", "schedule": "0 0 29 2 *", "type": "command"}


def measure(place: OneProcess, jobs: int) -> Costs:
    with counted() as bulk:
        place.apply([never_due(f"job-{number}") for number in range(jobs)])
    place.settle(jobs)
    requests = of_requests(place)
    place.settle(jobs)
    with counted() as rest_of_leader:
        place.leader.step()
    with counted() as rest_of_worker:
        place.worker.agent.step()
    first = place.api.call("GET", "/jobs?limit=1")[0]
    place.api.call("PATCH", f"/jobs/{first['id']}", {"description": f"one of {jobs}"})
    with counted() as edit_of_leader:
        place.leader.step()
    with counted() as edit_of_worker:
        place.worker.agent.step()
    place.settle(jobs)
    place.leader.clock.forward(61)
    with counted() as full_look:
        place.leader.step()
    return Costs(requests, edit_of_leader, edit_of_worker, rest_of_leader, rest_of_worker, full_look, bulk)


def of_requests(place: OneProcess) -> dict[str, Cost]:
    """Count one request of each kind."""
    found = {}

    def call(name: str, method: str, path: str, body: Any = None) -> Any:
        with counted() as counts:
            answer = place.api.call(method, path, body)
        found[name] = cost(counts)
        return answer

    job = call("post", "POST", "/jobs", never_due("counted"))
    call("patch", "PATCH", f"/jobs/{job['id']}", {"executable": "false"})
    call("get", "GET", f"/jobs/{job['id']}")
    call("page", "GET", "/jobs?limit=50")
    call("delete", "DELETE", f"/jobs/{job['id']}")
    place.api.call("DELETE", f"/jobs/{job['id']}?purge=1")
    return found


def test_a_request_costs_what_it_did_however_many_jobs_there_are(costs: tuple[Costs, Costs]) -> None:
    few, many = costs
    assert few.requests == many.requests == {
        # The place, which tells the id; all else in one round trip.
        "post": Cost(sql=2, zookeeper=1, writes=1),
        "patch": Cost(sql=7, zookeeper=3, writes=2),
        "get": Cost(sql=2),
        "page": Cost(sql=2),
        "delete": Cost(sql=7, zookeeper=3, writes=2),
    }  # fmt: skip


def test_many_jobs_at_once_cost_statements_by_the_hundred(costs: tuple[Costs, Costs]) -> None:
    few, many = costs
    # A look for the names, the places (whose ids MariaDB tells), then the rows, as many as go together, and the rest.
    assert cost(few.bulk) == Cost(sql=4, zookeeper=1, writes=FEW)
    # And six for the one that was edited.
    assert cost(many.bulk).sql <= 6 * -(-MANY // MAX_ROWS) + 6
    # The new ones, and the one that was edited, which is taken for a new one first.
    assert many.bulk.writes == MANY - FEW + 2
    assert many.bulk.requests["Transaction"] <= 2 + (MANY - FEW) // 90
    assert many.bulk.zookeeper - many.bulk.requests["Transaction"] <= 2


@pytest.mark.parametrize("part", ["edit_of_leader", "edit_of_worker", "rest_of_leader", "rest_of_worker"])
def test_a_turn_asks_nothing_twice_and_no_more_where_there_are_more_jobs(costs: tuple[Costs, Costs], part: str) -> None:
    few, many = (getattr(one, part) for one in costs)
    # What the leader does now and then besides (by the clock) may fall into either turn; and the auditor goes through
    # the jobs' history, page by page, at a pace of its own.
    asked = {kind: count for kind, count in many.kinds.items() if "job_history" not in kind and not _is_frame(kind)}
    assert {kind: count for kind, count in asked.items() if count > few.kinds.get(kind, 1)} == {}
    assert sum(asked.values()) <= 20
    # Some kept answer may have to be asked for again in either turn.
    assert max(few.zookeeper, many.zookeeper) <= 5
    assert many.writes == few.writes


def _is_frame(kind: str) -> bool:
    """What stands around every transaction of a leader, whatever it does."""
    return kind in ("START TRANSACTION", "COMMIT") or kind.startswith("UPDATE `term`")


def test_an_edit_is_one_statement_and_one_yes_for_the_worker(costs: tuple[Costs, Costs]) -> None:
    assert [cost(one.edit_of_worker) for one in costs] == [Cost(sql=1, zookeeper=3, writes=1)] * 2


def test_at_rest_nobody_writes_to_zookeeper(costs: tuple[Costs, Costs]) -> None:
    for one in costs:
        assert one.rest_of_leader.writes == 0
        assert cost(one.rest_of_worker) == Cost(sql=1)


def test_a_look_at_everything_is_bounded_by_the_buckets_and_what_a_turn_compares(costs: tuple[Costs, Costs]) -> None:
    few, many = (one.full_look for one in costs)
    for look, jobs in ((few, FEW), (many, MANY)):
        assert look.requests["GetData"] <= min(jobs, COMPARE_EACH_TURN) + 10
        assert look.requests["GetChildren"] <= 3 * len(BUCKETS) + 10
        assert look.writes <= 1
        # With what it does by the clock: the trail, the audit, the rows of jobs that it compares by the page.
        assert look.sql <= 40
    assert many.zookeeper <= few.zookeeper * (MANY / FEW) * 1.05


def give(place: OneProcess, first_id: int, jobs: int) -> range:
    """Have the worker own so many jobs of which one fire each is due."""
    due = f"@at {rfc3339(SystemClock().now_ms() // 1000 * 1000 - 2000)}"
    ids = range(first_id, first_id + jobs)
    place.worker.give({job_id: JobSpec("true", due, JobType.COMMAND) for job_id in ids})
    return ids


def test_fires_of_one_instant_share_their_statements_and_write_nothing_to_zookeeper(place: OneProcess) -> None:
    found = []
    for first_id, jobs in ((1_000_000, 1), (1_001_000, 100)):
        ids = give(place, first_id, jobs)
        place.worker.restart_runner()
        with counted() as counts:
            place.worker.fire(jobs)
        place.worker.take(ids)
        found.append(cost(counts))
    # One for the claim of one, two for that of many; five for the end; a start that is over by the next report is not
    # told by itself.
    assert found == [Cost(sql=6), Cost(sql=7)]


def test_a_fire_is_one_process_and_one_program_and_shares_its_syncs(place: OneProcess, tmp_path: Path) -> None:
    found = []
    for first_id, jobs in ((2_000_000, 0), (2_001_000, 1), (2_002_000, FEW)):
        ids = give(place, first_id, jobs)
        with traced(tmp_path / f"strace-{jobs}") as calls:
            place.worker.restart_runner()
            place.worker.fire(jobs)
        place.worker.take(ids)
        found.append(calls)
    of_runner, one, few = found
    assert (one.forks - of_runner.forks, one.execs - of_runner.execs) == (1, 1)
    assert (few.forks - of_runner.forks, few.execs - of_runner.execs) == (FEW, FEW)
    # Decided, started, ended, reported: each is made durable once, and for all that come together.
    assert one.syncs - of_runner.syncs <= 4
    assert few.syncs - of_runner.syncs <= FEW
