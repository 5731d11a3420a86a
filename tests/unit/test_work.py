"""What a task runs is its own; when and how it runs is shared, and says the same as before."""

from __future__ import annotations

from dataclasses import fields
from datetime import date

import pytest

from cronkeeper.domain.calendars import Blackout, Calendar
from cronkeeper.domain.job import (
    Artifact,
    Concurrency,
    Delivery,
    JobSpec,
    JobType,
    Limits,
    Misfire,
    OnWorkerLoss,
)
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.schedule import Dst, Fold, Gap
from cronkeeper.domain.secret_env import Sealed, SecretEnv, SecretUse
from cronkeeper_worker.work import Work, parted, work_of

FILE = Artifact("k", "s3://b/k", "0" * 64, 5, "tool")
SECRETS = SecretEnv({"PW": SecretUse("pg")}, {"pg": Sealed(1, "box")})
PLAIN = JobSpec("echo 1", "5 * * * *", JobType.COMMAND, name="a", description="d", owner="o", labels={"x": "y"})
FULL = PLAIN.evolve(
    namespace="billing",
    timezone="Europe/Berlin",
    run_as="nobody",
    timeout_s=7,
    retry=Retry(3, 7),
    concurrency=Concurrency.QUEUE,
    misfire=Misfire.ALL,
    grace_s=77,
    delivery=Delivery.AT_MOST_ONCE,
    on_worker_loss=OnWorkerLoss.HOLD,
    dst=Dst(Gap.SKIP, Fold.BOTH),
    jitter_s=5,
    starts_at_ms=1,
    ends_at_ms=2,
    shards=3,
    limits=Limits(5, 6, 7),
)
CLOSED = FULL.evolve(
    calendar=Calendar(exclude=(date(2026, 12, 24),)),
    blackouts=(Blackout(1, 2),),
    holiday_dates={"DE": (date(2026, 12, 25),)},
)
#: What a worker never looks at once a task is installed: its schedule was parsed before.
UNUSED = {"name", "description", "owner", "labels", "selector", "filename", "pause_after_failures", "spread", "text"}
#: What is looked at of a spec with a calendar alone.
OF_CALENDARS = {"calendar", "blackouts", "holiday_dates", "named_dates"}


@pytest.mark.parametrize("spec", [PLAIN, FULL, CLOSED])
def test_whatever_a_worker_looks_at_is_there(spec: JobSpec) -> None:
    lean, own = parted(spec)
    for one in fields(JobSpec):
        if one.name not in UNUSED | set(Work._fields) and (spec is CLOSED or one.name not in OF_CALENDARS):
            assert getattr(lean, one.name) == getattr(spec, one.name), one.name
    assert (own if isinstance(own, Work) else Work(own)) == work_of(spec)
    assert (lean.executable, lean.name, lean.description, dict(lean.labels)) == ("", None, "", {})


@pytest.mark.parametrize(
    "change", [{"args": ("x",)}, {"env": {"A": "1"}}, {"secrets": SECRETS}, {"artifact": FILE}, {"executable": "other"}]
)
def test_what_a_task_runs_is_its_own_and_the_rest_is_one_object(change: dict[str, object]) -> None:
    lean, own = parted(FULL)
    other, others = parted(FULL.evolve(**change, name="b"))
    assert other is lean
    assert others != own
    assert isinstance(own, str), "a command line needs no more than a text"
    if "executable" not in change:
        assert others == work_of(FULL.evolve(**change))


def test_every_difference_in_when_and_how_is_kept_apart() -> None:
    same = {"executable", "args", "env", "secrets", "artifact", "namespace", "schedule", "type"} | UNUSED | OF_CALENDARS
    lean = {id(parted(FULL)[0])}
    changed = [one.name for one in fields(JobSpec) if one.init and one.name not in same]
    for name in changed:
        lean.add(id(parted(FULL.evolve(**{name: getattr(PLAIN, name)}))[0]))
    assert len(lean) == len(changed) + 1
