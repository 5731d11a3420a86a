"""A year in the life of jobs, in seconds: the real gate on a virtual clock, against a brute-force evaluator.

Workers look on time, late, twice, or with a clock that was set back; they die before a decision is written down, start
again from what was, and are away for days. Jobs are edited, paused and resumed. Whatever happens, each fire that the
evaluator (tests/faults/checker) finds due has exactly one decision, and nothing else has any.

The evaluator walks minute by minute, so by default it sees the days around clock changes and edits, and some others.
`CRONKEEPER_EXAMPLES=200` lives so many lives, elsewhere each time, and walks through the whole year in each.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import Concurrency, JobSpec, JobState, JobType, Misfire
from cronkeeper.domain.run import Trigger
from cronkeeper.domain.schedule import Dst, Fold, Gap
from cronkeeper.wire.task import Signer, Task, Verifier
from cronkeeper_worker import gate
from cronkeeper_worker.gate import MAX_CATCH_UP, ON_TIME_MS, Decision, TaskView
from cronkeeper_worker.journal import TaskRow
from cronkeeper_worker.tasks import Here, install
from tests.faults.checker.evaluator import due

LONG = "CRONKEEPER_EXAMPLES" in os.environ
LIVES = int(os.environ.get("CRONKEEPER_EXAMPLES", "24"))
FIRST_SEED = random.SystemRandom().randrange(10**9) if LONG else 0
SIGNER = Signer.from_seed(bytes(range(32)))
VERIFIER = Verifier([SIGNER.public_bytes])
TASK = TaskId(17, 0)
HOUR, DAY = 3_600_000, 86_400_000
START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1000
END = START + 365 * DAY
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Africa/Casablanca"),
    *("Antarctica/Troll", "Asia/Kathmandu", "America/St_Johns", "Pacific/Auckland", "Africa/Cairo", "Asia/Beirut"),
)
SCHEDULES = (
    *("30 2 * * *", "15,45 1-3 * * *", "*/15 2 * * *", "0 * * * *", "30 */2 * * *", "0 0 * * *", "59 23 * * 1-5"),
    *("5 4 1,15 * mon", "@daily", "@hourly", "@weekly", "@monthly", "@every 7h", "@every 95m", "0 3 * * *; 30 2 * * 0"),
    *(
        "10,40 0-3 * * *",
        "20,50 30 1,2 * * *",
        "0 12 29-31 * *",
        "@at 2026-06-15T12:00:00Z",
        "*/50 1,2 * 3-4,10-11 *",
    ),
)


@dataclass(frozen=True, slots=True)
class Era:
    """From when until when (epoch ms) which spec was in force."""

    spec: JobSpec
    state: JobState
    from_ms: int
    until_ms: int = END


@dataclass(slots=True)
class Life:
    """One job's year on one worker."""

    dice: random.Random
    view: TaskView
    generation: int = 1
    eras: list[Era] = field(default_factory=list)
    #: Durable decisions by fire time.
    decided: dict[int, Decision] = field(default_factory=dict)
    #: (after, until]: what was due there was not decided before the next generation took over.
    excused: list[tuple[int, int]] = field(default_factory=list)
    away_until_ms: int = 0
    next_ms: int | None = START

    def look(self, now_ms: int, *, dies: bool = False) -> None:
        """Ask the gate, check its answer by itself, and write it down unless the worker `dies` before that."""
        verdict = gate.decide(self.view, now_ms, trigger=Trigger.TIMER)
        assert verdict.dropped == 0
        self.check_policy(verdict.decisions, now_ms)
        if dies:
            self.restart()
            return
        for decision in verdict.decisions:
            assert decision.key.fire_ms not in self.decided, f"{rfc3339(decision.key.fire_ms)} is decided twice"
            self.decided[decision.key.fire_ms] = decision
        self.view = replace(self.view, cursor_ms=verdict.cursor_ms)
        self.next_ms = verdict.next_ms

    def check_policy(self, decisions: tuple[Decision, ...], now_ms: int) -> None:
        spec = self.view.spec
        ages = [now_ms - one.key.fire_ms - spec.jitter_ms(TASK, one.key.fire_ms) for one in decisions]
        on_time_ms = min(ON_TIME_MS, spec.grace_s * 1000)
        late = [age for age in ages if on_time_ms < age <= spec.grace_s * 1000]
        wanted = {Misfire.ALL: late[-MAX_CATCH_UP:], Misfire.SKIP: [], Misfire.LATEST: late[-1:]}[spec.misfire]
        if spec.misfire is Misfire.LATEST and any(age <= on_time_ms for age in ages):
            wanted = []
        runs = [age for age, one in zip(ages, decisions, strict=True) if one.run]
        assert all(age >= 0 for age in ages), "decided before its time"
        # Jitter may make an older fire the younger one by its age.
        assert sorted(runs) == sorted([*wanted, *(age for age in ages if age <= on_time_ms)])

    def restart(self) -> None:
        """Install the task again, from its signed envelope and the cursor that was kept."""
        era = self.eras[-1]
        task = Task(TASK.job_id, self.generation, era.state, era.from_ms - 1, era.spec)
        row = TaskRow(TASK, self.generation, 1, SIGNER.seal(task), self.view.cursor_ms, None)
        item = install(row, VERIFIER, Here("w1", 0))
        self.view, self.next_ms = item.view, item.next_ms

    def edit(self, now_ms: int, spec: JobSpec, state: JobState) -> None:
        """Put a new generation in force from now on."""
        if self.eras:
            self.eras[-1] = replace(self.eras[-1], until_ms=now_ms + 1)
            if self.eras[-1].state is JobState.ACTIVE:
                self.excused.append((self.view.cursor_ms, now_ms))
        self.eras.append(Era(spec, state, now_ms + 1))
        self.generation += 1
        self.restart()


