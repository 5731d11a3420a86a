"""What the auditor keeps of a job says the same about time, and is one object for all jobs that are due alike."""

from __future__ import annotations

from datetime import date

import pytest

from cronkeeper.domain.calendars import Blackout, Calendar, Weekday
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import Artifact, Concurrency, JobSpec, JobState, JobType
from cronkeeper.domain.named_calendars import Dates
from cronkeeper.domain.schedule import Dst, Fold, Gap
from cronkeeper.ports import JobVersion
from cronkeeper_manager.audit_slim import slim
from cronkeeper_manager.auditor import overdue_delay_ms, settle_delay_ms, spans

BEGIN_MS, END_MS = parse_rfc3339("2026-10-20T00:00:00Z"), parse_rfc3339("2026-11-05T00:00:00Z")
BASE = JobSpec("/bin/tool --flag", "5 */2 * * *", JobType.COMMAND, name="report")
SPECS = {
    "plain": BASE,
    "spread by name": BASE.evolve(schedule="H H * * *"),
    "spread by id": BASE.evolve(schedule="H H * * *", name=None, spread="77"),
    "zone and rule": BASE.evolve(timezone="Europe/Berlin", schedule="30 2 * * *", dst=Dst(Gap.SKIP, Fold.BOTH)),
    "several": BASE.evolve(schedule="0 9 * * 1; @at 2026-10-21T00:00:00Z"),
    "window": BASE.evolve(starts_at_ms=BEGIN_MS + 86_400_000, ends_at_ms=END_MS - 86_400_000),
    "calendar": BASE.evolve(
        calendar=Calendar(holidays=("DE",), exclude_weekdays=(Weekday.SUN,), named=("closed",)),
        holiday_dates={"DE": (date(2026, 10, 26),)},
        named_dates={"closed": Dates(("2026-10-28",))},
    ),
    "blackout": BASE.evolve(blackouts=(Blackout(BEGIN_MS, BEGIN_MS + 3 * 86_400_000),)),
    "late": BASE.evolve(grace_s=7, jitter_s=300, concurrency=Concurrency.QUEUE),
    "shards": BASE.evolve(shards=3),
    "reboot": BASE.evolve(schedule="@reboot"),
}


def version(spec: JobSpec, job_id: int = 1) -> JobVersion:
    return JobVersion(job_id, 1, JobState.ACTIVE, BEGIN_MS, BEGIN_MS, spec)


@pytest.mark.parametrize("name", SPECS)
def test_it_is_due_when_the_job_is(name: str) -> None:
    whole, lean = version(SPECS[name]), slim(version(SPECS[name]))
    (one,), (other,) = spans([whole]), spans([lean])
    assert other.fires(BEGIN_MS, END_MS, limit=10_000) == one.fires(BEGIN_MS, END_MS, limit=10_000)
    assert other.next_fire(BEGIN_MS) == one.next_fire(BEGIN_MS)
    for delay in (settle_delay_ms, overdue_delay_ms):
        assert delay(lean.spec) == delay(whole.spec)
    assert (lean.spec.shards, lean.spec.at_reboot) == (whole.spec.shards, whole.spec.at_reboot)


def test_jobs_that_are_due_alike_share_their_spec() -> None:
    many = [
        slim(version(BASE.evolve(name=f"job-{n}", executable=f"echo {n}", labels={"n": str(n)}), n))
        for n in range(1, 50)
    ]
    assert len({id(item.spec) for item in many}) == 1
    assert {item.job_id for item in many} == set(range(1, 50))


def test_jobs_that_differ_in_time_do_not() -> None:
    kept = [slim(version(spec)).spec for spec in SPECS.values()]
    assert len({id(spec) for spec in kept}) == len(SPECS)
    one, other = (slim(version(BASE.evolve(schedule="H H * * *", name=name))).spec for name in ("a", "b"))
    assert one.parsed_schedule() != other.parsed_schedule()


def test_nothing_long_is_kept() -> None:
    file = Artifact("k", "s3://b/k", "0" * 64, 5, "tool")
    lean = slim(version(BASE.evolve(artifact=file, env={"A": "1"}, args=("x",), description="long"))).spec
    assert (lean.executable, lean.args, dict(lean.env), lean.description, lean.artifact) == ("", (), {}, "", None)
