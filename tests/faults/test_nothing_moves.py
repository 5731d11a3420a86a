"""Faults that move nothing and that no fire notices (T06, T10, T11, T22).

They befall one fleet one after the other, under one load, so that setting up, recovery and judgement come once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.faults import reading
from tests.faults.bonds import Bonds, assert_no_run_was_killed, loaded
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, spread
from tests.faults.fleet import Fleet
from tests.faults.leaders import leader_storm
from tests.faults.trial import Bounds, Trial

pytestmark = pytest.mark.timeout(600)

#: More than twice a session.
CUT_S = 14.0
#: Longer than a silent witness is waited for (15 s) and a lost worker's tasks take to move (10 s).
QUORUM_LOST_S = 28.0
#: Nobody has to be replaced: once a part is back, all is well after some seconds.
QUICK = Bounds(recovery_s=8.0)
STEADY_S = 8.0


@dataclass
class Ordeal:
    """What befell the fleet, and what was seen. Every fire was judged already when a test gets it."""

    trial: Trial
    #: Who had what before all of it.
    before: Bonds
    #: Beginning and end of each fault, epoch seconds, and who had what after it. Moves there and back are in the logs.
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    assigned: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @contextlib.contextmanager
    def span(self, name: str, kind: FaultKind, targets: Sequence[str]) -> Iterator[None]:
        """Do a fault for the length of a `with`, and let the fleet recover: none excuses what the next one does."""
        with self.seen(name), self.trial.fault(kind, targets):
            yield

    @contextlib.contextmanager
    def seen(self, name: str) -> Iterator[None]:
        """Note when something happened to the fleet, and who has what once it has recovered."""
        since_s = time.time()
        yield
        self.spans[name] = (since_s, time.time())
        self.trial.wait(QUICK.recovery_s)
        self.assigned[name] = reading.assigned(self.trial.fleet)

    def assert_no_fire_noticed(self, name: str) -> None:
        """Every fire of a job of every two seconds ran once and on time, and every task stayed where it was."""
        since_s, until_s = self.spans[name]
        late = assert_unbroken(self.trial, "tick", 2, since_s=since_s, until_s=until_s)
        print(f"lateness meanwhile: {spread(late)}")
        assert max(late) <= self.trial.bounds.on_time_s
        assert self.assigned[name] == self.before.assigned


@pytest.fixture(scope="module")
def ordeal(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with Trial(fleet, tmp_path_factory.mktemp("ordeal") / "history", bounds=QUICK) as trial:
        found = Ordeal(trial, loaded(trial))
        owner = trial.owner("tick")
        with found.span("idle", FaultKind.CUT_ZOOKEEPER, [owner]):
            trial.wait(CUT_S)
        names = [name for name in trial.jobs if name != "tick"]
        with found.span("busy", FaultKind.CUT_ZOOKEEPER, [owner]):
            for turn in range(int(CUT_S)):
                trial.run(names[turn % len(names)])
                trial.wait(1.0)
        quorum = Bonds(fleet, int(time.time() * 1000))
        with found.span("quorum", FaultKind.ZOOKEEPER_QUORUM_LOST, trial.chance.sample(fleet.zookeepers, 2)):
            trial.wait(QUORUM_LOST_S)
        quorum.assert_same_sessions()
        with found.seen("leaders"):
            leader_storm(trial, kills=3, every_s=9.0)
        trial.finish(steady_s=STEADY_S)
        found.before.assert_no_move()
        assert_no_run_was_killed(trial)
        yield found


def test_t10_worker_zk_cut_idle(ordeal: Ordeal) -> None:
    """Nothing moves and nothing is late: the lease in MySQL says that the worker lives."""
    ordeal.assert_no_fire_noticed("idle")


def test_t11_worker_zk_cut_busy(ordeal: Ordeal) -> None:
    """The same for a worker that goes on talking to ZooKeeper, whose client then never notices by itself."""
    ordeal.assert_no_fire_noticed("busy")


def test_t22_zk_quorum_loss(ordeal: Ordeal) -> None:
    """No fire is missed, every session is the same afterwards, nothing has moved, and no run was killed."""
    ordeal.assert_no_fire_noticed("quorum")


def test_t06_leader_kill9_storm(ordeal: Ordeal) -> None:
    """Each leader is replaced within ten seconds, and no fire notices."""
    ordeal.assert_no_fire_noticed("leaders")