def any_spec(dice: random.Random) -> JobSpec:
    """Return a job that has at most a few fires an hour."""
    windowed = dice.random() < 0.25
    return JobSpec(
        "true",
        dice.choice(SCHEDULES),
        JobType.COMMAND,
        timezone=dice.choice(ZONES),
        dst=Dst(dice.choice([None, None, *Gap]), dice.choice([None, None, *Fold])),
        misfire=dice.choice(list(Misfire)),
        concurrency=Concurrency.ALLOW,
        grace_s=dice.choice([0, 60, 3600, 86_400]),
        jitter_s=dice.choice([0, 0, 0, 300, 1800]),
        starts_at_ms=START + dice.randrange(90 * DAY) if windowed else None,
        ends_at_ms=END - dice.randrange(90 * DAY) if windowed else None,
    )


def live(seed: int) -> Life:
    """Live through a year."""
    dice = random.Random(seed)
    spec = any_spec(dice)
    view = TaskView(TASK, spec, spec.parsed_schedule(), JobState.ACTIVE, START)
    life = Life(dice, view)
    life.edit(START, spec, JobState.ACTIVE)
    life.excused.clear()
    now_ms = START
    while now_ms < END:
        now_ms = min(END, now_ms + _step(life, now_ms))
        if now_ms >= life.away_until_ms:
            _look(life, now_ms)
        if now_ms < END and dice.random() < 0.01:
            _change(life, now_ms)
    life.look(END - 1)
    return life


