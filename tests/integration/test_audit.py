"""The auditor on a real MariaDB: verdicts, the mark and its events, across leaders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import FencedError
from cronkeeper.ports import Store
from cronkeeper.store import open_store
from cronkeeper.store.upgrade import upgrade
from cronkeeper_manager.service import Answers
from tests.unit.manager_town import NOON_MS, Manager, Town

MINUTE_MS = 60_000


class RealTown(Town):
    """The small fleet, with its truth in MariaDB."""

    def __init__(self, store: Store, *workers: str) -> None:
        super().__init__()
        self.store = store  # type: ignore[assignment]  # nothing here asks for more than a Store
        self.managers = [Manager(self, "m1")]
        for name in workers:
            self.join(name)

    def let_mysql_answer(self, up: bool) -> None:
        """It is a real one, and does all the time."""
        assert up

    def live(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance_ms(10_000)
            self.step()
            seconds -= 10


@pytest.fixture
def town(mariadb_url: str) -> Iterator[RealTown]:
    upgrade(mariadb_url)
    store = open_store(mariadb_url, pool_size=3)
    found = RealTown(store, "w1")
    found.live(120)
    yield found
    store.close()


def record(town: RealTown, job_id: int, minute: int) -> None:
    fire_ms = NOON_MS + minute * MINUTE_MS
    key = RunKey(TaskId(job_id, 0), fire_ms, 1)
    town.store.runs.record([Run(key, Trigger.TIMER, RunState.SUCCEEDED, "w1", nonce=f"n{minute}", claimed_ms=fire_ms)])


def test_verdicts_are_given_withdrawn_and_answered_for_across_leaders(town: RealTown) -> None:
    job = town.create("* * * * *", grace_s=0)
    nowhere = town.create("*/2 * * * *", grace_s=0, selector="zone=mars")
    town.live(20)
    record(town, job.id, 3)
    town.live(3 * 60)
    first = town.managers[0]
    town.managers.append(Manager(town, "m2"))
    first.die()
    town.managers.remove(first)
    record(town, job.id, 7)
    town.live(5 * 60)
    record(town, job.id, 5)
    town.live(30)

    audit = town.store.audit
    minutes = [(item.fire.fire_ms - NOON_MS) // MINUTE_MS for item in audit.missed_of(job.id, limit=100)]
    assert minutes == [9, 8, 6, 4]
    assert {item.reason for item in audit.missed_of(nowhere.id, limit=100)} == {"no_worker_fits"}
    told = [event.detail for event in town.store.events.latest(limit=100, kind="fire.missed", subject=f"{job.id}/0")]
    # Word by word: each of them once, also those about which the leadership changed hands.
    assert sorted(detail[:20] for detail in told) == [f"2026-03-01T12:0{minute}:00Z" for minute in (4, 5, 6, 8, 9)]
    (withdrawn,) = town.store.events.latest(limit=9, kind="fire.withdrawn")
    assert withdrawn.detail.startswith("2026-03-01T12:05:00Z")

    answers = Answers(town.store, town.clock)
    outcomes = [answers.why(job.id, at_ms=NOON_MS + minute * MINUTE_MS).decision.value for minute in range(3, 11)]
    assert outcomes == ["run", "missed", "run", "missed", "run", "missed", "missed", "pending"]


def test_a_leader_of_the_past_gives_no_verdict(town: RealTown) -> None:
    job = town.create("* * * * *", grace_s=0)
    town.live(20)
    before = town.store.audit.mark()
    town.store.terms.take("somebody else")
    with pytest.raises(FencedError):
        town.live(5 * 60)
    assert town.store.audit.mark() == before
    assert town.store.audit.missed_of(job.id, limit=9) == []
