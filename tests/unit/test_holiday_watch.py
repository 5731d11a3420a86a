"""Who runs out of holidays is told in time, once a day, and by every new leader."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.calendars import Calendar, ends_within
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import Job, JobSpec, JobState, JobType
from cronkeeper.ports import Event
from cronkeeper.runtime.metrics import ManagerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper_cli.doctor import holidays_finding
from cronkeeper_manager.holiday_watch import HolidayWatch, last_told
from cronkeeper_manager.leading import Notes
from cronkeeper_manager.mysql_watch import MysqlWatch

NOW = parse_rfc3339("2026-11-21T00:00:00Z")
DAY_MS = 86_400_000


def job(job_id: int, last_year: int | None, state: JobState = JobState.ACTIVE) -> Job:
    dates = {} if last_year is None else {"DE": (date(2026, 1, 1), date(last_year, 12, 25))}
    spec = JobSpec("ls", "0 9 * * *", JobType.COMMAND, calendar=Calendar(("DE",)), holiday_dates=dates)
    return Job(job_id, spec, 1, state, 0, 0, 0, b"")


class Leader:
    """One leader's watch over a store that outlives it."""

    def __init__(self, store: MemoryStore, clock: FakeClock) -> None:
        self.clock = clock
        self.store = store
        self.metrics = ManagerMetrics(CollectorRegistry())
        self.notes = Notes(store, clock)
        self.watch = HolidayWatch(store, self.notes, self.metrics)

    def round(self, *pages: Sequence[Job]) -> None:
        for page in pages:
            self.watch.look(page, self.clock.now_ms())
        self.watch.end_round(self.clock.now_ms())
        self.notes.flush(MysqlWatch(self.store, self.clock, background=False))

    def told(self) -> list[Event]:
        return [event for event in reversed(self.store.events.latest(limit=100)) if event.kind.startswith("calendars.")]


@pytest.fixture
def leader() -> Leader:
    clock = FakeClock(NOW)
    return Leader(MemoryStore(clock), clock)


@pytest.mark.parametrize(
    ("now", "months", "expected"),
    [
        ("2027-06-30T23:59:59Z", 18, False),
        ("2027-07-01T00:00:00Z", 18, True),
        ("2026-12-31T23:59:59Z", 24, False),
        ("2027-01-01T00:00:00Z", 24, True),
        ("2029-01-01T00:00:00Z", 18, True),
    ],
)
def test_the_shortest_region_counts(now: str, months: int, expected: bool) -> None:
    known = {"DE": (date(2036, 12, 25),), "FR": (date(2028, 5, 1),)}
    assert ends_within(known, months, now_ms=parse_rfc3339(now)) is expected
    assert not ends_within({}, months, now_ms=parse_rfc3339(now))


def test_it_is_told_once_and_again_the_next_day(leader: Leader) -> None:
    for _ in range(3):
        leader.round([job(1, 2036), job(2, 2027)], [job(3, 2026), job(4, None), job(5, 2026, JobState.FINISHED)])
        leader.clock.advance_ms(1000)
    (event,) = leader.told()
    assert (event.kind, event.subject) == ("calendars.ending", "fleet")
    assert event.detail.startswith("2 jobs know their holidays for less than 18 months: 2, 3")
    leader.clock.advance_ms(DAY_MS)
    leader.round([job(2, 2027), job(3, 2026)])
    assert len(leader.told()) == 2
    leader.round([job(2, 2027)])
    assert [event.detail[:5] for event in leader.told()] == ["2 job", "2 job", "1 job"]


def test_the_end_of_it_is_told_also_by_the_next_leader(leader: Leader) -> None:
    leader.round([job(1, 2036)])
    assert leader.told() == []
    leader.round([job(1, 2026)])
    leader.clock.advance_ms(1000)
    following = Leader(leader.store, leader.clock)
    following.round([job(1, 2036)])
    following.round([job(1, 2036)])
    assert [event.kind for event in leader.told()] == ["calendars.ending", "calendars.renewed"]
    Leader(leader.store, leader.clock).round([job(1, 2036)])
    assert len(leader.told()) == 2


def test_the_metric_counts_the_jobs_of_the_last_round(leader: Leader) -> None:
    for jobs, count in (([job(1, 2026), job(2, 2026)], 2), ([], 0)):
        leader.round(jobs)
        assert leader.metrics.holidays_ending._value.get() == count


def test_doctor_repeats_what_was_told_last(leader: Leader) -> None:
    assert holidays_finding(last_told(leader.store)).mend == ""
    leader.round([job(1, 2026)])
    found = holidays_finding(last_told(leader.store))
    assert (found.fault, "1 jobs" in found.seen, found.mend) == (False, True, "run: cronkeeper calendars refresh")
    leader.clock.advance_ms(1000)
    leader.round([])
    assert holidays_finding(last_told(leader.store)).mend == ""
