"""What specs have in common is kept once, and nobody can change it for the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cronkeeper.domain.job import JobSpec, JobType, Limits, spec_from_dict, spec_to_dict
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.schedule import Dst, Fold
from cronkeeper.domain.sharing import common

FULL = JobSpec(
    "true",
    "5 * * * *",
    JobType.COMMAND,
    namespace="billing",
    name="a",
    owner="ops",
    timezone="Europe/Berlin",
    run_as="nobody",
    retry=Retry(3, 7),
    dst=Dst(fold=Fold.BOTH),
    limits=Limits(cpu=5),
    selector="disk=ssd",
    labels={"team": "x", "tier": "1"},
)
SHARED = ("schedule", "namespace", "owner", "timezone", "run_as", "retry", "dst", "limits", "selector", "labels")
MAPPINGS = ("env", "labels", "holiday_dates", "named_dates")


def read(spec: JobSpec) -> JobSpec:
    """Return a spec as it comes from a row or a znode, with nothing in common with any other."""
    data: dict[str, Any] = json.loads(json.dumps(spec_to_dict(spec)))
    return spec_from_dict(data)


@pytest.mark.parametrize("name", SHARED)
def test_what_two_specs_have_in_common_is_one_object(name: str) -> None:
    one, other = read(FULL), read(FULL.evolve(name="b"))
    assert getattr(one, name) == getattr(FULL, name)
    assert getattr(one, name) is getattr(other, name)


@pytest.mark.parametrize("name", MAPPINGS)
def test_what_is_empty_is_one_object(name: str) -> None:
    plain = JobSpec("true", "5 * * * *", JobType.COMMAND)
    assert getattr(read(plain), name) is getattr(plain, name)
    assert getattr(plain, name) == {}


@pytest.mark.parametrize("name", MAPPINGS)
def test_nobody_can_change_what_others_see(name: str) -> None:
    for spec in (read(JobSpec("true", "5 * * * *", JobType.COMMAND)), JobSpec("true", "5 * * * *", JobType.COMMAND)):
        with pytest.raises(TypeError):
            getattr(spec, name)["new"] = "value"
    with pytest.raises(TypeError):
        read(FULL).labels["team"] = "y"  # type: ignore[index]


def test_what_differs_stays_apart() -> None:
    one = read(FULL)
    others = [
        FULL.evolve(labels={"team": "x"}),
        FULL.evolve(labels={"team": "y", "tier": "1"}),
        FULL.evolve(limits=Limits(cpu=6)),
        FULL.evolve(retry=Retry(3, 8)),
        FULL.evolve(retry=Retry(3, 7, elsewhere=True)),
        FULL.evolve(env={"A": "1"}),
    ]
    for other in others:
        assert read(other) == other
        assert read(other) != one
    assert read(FULL) == one


def test_equal_numbers_of_another_kind_are_not_mixed_up() -> None:
    """`1 == True`: what was read first must not change the text of what comes after."""
    for first, then in ((True, 1), (1, True)):
        for cpu in (first, then):
            data = spec_to_dict(FULL)
            data["limits"] = {**data["limits"], "cpu": cpu}
            assert spec_from_dict(data).limits.cpu is cpu


def test_a_spec_comes_back_as_it_was() -> None:
    assert spec_to_dict(read(FULL)) == spec_to_dict(FULL)
    assert json.dumps(spec_to_dict(read(FULL))) == json.dumps(spec_to_dict(FULL))


def test_many_labels_are_kept_by_their_own_spec_alone() -> None:
    for count, is_shared in ((8, True), (9, False), (64, False)):
        spec = FULL.evolve(labels={f"key {number}": str(number) for number in range(count)})
        one, other = read(spec), read(spec)
        assert one.labels == other.labels == spec.labels
        assert (one.labels is other.labels) is is_shared, count


def test_a_text_that_nobody_has_any_more_is_not_kept_for_ever() -> None:
    """Python 3.12 keeps interned texts until it ends: a namespace that everybody has left would stay, too."""
    texts = [common(f"namespace {number}") for number in range(5000)]
    again = [common(f"namespace {number}") for number in range(5000)]
    assert texts == again
    assert texts[0] is not again[0], "of too many the oldest are let go"
    assert common("".join(["late", "st"])) is common("".join(["lat", "est"]))
