"""Every bad request is answered by a problem that names the field, and nothing is saved (on the doubles)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cronkeeper.ports import JobQuery, Role
from tests.harness.api import World, fields_of
from tests.harness.bad_requests import BAD_REQUESTS, Bad


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    found.post_job(name="bystander")
    yield found
    found.close()


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=lambda bad: bad.id)
def test_it_is_refused_and_nothing_is_saved(bad: Bad, world: World) -> None:
    before = world.store.jobs.page(JobQuery()), world.ensemble.snapshot(), dict(world.blobs.objects)
    answer = world.call(bad.method, bad.path.replace("{job}", "1"), data=bad.body, headers=bad.headers)
    assert answer.status_code == bad.status, answer.get_data(as_text=True)
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["type"].startswith("/problems/")
    if bad.names is not None:
        assert bad.names in fields_of(answer)
    assert (world.store.jobs.page(JobQuery()), world.ensemble.snapshot(), dict(world.blobs.objects)) == before


def test_there_are_enough_of_them() -> None:
    assert len(BAD_REQUESTS) >= 80
    assert len({bad.id for bad in BAD_REQUESTS}) == len(BAD_REQUESTS)


def test_all_faults_come_out_at_once(world: World) -> None:
    job = {
        "executable": 5,
        "schedule": "61 * * * *",
        "type": "comand",
        "timezone": "Europe/Berlni",
        "timeout_s": "5",
        "env": {"A": 1, "CRONKEEPER_X": "y"},
        "labels": {"a b": "x"},
        "run_as": "#0",
        "shedule": "x",
    }
    answer = world.call("POST", "/jobs", json=job)
    assert answer.status_code == 422
    assert fields_of(answer) == {
        "executable", "schedule", "type", "timezone", "timeout_s", "env.A", "env.CRONKEEPER_X", "labels.a b", "run_as",
        "shedule",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("shedule", "5 * * * *", "did you mean schedule?"),
        ("timezone", "Europe/Berlni", "Europe/Berlin"),
        ("misfire", "lates", "did you mean latest?"),
        ("id", "7", "leave it out"),
        ("schedule", "@hourli", "did you mean @hourly?"),
        ("run_as", "postgres", "allowed are nobody"),
    ],
)
def test_the_hint_says_how_to_mend_it(field: str, value: str, hint: str, world: World) -> None:
    job = {"executable": "ls", "schedule": "5 * * * *", "type": "command", field: value}
    errors = world.call("POST", "/jobs", json=job).get_json()["errors"]
    assert [hint in error["hint"] for error in errors if error["field"] == field] == [True]


def test_the_position_in_a_schedule_is_told(world: World) -> None:
    answer = world.call(
        "POST", "/preview", role=Role.VIEWER, json={"executable": "ls", "schedule": "5 25 * * *", "type": "command"}
    )
    assert "at character 3" in answer.get_json()["errors"][0]["message"]
