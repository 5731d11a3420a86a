"""The watch over cron: who is silent is told within two minutes, and who is not is left in peace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper_worker import cron_watch
from cronkeeper_worker.cron_sentry import LOOK_S, CronSentry
from cronkeeper_worker.cron_watch import MEND_AGAIN_S, Finding, Now, Watch
from cronkeeper_worker.journal import Journal

SILENT_S = 110.0
TICK, OLD_TICK, OTHER_TICK = 11, 10, 12


@dataclass
class Town:
    """A watch that is looked at every five seconds, on a clock of its own; `numbers` is what cron calls with."""

    watch: Watch = field(default_factory=Watch)
    now_s: float = 1000.0
    wall_s: float = 5_000_000.0
    numbers: tuple[int, ...] = ()
    found: list[tuple[float, Finding]] = field(default_factory=list)

    def install(self, *ticks: int) -> None:
        self.watch = cron_watch.installed(self.watch, ticks, self.now_s)

    def run(self, seconds: float) -> None:
        """Let time pass; cron calls at second one of each minute."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s, self.wall_s = self.now_s + 1, self.wall_s + 1
            if int(self.now_s) % 60 == 1:
                for number in self.numbers:
                    self.watch = cron_watch.called(self.watch, number, self.now_s)
            if int(self.now_s) % int(LOOK_S) == 0:
                self.look()

    def look(self) -> None:
        self.watch, finding = cron_watch.look(self.watch, Now(self.now_s, self.wall_s), SILENT_S)
        self.found.append((self.now_s, finding))

    @property
    def news(self) -> list[str]:
        return [finding.news for _, finding in self.found if finding.news]


@pytest.fixture
def town() -> Town:
    """A node whose cron has been calling for a while."""
    town = Town(numbers=(TICK,))
    town.install(TICK)
    town.run(300)
    return town


def test_a_cron_that_calls_is_left_in_peace(town: Town) -> None:
    town.run(3600)
    assert not any(finding.silent or finding.mend for _, finding in town.found)
    assert town.news == []


@pytest.mark.parametrize("dies_after_s", range(0, 61, 5))
def test_a_dead_cron_is_told_once_within_two_minutes_and_so_is_its_return(town: Town, dies_after_s: int) -> None:
    town.run(dies_after_s)
    died_s, town.numbers = town.now_s, ()
    town.run(600)
    ((told_s, finding),) = [found for found in town.found if found[1].news]
    assert (finding.news, finding.silent, finding.mend) == ("cron.silent", True, True)
    assert "dead, stopped" in finding.words
    assert told_s - died_s <= 120
    assert town.found[-1][1].silent
    town.numbers = (TICK,)
    town.run(70)
    assert town.news == ["cron.silent", "cron.back"]
    assert not town.found[-1][1].silent


def test_a_cron_that_goes_by_an_older_text_is_told_though_it_calls(town: Town) -> None:
    town.numbers = (OLD_TICK,)
    town.install(TICK + 1)
    installed_s = town.now_s
    town.run(115)
    (told_s, finding) = next(found for found in town.found if found[1].news)
    assert told_s - installed_s <= 120
    assert (finding.news, finding.mend) == ("cron.silent", True)
    assert "older text" in finding.words
    town.numbers = (TICK + 1,)
    town.run(70)
    assert town.news == ["cron.silent", "cron.back"]


def test_one_file_of_two_that_cron_ignores_is_told(town: Town) -> None:
    town.install(TICK, OTHER_TICK)
    town.run(300)
    assert town.news == ["cron.silent"]
    town.numbers = (TICK, OTHER_TICK)
    town.run(130)
    assert town.news == ["cron.silent", "cron.back"]


def test_an_edit_gives_cron_its_time(town: Town) -> None:
    """It reads a new text up to a minute later, and calls with the old number until then."""
    town.install(OTHER_TICK)
    town.run(60)
    town.numbers = (OTHER_TICK,)
    town.run(300)
    assert town.news == []


def test_edits_without_end_hide_no_dead_cron(town: Town) -> None:
    town.numbers = ()
    for number in range(100, 112):
        town.install(number)
        town.run(10)
    assert town.news == ["cron.silent"]


def test_edits_of_one_file_hide_no_other_that_cron_ignores(town: Town) -> None:
    for number in range(100, 104):
        town.install(number, OTHER_TICK)
        town.numbers = (number,)
        town.run(50)
    assert town.news == ["cron.silent"]
    assert "older text" in next(finding.words for _, finding in town.found if finding.news)


def test_edits_without_end_are_forgotten(town: Town) -> None:
    for number in range(100, 150):
        town.install(number)
        town.numbers = (number,)
        town.run(60)
    assert town.watch.heard == {149}
    assert set(town.watch.waiting) == {149}


def test_a_sleep_makes_no_silent_cron_well(town: Town) -> None:
    town.numbers = ()
    town.run(200)
    town.now_s, town.wall_s = town.now_s + 600, town.wall_s + 600
    town.run(100)
    assert town.news == ["cron.silent"]
    assert town.found[-1][1].silent


@pytest.mark.parametrize("gap_s", [31, 600, 8 * 3600])
def test_after_a_sleep_or_a_stop_cron_gets_its_whole_time(town: Town, gap_s: int) -> None:
    town.now_s, town.wall_s = town.now_s + gap_s, town.wall_s + gap_s
    town.run(60)
    town.numbers = ()
    town.run(40)
    assert town.news == []
    town.run(80)
    assert town.news == ["cron.silent"]


