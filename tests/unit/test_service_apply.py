"""Many jobs at once, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.ports import JobQuery, Role
from tests.harness.api import JOB, World, fields_of


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def _job(name: str, **fields: Any) -> dict[str, Any]:
    return {**JOB, "name": name, **fields}


def _apply(world: World, jobs: list[dict[str, Any]], query: str = "", **rest: Any) -> dict[str, Any]:
    answer = world.call("POST", f"/apply{query}", json={"jobs": jobs, **rest})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.get_json()
    return found


def _names(changes: list[dict[str, Any]]) -> list[str]:
    return [change["name"] for change in changes]


def test_jobs_are_created_changed_and_left(world: World) -> None:
    _apply(world, [_job("a"), _job("b"), _job("c")])
    found = _apply(world, [_job("a"), _job("b", schedule="6 * * * *"), _job("d")])
    assert (_names(found["created"]), _names(found["changed"]), _names(found["unchanged"])) == (["d"], ["b"], ["a"])
    assert found["changed"][0]["fields"] == {"schedule": {"from": "5 * * * *", "to": "6 * * * *"}}
    assert found["created"][0]["id"] == "4"
    generations = {job.spec.name: job.generation for job in world.store.jobs.page(JobQuery())}
    assert generations == {"a": 1, "b": 2, "c": 1, "d": 1}
    envelope = world.coordinator.read_tasks([TaskId(2, 0)])[TaskId(2, 0)]
    assert world.verifier.open(envelope, job_id=2).spec.schedule == "6 * * * *"


def test_a_dry_run_shows_the_fires_before_and_after_and_saves_nothing(world: World) -> None:
    _apply(world, [_job("a")])
    found = _apply(world, [_job("a", schedule="*/30 * * * *"), _job("new")], "?dry_run=true")
    change = found["changed"][0]
    assert change["next_before"][0] == "2026-03-01T12:05:00Z"
    assert change["next_after"][:2] == ["2026-03-01T12:30:00Z", "2026-03-01T13:00:00Z"]
    assert found["created"][0]["id"] is None
    assert [job.spec.schedule for job in world.store.jobs.page(JobQuery())] == ["5 * * * *"]


def test_only_an_explicit_selector_prunes(world: World) -> None:
    _apply(world, [_job("a", labels={"team": "x"}), _job("b", labels={"team": "x"}), _job("c", labels={"team": "y"})])
    world.post_job(labels={"team": "x"})  # without a name: nobody's to prune
    assert _apply(world, [_job("a", labels={"team": "x"})])["pruned"] == []
    found = _apply(world, [_job("a", labels={"team": "x"})], prune="team=x")
    assert _names(found["pruned"]) == ["b"]
    states = [job.state for job in world.store.jobs.page(JobQuery())]
    assert states == [JobState.ACTIVE, JobState.FINISHED, JobState.ACTIVE, JobState.ACTIVE]
    envelope = world.coordinator.read_tasks([TaskId(2, 0)])[TaskId(2, 0)]
    assert world.verifier.open(envelope, job_id=2).state is JobState.FINISHED


def test_a_finished_job_is_taken_up_again_and_a_paused_one_stays_paused(world: World) -> None:
    _apply(world, [_job("a"), _job("b")])
    world.call("DELETE", "/jobs/1")
    world.call("POST", "/jobs/2/pause")
    found = _apply(world, [_job("a"), _job("b", schedule="6 * * * *")])
    assert found["changed"][0]["fields"] == {"status": {"from": "finished", "to": "scheduled"}}
    statuses = [job["status"] for job in world.call("GET", "/jobs").get_json()]
    assert statuses == ["scheduled", "paused"]


def test_it_is_all_or_nothing(world: World) -> None:
    _apply(world, [_job("a")])
    world.store.fail_next("jobs.save_many")
    answer = world.call("POST", "/apply", json={"jobs": [_job("a", schedule="6 * * * *"), _job("b")]})
    assert answer.status_code == 503
    assert [(job.spec.name, job.generation) for job in world.store.jobs.page(JobQuery())] == [("a", 1)]


def test_the_same_again_is_unchanged_with_files_too(world: World) -> None:
    script = _job("s", type="script", executable="IyEvYmluL3NoCg==", filename="s.sh")
    assert _names(_apply(world, [script])["created"]) == ["s"]
    assert _names(_apply(world, [script])["unchanged"]) == ["s"]


def test_one_namespace_at_a_time(world: World) -> None:
    assert _names(_apply(world, [_job("a")], namespace="team-a")["created"]) == ["a"]
    assert world.call("GET", "/jobs?namespace=team-a").get_json()[0]["name"] == "a"
    answer = world.call("POST", "/apply", json={"jobs": [_job("b", namespace="other")]})
    assert (answer.status_code, fields_of(answer)) == (422, {"jobs[0].namespace"})


def test_all_faults_of_all_jobs_come_out_at_once(world: World) -> None:
    jobs = [_job("a", schedule="x"), _job("b"), _job("c", timezone="Mars/Olympus"), {"name": "d"}]
    answer = world.call("POST", "/apply", json={"jobs": jobs})
    assert "jobs[3].schedule" in fields_of(answer)
    semantic = world.call("POST", "/apply", json={"jobs": jobs[:3]})
    assert fields_of(semantic) == {"jobs[0].schedule", "jobs[2].timezone"}


def test_what_already_runs_as_root_may_stay_but_not_change_without_an_admin(world: World) -> None:
    root = _job("r", run_as="root")
    assert world.call("POST", "/apply", role=Role.ADMIN, json={"jobs": [root]}).status_code == 200
    assert _names(_apply(world, [root])["unchanged"]) == ["r"]
    changed = world.call("POST", "/apply", json={"jobs": [{**root, "executable": "evil"}]})
    assert (changed.status_code, fields_of(changed)) == (403, {"run_as"})


def test_thousands_are_one_transaction(world: World) -> None:
    found = _apply(world, [_job(f"j{number}") for number in range(2000)])
    assert len(found["created"]) == 2000
    assert world.store.calls("jobs.save_many") == 1
    assert len(world.coordinator.task_names()) == 2000


def test_every_job_that_can_never_fire_is_told_of(world: World) -> None:
    never = {"schedule": "0 0 30 2 *"}
    jobs = [_job("a", **never), _job("b"), _job("c", **never), _job("d", schedule="0 0 30 2 *", timezone="Asia/Tokyo")]
    jobs.append(_job("e", ends_at="2026-03-01T12:01:00Z"))
    answer = world.call("POST", "/apply", json={"jobs": jobs})
    assert answer.status_code == 422
    assert sorted(fields_of(answer)) == [f"jobs[{index}].schedule" for index in (0, 2, 3, 4)]
