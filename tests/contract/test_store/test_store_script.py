"""Statements that are sent together: the same rows and the same refusals as if they had been sent one by one."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import IntegrityError

from cronkeeper.errors import CronkeeperError, UnavailableError
from cronkeeper.ports import JobQuery
from cronkeeper.store.engine import make_engine
from cronkeeper.store.jobs import SqlJobStore
from cronkeeper.store.script import Script
from cronkeeper.store.session import Database
from tests.contract.test_store.builders import new_job

INSERT = "INSERT INTO `job_labels` (`job_id`, `key`, `value`) VALUES (%s, %s, %s)"


class Watched:
    """A database, and the statements that were sent to it."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url, pool_size=1)
        self.db = Database(self.engine)
        self.sent: list[str] = []
        event.listen(self.engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.sent.append(statement)

    def labels(self) -> list[tuple[Any, ...]]:
        text = "SELECT `job_id`, `key`, `value` FROM `job_labels` ORDER BY `job_id`, `key`"
        return self.db.read(lambda conn: [tuple(row) for row in conn.exec_driver_sql(text)])

    def play(self, *rows: tuple[Any, ...]) -> None:
        def body(script: Script) -> None:
            for row in rows:
                script.exec_driver_sql(INSERT, row)

        self.db.script(body, landed=_not_at_all)


def _not_at_all(_: Connection) -> bool:
    raise AssertionError("no answer was lost")


@pytest.fixture
def watched(mariadb_store_url: str) -> Iterator[Watched]:
    watched = Watched(mariadb_store_url)
    yield watched
    watched.db.close()


def test_what_nobody_waits_for_goes_with_the_commit(watched: Watched) -> None:
    watched.play((1, "a", "x"), (2, "b", "y"))
    assert watched.labels() == [(1, "a", "x"), (2, "b", "y")]
    assert len(watched.sent) == 2
    assert watched.sent[0].startswith("BEGIN NOT ATOMIC START TRANSACTION; INSERT")
    assert watched.sent[0].endswith("; COMMIT; END")


def test_where_the_server_is_no_mariadb_each_goes_by_itself(watched: Watched) -> None:
    watched.labels()
    watched.engine.dialect.is_mariadb = False  # type: ignore[attr-defined]
    watched.sent.clear()
    watched.play((1, "a", "x"), (2, "b", "y"))
    assert watched.sent == ["START TRANSACTION", INSERT, INSERT, "COMMIT"]


@pytest.mark.parametrize(
    "text",
    ["100 %", "%s %(a)s", "it's", 'say "x"', "a; COMMIT; END", "\\", "\\'", "'; DROP TABLE `jobs`; --", ":a", ""],
)
def test_values_arrive_as_they_are(watched: Watched, text: str) -> None:
    watched.play((1, "a", text), (2, "b", text))
    assert watched.labels() == [(1, "a", text), (2, "b", text)]


def test_any_text_of_a_job_arrives_as_it_is(watched: Watched) -> None:
    text = "ä € 💚 % %s '\" \\ ; END \x1a\x00 " * 9
    for count in (1, 2):
        jobs = [new_job(f"{count}-{number}", executable=text, description=text) for number in range(count)]
        store = SqlJobStore(watched.db)
        saved = store.save_many(jobs, [], [])
        assert [job for job in store.page(JobQuery()) if job in saved] == saved
        assert {(job.spec.executable, job.spec.description) for job in saved} == {(text, text)}


def test_one_that_is_refused_undoes_all_and_the_refusal_is_that_of_the_one(watched: Watched) -> None:
    refused: list[str] = []

    def body(script: Script) -> None:
        script.exec_driver_sql(INSERT, (1, "a", "x"))
        try:
            script.exec_driver_sql(INSERT, (1, "a", "y"))
        except IntegrityError as exc:
            refused.append(str(exc.orig))
        script.exec_driver_sql(INSERT, (2, "b", "z"))

    watched.db.script(body, landed=_not_at_all)
    assert [text for text in refused if "1062" in text] == refused
    assert len(refused) == 1
    assert watched.labels() == [(1, "a", "x"), (2, "b", "z")]


def test_a_statement_that_cannot_be_read_leaves_nothing_behind(watched: Watched) -> None:
    def body(script: Script) -> None:
        script.exec_driver_sql(INSERT, (1, "a", "x"))
        script.exec_driver_sql("INSERT INTO `no_such_table` VALUES (1)")

    with pytest.raises(UnavailableError):
        watched.db.script(body, landed=_not_at_all)
    assert watched.labels() == []
    watched.play((3, "c", "x"))
    assert watched.labels() == [(3, "c", "x")]


def test_much_is_not_kept_back(watched: Watched) -> None:
    watched.play(*((number, "k" * 190, "v" * 190) for number in range(400)))
    assert len(watched.labels()) == 400
    assert max(map(len, watched.sent)) < 110_000


RETURNING = "INSERT INTO `job_labels` (`job_id`, `key`, `value`) VALUES (7, 'k', 'v') RETURNING `job_id`"
UNDONE = "ROLLBACK; SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock'"


def test_a_failure_behind_an_answer_is_heard(watched: Watched) -> None:
    """Another member's commit wins between an answer's rows and its end: what comes after it has no transaction."""
    calls: list[int] = []

    def body(script: Script) -> list[Any]:
        calls.append(1)
        answer = script.ask(RETURNING if len(calls) > 1 else f"{RETURNING}; {UNDONE}")
        script.exec_driver_sql(INSERT, (8, "after", str(len(calls))))
        return [job_id for (job_id,) in answer.rows or []]

    assert watched.db.script(body, landed=_not_at_all) == [7]
    assert len(calls) == 2
    assert watched.labels() == [(7, "k", "v"), (8, "after", "2")]


@pytest.mark.parametrize("rest", [[], [(8, "after", "x")], [(8, "after", "x"), (9, "after", "y")]])
@pytest.mark.parametrize("last_is_asked", [False, True])
def test_nothing_is_written_without_the_transaction(
    watched: Watched, rest: list[tuple[Any, ...]], last_is_asked: bool
) -> None:
    calls: list[int] = []

    def body(script: Script) -> None:
        calls.append(1)
        script.exec_driver_sql(INSERT, (7, "k", "v"))
        if len(calls) == 1:
            script.conn.exec_driver_sql("ROLLBACK")
        for row in rest:
            script.exec_driver_sql(INSERT, row)
        if last_is_asked:
            script.ask(INSERT, (10, "asked", str(len(calls))))

    watched.db.script(body, landed=_not_at_all)
    assert len(calls) == 2
    assert watched.labels() == [(7, "k", "v"), *rest, *([(10, "asked", "2")] if last_is_asked else [])]


def test_what_cannot_be_sent_leaves_nothing_behind(watched: Watched) -> None:
    store = SqlJobStore(watched.db)
    with pytest.raises(UnicodeEncodeError):
        store.save_many([new_job("unsendable", labels={"k": "\ud800"})], [], [])
    saved = store.save_many([new_job("next")], [], [])
    assert watched.db.read(lambda conn: conn.exec_driver_sql("SELECT `id` FROM `jobs`").scalars().all()) == [
        saved[0].id
    ]


@pytest.mark.parametrize("labels", [{"k": "v" * 300}, {"k": "v"}])
def test_no_error_shows_what_was_to_be_saved(watched: Watched, labels: dict[str, str]) -> None:
    store = SqlJobStore(watched.db)
    if len(labels["k"]) == 1:
        store.save_many([new_job("taken")], [], [])
    secret = "TOPSECRET"
    job = new_job("taken", executable=f"curl -H {secret} x", labels=labels)
    with pytest.raises(CronkeeperError) as caught:
        store.save_many([job], [], [])
    shown = "".join(traceback.format_exception(caught.value))
    assert "several statements together" in shown
    for text in (secret, secret.encode().hex()):
        assert text not in shown


def test_no_job_gets_a_number_that_the_database_did_not_give(watched: Watched) -> None:
    """A server that answers an INSERT without rows: in a compound statement the driver knows no last number, but 0."""

    def answer_without_rows(_conn: Any, _cursor: Any, text: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return text.replace("/*M!100500 RETURNING `id` */", ""), parameters

    event.listen(watched.engine, "before_cursor_execute", answer_without_rows, retval=True)
    store = SqlJobStore(watched.db)
    with pytest.raises(UnavailableError):
        store.save_many([new_job("a")], [], [])
    assert store.job_ids() == set()
