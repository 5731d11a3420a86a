"""What the store does when MariaDB, or the way to it, fails in the middle of things.

All that loses the answer to a COMMIT is T32 of the fault catalogue; connections that the server has ended are T31.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.engine import make_url

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import Assignment, MoveReason
from cronkeeper.domain.run import Reason, RunState
from cronkeeper.errors import ConflictError, StaleWriteError, UnavailableError, UnknownOutcomeError
from cronkeeper.ports import Event, Idempotency, JobQuery, Span, Store
from cronkeeper.store import open_store
from cronkeeper.store.engine import PING_AFTER_S
from tests.contract.test_store.builders import MINUTE_MS, begin, new_job, on_demand, recorded, run, taken
from tests.contract.test_store.lossy_proxy import Lose, LossyProxy
from tests.contract.test_store.test_store_jobs import changed
from tests.harness.mariadb import MariaDB

#: On a machine that is noisy; what matters is that it is not minutes.
BOUND_S = 40
INSERT_RUN = "INSERT INTO `runs`"
#: The statement itself (3 is the protocol's word for a query), not the driver's SET AUTOCOMMIT; or the last of several.
COMMIT = ("\x03COMMIT", "; COMMIT; END")
#: A whole packet: of one byte, the first of its conversation, which is the protocol's word for "are you there?".
PING = "\x01\x00\x00\x00\x0e"


@pytest.fixture
def proxy(mariadb_server: MariaDB) -> Iterator[LossyProxy]:
    with LossyProxy(mariadb_server.port) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: LossyProxy, mariadb_store_url: str) -> Iterator[Store]:
    """A store that reaches MariaDB by the proxy and is impatient."""
    url = make_url(mariadb_store_url).set(port=proxy.port).update_query_dict({"read_timeout": "3"})
    store = open_store(url.render_as_string(hide_password=False))
    yield store
    store.close()


@pytest.fixture
def truth(mariadb_store_url: str) -> Iterator[Store]:
    """The same database by the straight way, to see what really happened."""
    store = open_store(mariadb_store_url)
    yield store
    store.close()


# -- claims


@pytest.mark.parametrize("what", [Lose.ANSWER, Lose.QUESTION])
def test_a_claim_whose_answer_was_lost_is_found_to_be_ours(
    store: Store, truth: Store, proxy: LossyProxy, what: Lose
) -> None:
    runs = [run(shard=shard) for shard in range(3)]
    proxy.lose(what, INSERT_RUN)
    assert store.runs.claim(runs) == {mine.key: True for mine in runs}
    assert proxy.pending_faults() == 0
    assert truth.runs.at(1, MINUTE_MS) == runs


@pytest.mark.parametrize("what", [Lose.ANSWER, Lose.QUESTION])
def test_a_claim_whose_refusal_was_lost_is_found_to_be_anothers(
    store: Store, truth: Store, proxy: LossyProxy, what: Lose
) -> None:
    theirs = recorded(truth, RunState.CLAIMED, worker="w2")
    proxy.lose(what, INSERT_RUN)
    assert store.runs.claim([run(worker="w1")]) == {theirs.key: False}
    assert proxy.pending_faults() == 0
    assert truth.runs.get(theirs.key) == theirs


def test_a_claim_that_nobody_can_tell_about_is_unavailable_and_can_be_made_again(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    mine = run()
    proxy.lose(Lose.ANSWER, INSERT_RUN, count=2)
    with pytest.raises(UnavailableError):
        store.runs.claim([mine])
    assert truth.runs.get(mine.key) == mine
    assert store.runs.claim([mine]) == {mine.key: True}


def test_a_server_that_says_nothing_more_is_not_waited_for_for_long(store: Store, proxy: LossyProxy) -> None:
    store.ping()
    proxy.lose(Lose.EVERYTHING, INSERT_RUN, count=9)
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        store.runs.claim([run()])
    assert time.monotonic() - begun < BOUND_S
    proxy.mend()
    mine = run(shard=1)
    assert store.runs.claim([mine]) == {mine.key: True}


# -- jobs


def test_t32_a_job_whose_commit_was_not_confirmed_is_found_to_be_saved(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    """T32: it is read back, and answered as if nothing had happened."""
    proxy.lose(Lose.ANSWER, *COMMIT)
    job = store.jobs.create(new_job("a"))
    assert proxy.pending_faults() == 0
    assert truth.jobs.page(JobQuery()) == [job]


def test_t32_a_job_whose_commit_never_arrived_is_found_not_to_be_saved(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    """T32: it is read back, and safe to repeat."""
    proxy.lose(Lose.QUESTION, *COMMIT)
    with pytest.raises(UnavailableError):
        store.jobs.create(new_job("a"))
    assert truth.jobs.page(JobQuery()) == []
    assert store.jobs.create(new_job("a")) == truth.jobs.find("default", ["a"])["a"]


def test_t32_when_nobody_can_tell_whether_a_job_was_saved_we_say_so(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    """T32: neither the COMMIT nor the reading back was answered."""
    proxy.lose(Lose.ANSWER, *COMMIT)
    proxy.lose(Lose.QUESTION, "FOR UPDATE", count=9)
    with pytest.raises(UnknownOutcomeError):
        store.jobs.create(new_job("a"))
    assert [job.spec.name for job in truth.jobs.page(JobQuery())] == ["a"]


def test_a_change_whose_commit_was_not_confirmed_is_no_stale_write(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    job = truth.jobs.create(new_job("a"))
    new = changed(job, description="new")
    proxy.lose(Lose.ANSWER, *COMMIT)
    store.jobs.replace(new, expected_generation=1)
    assert truth.jobs.get(job.id) == new
    with pytest.raises(StaleWriteError):
        store.jobs.replace(new, expected_generation=1)


def test_a_transaction_whose_connection_breaks_half_way_is_done_again(
    store: Store, truth: Store, proxy: LossyProxy
) -> None:
    proxy.lose(Lose.ANSWER, "START TRANSACTION; INSERT INTO `jobs`")
    saved = store.jobs.save_many([new_job(f"j{i}", labels={"a": "b"}) for i in range(5)], [], [])
    assert proxy.pending_faults() == 0
    assert truth.jobs.page(JobQuery()) == saved


def test_a_removal_whose_commit_was_not_confirmed_is_known(store: Store, truth: Store, proxy: LossyProxy) -> None:
    job = truth.jobs.create(new_job("a"))
    proxy.lose(Lose.ANSWER, *COMMIT)
    assert store.jobs.delete(job.id)
    assert truth.jobs.job_ids() == set()


# -- everything else that is written: once, however the answer fares


def test_reports_are_recorded_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    mine = recorded(truth, RunState.CLAIMED)
    theirs = recorded(truth, RunState.CLAIMED, shard=1, worker="w2")
    double = run(shard=1, state=RunState.SUCCEEDED)
    proxy.lose(Lose.ANSWER, *COMMIT)
    assert store.runs.record([mine.evolve(state=RunState.SUCCEEDED, exit_code=0), double]) == [theirs.key]
    assert truth.runs.get(mine.key).state is RunState.SUCCEEDED
    assert truth.runs.get(theirs.key) == theirs


def test_a_run_on_demand_is_requested_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    asked = run(state=RunState.PENDING, worker="")
    proxy.lose(Lose.ANSWER, INSERT_RUN)
    store.runs.request(asked)
    assert truth.runs.pending([asked.key.task]) == [asked]
    proxy.lose(Lose.ANSWER, INSERT_RUN)
    with pytest.raises(ConflictError):
        store.runs.request(run(state=RunState.PENDING, worker=""))


def test_a_pending_run_is_claimed_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    truth.runs.request(run(state=RunState.PENDING, worker="", nonce=""))
    mine = run(worker="w1")
    proxy.lose(Lose.ANSWER, "UPDATE runs")
    assert store.runs.claim_pending(mine)
    assert proxy.pending_faults() == 0
    assert not truth.runs.claim_pending(run(worker="w2"))


def test_a_lost_workers_runs_are_all_returned(store: Store, truth: Store, proxy: LossyProxy) -> None:
    running = recorded(truth, RunState.RUNNING)
    proxy.lose(Lose.ANSWER, *COMMIT)
    lost = store.runs.lose("w1", term=truth.terms.take("m1"), reason="worker_lost")
    assert lost == [running.evolve(state=RunState.LOST, reason=Reason.WORKER_LOST)]


def test_a_wish_to_cancel_is_known(store: Store, truth: Store, proxy: LossyProxy) -> None:
    asked = run(state=RunState.PENDING, worker="")
    truth.runs.request(asked)
    proxy.lose(Lose.ANSWER, *COMMIT)
    assert store.runs.request_cancel(asked.key).state is RunState.CANCELLED
    assert truth.runs.get(asked.key).state is RunState.CANCELLED


def test_the_leaders_writes_survive_a_lost_answer(store: Store, truth: Store, proxy: LossyProxy) -> None:
    proxy.lose(Lose.ANSWER, *COMMIT)
    term = store.terms.take("m1")
    given = Assignment(TaskId(1, 0), "w1", 1, 1, MoveReason.NEW, 5)
    proxy.lose(Lose.ANSWER, *COMMIT)
    store.assignments.save([given], term=term)
    proxy.lose(Lose.ANSWER, "UPDATE `term`")
    store.terms.hold(term)
    assert proxy.pending_faults() == 0
    truth.terms.hold(term)
    assert truth.assignments.load() == {given.task: given}


def test_a_request_is_new_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    proxy.lose(Lose.ANSWER, *COMMIT)
    assert begin(store).outcome is Idempotency.NEW
    assert begin(truth).outcome is Idempotency.IN_FLIGHT


@pytest.mark.parametrize("lose", [Lose.ANSWER, Lose.QUESTION])
def test_what_a_request_saves_is_noted_once(lose: Lose, store: Store, truth: Store, proxy: LossyProxy) -> None:
    request = taken(begin(store))
    proxy.lose(lose, *COMMIT)
    try:
        store.runs.request(on_demand(), request=request)
    except UnavailableError:
        assert lose is Lose.QUESTION
        assert (begin(truth).outcome, truth.runs.pending([TaskId(1, 0)])) == (Idempotency.IN_FLIGHT, [])
        store.runs.request(on_demand(), request=request)
    assert begin(truth).saved == (on_demand().id,)
    assert truth.runs.pending([TaskId(1, 0)]) == [on_demand()]


def test_an_event_is_told_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    proxy.lose(Lose.ANSWER, *COMMIT)
    store.events.add([Event(1, "worker.lost", "w1", "")])
    assert len(truth.events.latest(limit=10)) == 1


def test_output_is_kept_once(store: Store, truth: Store, proxy: LossyProxy) -> None:
    key = run().key
    proxy.lose(Lose.ANSWER, "INSERT INTO `run_output`")
    store.runs.append_output(key, offset=0, data=b"hello")
    assert truth.runs.read_output(key, offset=0, limit=100) == b"hello"


# -- away, and back


def test_while_the_database_is_away_every_call_says_so_and_none_is_empty(store: Store, proxy: LossyProxy) -> None:
    job = store.jobs.create(new_job("a"))
    proxy.refuse()
    calls: list[Callable[[], object]] = [
        store.ping,
        lambda: store.jobs.page(JobQuery()),
        lambda: store.jobs.get(job.id),
        lambda: store.jobs.plan_rows(),
        lambda: store.jobs.create(new_job("b")),
        lambda: store.runs.claim([run()]),
        lambda: store.runs.record([run()]),
        lambda: store.runs.last_fires({TaskId(1, 0): Span(0, 1)}),
        lambda: store.leases.leases(),
        lambda: store.terms.take("m1"),
        lambda: store.assignments.load(),
    ]
    for call in calls:
        with pytest.raises(UnavailableError):
            call()
    proxy.mend()
    assert store.jobs.page(JobQuery()) == [job]


def test_connections_that_died_while_idle_are_not_noticed_by_callers(
    store: Store, mariadb_server: MariaDB, mariadb_store_url: str
) -> None:
    job = store.jobs.create(new_job("a"))
    for _ in range(2):
        _kill_connections(mariadb_server, mariadb_store_url)
        assert store.jobs.get(job.id) == job
        _kill_connections(mariadb_server, mariadb_store_url)
        mine = run(fire_ms=time.time_ns())
        assert store.runs.claim([mine]) == {mine.key: True}


def test_t31_mysql_wait_timeout(mariadb_server: MariaDB, mariadb_store_url: str) -> None:
    """A server that ends idle connections after two seconds is not noticed by callers who come every three."""
    ((_, usual),) = mariadb_server.execute("SHOW GLOBAL VARIABLES LIKE 'wait_timeout'")
    mariadb_server.execute("SET GLOBAL wait_timeout = 2")
    store = open_store(mariadb_store_url, pool_size=4)
    try:
        job = store.jobs.create(new_job("a"))
        with ThreadPoolExecutor(4) as pool:
            for turn in range(2):
                # Four connections are open now, and idle.
                assert all(pool.map(lambda _: store.jobs.get(job.id) == job, range(8)))
                time.sleep(3.0)
                assert _connections(mariadb_server, mariadb_store_url) == 0, "they were not ended"
                mine = run(fire_ms=(turn + 1) * MINUTE_MS)
                assert store.runs.claim([mine]) == {mine.key: True}
                assert store.jobs.create(new_job(f"b{turn}")).id > job.id
    finally:
        mariadb_server.execute(f"SET GLOBAL wait_timeout = {usual}")
        store.close()


def _connections(server: MariaDB, url: str) -> int:
    name = make_url(url).database
    ((count,),) = server.execute(f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}'")
    return int(str(count))


def test_a_connection_that_leads_nowhere_after_a_rest_is_replaced(store: Store, proxy: LossyProxy) -> None:
    store.ping()
    time.sleep(PING_AFTER_S + 0.2)
    # As a firewall does that has forgotten the connection: it swallows the question whether anybody is there.
    proxy.lose(Lose.EVERYTHING, PING)
    begun = time.monotonic()
    job = store.jobs.create(new_job("a"))
    assert proxy.pending_faults() == 0
    assert time.monotonic() - begun < BOUND_S
    assert store.jobs.page(JobQuery()) == [job]


def test_a_row_that_somebody_locks_is_waited_for(store: Store, mariadb_server: MariaDB, mariadb_store_url: str) -> None:
    job = store.jobs.create(new_job("a"))
    other = mariadb_server.connect(make_url(mariadb_store_url).database)
    release = threading.Timer(1.0, other.rollback)
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", (job.id,))
        release.start()
        store.jobs.replace(changed(job, description="new"), expected_generation=1)
    finally:
        release.join()
        other.close()
    assert store.jobs.get(job.id).spec.description == "new"


def test_a_deadlock_is_resolved_inside(truth: Store, mariadb_server: MariaDB, mariadb_store_url: str) -> None:
    first, second, *others = truth.jobs.save_many([new_job(f"j{i}") for i in range(52)], [], [])
    before = _deadlocks(mariadb_server)
    other = mariadb_server.connect(make_url(mariadb_store_url).database)
    # Finishing comes first in a transaction: it holds the first row and will wait for the second.
    edit = (changed(second, description="new"), 1)
    writer = threading.Thread(target=truth.jobs.save_many, args=([], [edit], [first.id]))
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            # The server undoes the transaction that has changed less, and that shall be ours.
            cursor.execute("UPDATE jobs SET generation = 9 WHERE id >= %s", (others[0].id,))
            cursor.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", (second.id,))
            writer.start()
            _wait_for_a_lock_wait(mariadb_server)
            cursor.execute("SELECT id FROM jobs WHERE id = %s FOR UPDATE", (first.id,))
            cursor.execute("ROLLBACK")
    finally:
        other.close()
        writer.join()
    assert _deadlocks(mariadb_server) == before + 1
    assert truth.jobs.get(second.id) == edit[0]
    assert truth.jobs.get(first.id).state is JobState.FINISHED


def _deadlocks(server: MariaDB) -> int:
    ((_, count),) = server.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    return int(str(count))


def _wait_for_a_lock_wait(server: MariaDB) -> None:
    deadline = time.monotonic() + 4  # less than the server's patience with the one who waits
    while not server.execute("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"):
        assert time.monotonic() < deadline, "the writer never came to wait"
        time.sleep(0.02)


def _kill_connections(server: MariaDB, url: str) -> None:
    name = make_url(url).database
    for (number,) in server.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
        server.execute(f"KILL CONNECTION {number}")