def _step(life: Life, now_ms: int) -> int:
    """Return how long until something happens: mostly until the timer, at times whatever."""
    chance = life.dice.random()
    if chance < 0.03:
        life.away_until_ms = now_ms + life.dice.randrange(9 * DAY)
    if chance < 0.75 and life.next_ms is not None and life.next_ms > now_ms >= life.away_until_ms:
        return min(life.next_ms - now_ms, 3 * DAY)
    return life.dice.choice([1000, HOUR // 60, HOUR, 5 * HOUR, DAY, 2 * DAY])


def _look(life: Life, now_ms: int) -> None:
    chance = life.dice.random()
    if chance < 0.03:
        life.look(now_ms - life.dice.randrange(HOUR))  # its clock was wrong, and is set right
    elif chance < 0.06:
        life.look(now_ms, dies=True)
    elif chance < 0.12:
        life.restart()
    life.look(now_ms)
    if chance > 0.9:
        before = len(life.decided)
        life.look(now_ms + life.dice.randrange(900))
        assert len(life.decided) - before <= 1


def _change(life: Life, now_ms: int) -> None:
    """Edit the job, pause it, or let it go on."""
    era = life.eras[-1]
    if era.state is JobState.PAUSED:
        life.edit(now_ms, era.spec, JobState.ACTIVE)
    elif life.dice.random() < 0.3:
        life.edit(now_ms, era.spec, JobState.PAUSED)
    else:
        life.edit(now_ms, any_spec(life.dice), JobState.ACTIVE)


def windows(life: Life) -> Iterator[tuple[int, int]]:
    """Yield the stretches of time [from, to), ms, through which the evaluator walks."""
    if LONG:
        yield START, END
        return
    for era in life.eras:
        yield era.from_ms - 8 * HOUR, era.from_ms + 8 * HOUR
        for change_ms in _changes(ZoneInfo(era.spec.timezone), era.from_ms, era.until_ms):
            yield change_ms - 5 * HOUR, change_ms + 6 * HOUR
    for _ in range(3):
        at = START + life.dice.randrange(360) * DAY
        yield at, at + DAY


def _changes(zone: ZoneInfo, from_ms: int, until_ms: int) -> Iterator[int]:
    """Yield the hours in which the zone's clock is set, as the instants at which they begin."""
    for day_ms in range(from_ms // DAY * DAY, until_ms, DAY):
        if _offset(zone, day_ms) != _offset(zone, day_ms + DAY):
            hours = range(day_ms, day_ms + DAY, HOUR)
            yield from (at for at in hours if _offset(zone, at) != _offset(zone, at + HOUR))


def _offset(zone: ZoneInfo, at_ms: int) -> timedelta | None:
    return datetime.fromtimestamp(at_ms / 1000, zone).utcoffset()


def expected(era: Era, low_ms: int, high_ms: int) -> set[int]:
    """Return what the evaluator finds due in [low, high) while the era lasts."""
    low_ms, high_ms = max(low_ms, era.from_ms, START + 1), min(high_ms, era.until_ms)
    if era.state is not JobState.ACTIVE or low_ms >= high_ms:
        return set()
    spec = era.spec
    bounds = {"starts_at": spec.starts_at_ms, "ends_at": spec.ends_at_ms}
    told = {
        "schedule": spec.schedule,
        "timezone": spec.timezone,
        "dst": {"gap": spec.dst.gap, "fold": spec.dst.fold},
        **{name: rfc3339(at_ms) for name, at_ms in bounds.items() if at_ms is not None},
    }
    return {at for at in due(told, low_ms / 1000, high_ms / 1000) if low_ms <= at < high_ms}


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LIVES))
def test_each_fire_of_a_year_has_exactly_one_decision(seed: int) -> None:
    life = live(seed)
    seen = 0
    assert len(life.eras) > 1
    for low_ms, high_ms in windows(life):
        low_ms, high_ms = max(low_ms, START), min(high_ms, END - 2 * HOUR)
        wanted = {at for era in life.eras for at in expected(era, low_ms, high_ms)}
        found = {at for at in life.decided if low_ms <= at < high_ms}
        excused = {at for at in wanted if any(after < at <= until for after, until in life.excused)}
        assert found - wanted == set(), [rfc3339(at) for at in sorted(found - wanted)[:3]]
        missing = sorted(wanted - found - excused)
        assert missing == [], ([rfc3339(at) for at in missing[:3]], life.eras)
        seen += len(found)
        unseen = excused - found
        assert len(unseen) <= 20 + len(wanted) // 2, "most fires must be judged"
    assert seen or len(life.decided) < 50
