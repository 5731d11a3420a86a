"""An answer of a fence vouches for the instant at which it was asked: the process may have been stopped since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Delivery
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.errors import UnavailableError
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_coordinator import MemoryCoordinator, MemoryEnsemble
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper.testing.memory_store_runs import MemoryRunStore
from cronkeeper.wire.znodes import ClaimNote
from cronkeeper_worker.fences import Answer, Fence, Fences, Outcome

RUN = Run(RunKey(TaskId(17, 0), 60_000, 1), Trigger.TIMER, RunState.CLAIMED, "w1", "mine")
#: How long MySQL keeps us waiting, and how long the process is stopped between asking and reading.
WAIT_MS, PAUSE_MS = 5_000, 17_000


@dataclass
class Town:
    """Both stores; whoever is asked, `after` happens before the answer is read."""

    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.clock, ensemble = FakeClock(), MemoryEnsemble()
        self.store = MemoryStore(self.clock)
        self.coordinator = MemoryCoordinator(ensemble, "w1", clock=self.clock)
        self.coordinator.start(1.0)
        self.coordinator.ensure_layout()
        self.fences = Fences(self.store.runs, lambda: self.coordinator, claim_wait_s=5, clock=self.clock)

    def slow_mysql(self, wait_ms: int, *, answers: bool) -> None:
        claim = self.store.runs.claim

        def slowly(_self: MemoryRunStore, runs: Sequence[Run]) -> dict[RunKey, bool]:
            found = claim(runs)
            self.clock.advance_ms(wait_ms)
            if not answers:
                raise UnavailableError("MySQL's answer is lost")
            return found

        self.monkeypatch.setattr(MemoryRunStore, "claim", slowly)

    def slow_zookeeper(self, *, answers: bool) -> None:
        claim = self.coordinator.claim

        def slowly(key: RunKey, note: ClaimNote) -> bool:
            mine = claim(key, note)
            self.clock.advance_ms(PAUSE_MS)
            if not answers:
                raise UnavailableError("ZooKeeper's answer is lost")
            return mine

        self.monkeypatch.setattr(self.coordinator, "claim", slowly)

    def claim(self, delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Answer:
        return self.fences.claim([RUN], {RUN.key: delivery})[RUN.key]


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    made = Town(monkeypatch)
    yield made
    made.fences.close()


def mysql_answers(town: Town) -> None:
    town.slow_mysql(PAUSE_MS, answers=True)


def mysql_is_silent(town: Town) -> None:
    town.slow_mysql(WAIT_MS, answers=False)


def zookeeper_answers(town: Town) -> None:
    mysql_is_silent(town)
    town.slow_zookeeper(answers=True)


def nobody_answers(town: Town) -> None:
    mysql_is_silent(town)
    town.slow_zookeeper(answers=False)


@pytest.mark.parametrize(
    ("happens", "fence", "asked_after_ms"),
    [
        (mysql_answers, Fence.MYSQL, 0),
        # ZooKeeper is asked once MySQL has kept us waiting.
        (zookeeper_answers, Fence.ZOOKEEPER, WAIT_MS),
        (nobody_answers, Fence.NONE, WAIT_MS),
    ],
)
def test_an_answer_counts_from_its_own_asking(
    town: Town, happens: Callable[[Town], None], fence: Fence, asked_after_ms: int
) -> None:
    began_s = town.clock.boot_s()
    happens(town)
    assert town.claim() == Answer(Outcome.GRANTED, fence, began_s + asked_after_ms / 1000)


def test_under_at_most_once_zookeeper_is_not_asked(town: Town) -> None:
    nobody_answers(town)
    answer = town.claim(Delivery.AT_MOST_ONCE)
    assert (answer.outcome, answer.fence) == (Outcome.UNDECIDED, Fence.NONE)
    assert town.coordinator.claims(tasks=[RUN.key.task]) == {}