@pytest.mark.parametrize("step_s", [-59, -3600, 3600])
def test_after_the_clock_was_set_cron_gets_its_whole_time(town: Town, step_s: int) -> None:
    town.numbers = ()
    town.run(60)
    town.wall_s += step_s
    town.run(100)
    assert town.news == []
    town.run(20)
    assert town.news == ["cron.silent"]


def test_a_daemon_that_starts_waits_before_it_judges() -> None:
    town = Town()
    town.install(TICK)
    town.run(105)
    assert town.news == []
    town.run(15)
    assert town.news == ["cron.silent"]


@pytest.mark.parametrize("number", [TICK, OTHER_TICK])
def test_without_entries_nothing_is_expected(town: Town, number: int) -> None:
    town.install()
    town.numbers = ()
    town.run(1000)
    assert not any(finding.silent or finding.news for _, finding in town.found)
    town.install(number)
    town.run(105)
    assert town.news == []


def test_while_cron_is_silent_the_crontab_is_put_in_place_anew_now_and_then(town: Town) -> None:
    town.numbers = ()
    town.run(SILENT_S + 3 * MEND_AGAIN_S)
    mended = [at_s for at_s, finding in town.found if finding.mend]
    assert [later - before for before, later in pairwise(mended)] == [MEND_AGAIN_S] * 3


def test_what_is_not_heard_properly_is_not_back(town: Town) -> None:
    town.numbers = ()
    town.run(200)
    town.numbers = (OLD_TICK,)
    town.run(400)
    assert town.news == ["cron.silent"]
    assert town.found[-1][1].silent


EVENTS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 400)),
    st.tuples(st.just("cron"), st.sampled_from([(), (TICK,), (OLD_TICK,), (TICK, OTHER_TICK), (OTHER_TICK,)])),
    st.tuples(st.just("install"), st.sampled_from([(), (TICK,), (OTHER_TICK,), (TICK, OTHER_TICK)])),
    st.tuples(st.just("sleep"), st.integers(40, 9000)),
    st.tuples(st.just("set"), st.integers(-9000, 9000)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_happened_the_truth_is_told_two_minutes_later(events: list[tuple[str, object]]) -> None:
    town = Town(numbers=(TICK,))
    for kind, value in events:
        match kind, value:
            case "run", int(seconds):
                town.run(seconds)
            case "cron", tuple(numbers):
                town.numbers = numbers
            case "install", tuple(ticks):
                town.install(*ticks)
            case "sleep", int(seconds):
                town.now_s, town.wall_s = town.now_s + seconds, town.wall_s + seconds
            case "set", int(seconds):
                town.wall_s += seconds
    town.run(130)
    wanted = set(town.watch.waiting)
    assert town.found[-1][1].silent == bool(wanted - set(town.numbers))
    # Silence and return take turns, and silence comes first.
    assert town.news == ["cron.silent", "cron.back"] * (len(town.news) // 2) + ["cron.silent"] * (len(town.news) % 2)


# -------------------------------------------------------------------------------------------------------- the sentry


class Node:
    """A sentry over a real journal, on a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.registry = CollectorRegistry()
        self.mended = 0
        self.journal = Journal(folder / "journal.db")
        self.sentry = self.start()

    def start(self) -> CronSentry:
        self.registry = CollectorRegistry()
        metrics = WorkerMetrics(self.registry)
        return CronSentry("w1", self.journal, self.clock, metrics, silent_s=SILENT_S, mend=self._mend)

    def _mend(self) -> None:
        self.mended += 1
        self.sentry.installed([TICK])

    def run(self, seconds: int, *, cron: bool) -> None:
        for second in range(0, seconds, 5):
            if cron and second % 60 == 0:
                self.sentry.called(TICK)
            self.clock.advance_ms(5000)
            self.sentry.step()

    @property
    def gauge(self) -> float | None:
        return self.registry.get_sample_value("cronkeeper_worker_cron_silent")

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.subject) for event in self.journal.untold(100).values()]


def test_the_sentry_tells_by_event_and_metric_and_mends(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.sentry.installed([TICK])
    node.run(300, cron=True)
    assert (node.gauge, node.told, node.mended) == (0, [], 0)
    node.run(200, cron=False)
    assert (node.gauge, node.told, node.mended) == (1, [("cron.silent", "w1")], 1)
    node.run(120, cron=True)
    assert (node.gauge, node.told, node.mended) == (0, [("cron.silent", "w1"), ("cron.back", "w1")], 1)


def test_a_daemon_that_starts_anew_does_not_tell_again_and_tells_the_return(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.sentry.installed([TICK])
    node.run(200, cron=False)
    node.journal.mark_told(node.journal.untold(100))
    node.sentry = node.start()
    node.sentry.installed([TICK])
    node.run(300, cron=False)
    assert (node.gauge, node.told) == (1, [])
    node.run(120, cron=True)
    assert (node.gauge, node.told) == (0, [("cron.back", "w1")])


def test_news_that_the_journal_cannot_take_are_told_later(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.sentry.installed([TICK])
    node.journal._db.execute("PRAGMA query_only = 1")
    node.run(200, cron=False)
    assert node.told == []
    node.journal._db.execute("PRAGMA query_only = 0")
    node.run(5, cron=False)
    assert (node.gauge, node.told, node.mended) == (1, [("cron.silent", "w1")], 1)


def test_a_watch_is_a_value() -> None:
    watch = Watch(waiting={TICK: 1.0})
    cron_watch.called(watch, TICK, 5.0)
    cron_watch.installed(watch, [OTHER_TICK], 5.0)
    cron_watch.look(watch, Now(500.0, 500.0), SILENT_S)
    assert watch == replace(Watch(), waiting={TICK: 1.0})
