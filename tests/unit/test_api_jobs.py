"""/jobs on the doubles: what is answered, what is saved, what ZooKeeper is told."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import Role
from tests.harness.api import JOB, NOON_MS, World, fields_of

SCRIPT = b"#!/bin/sh\necho hello\n"
TASK = TaskId(1, 0)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def _envelope(world: World, task: TaskId = TASK) -> bytes:
    return world.coordinator.read_tasks([task])[task]


def test_the_job_of_the_contract_to_the_letter(world: World) -> None:
    answer = world.call("POST", "/jobs", json=JOB)
    assert answer.status_code == 201
    body = answer.get_json()
    assert {key: body[key] for key in ("id", "status", *JOB)} == {"id": "1", "status": "scheduled", **JOB}
    assert body["next_fire"] == "2026-03-01T12:05:00Z"
    assert (body["generation"], body["last_run"], body["workers"]) == (1, None, [])
    assert answer.headers["ETag"] == '"job-1-1"'
    assert answer.headers["Location"] == "/jobs/1"


def test_the_node_is_sent_the_same_signed_task_that_is_saved(world: World) -> None:
    world.post_job(name="listing", env={"A": "ü"})
    saved = world.store.jobs.get(1)
    assert _envelope(world) == saved.envelope
    task = world.verifier.open(saved.envelope, job_id=1)
    assert (task.spec, task.generation, task.state) == (saved.spec, 1, JobState.ACTIVE)
    assert task.effective_from_ms == NOON_MS


def test_every_field_comes_back_as_given(world: World) -> None:
    given = {
        "name": "all-of-it",
        "namespace": "team-a",
        "description": "two\nlines",
        "owner": "ops",
        "timezone": "Europe/Berlin",
        "args": ["-l", ""],
        "env": {"LANG": "C"},
        "run_as": "nobody",
        "timeout_s": 60,
        "retry": {"limit": 2, "backoff_s": 5, "max_backoff_s": 50, "jitter_s": 3, "elsewhere": True},
        "concurrency": "queue",
        "misfire": "all",
        "grace_s": 120,
        "delivery": "at_most_once",
        "on_worker_loss": "hold",
        "dst": {"gap": "skip", "fold": "both"},
        "jitter_s": 5,
        "starts_at": "2026-03-01T12:00:00Z",
        "ends_at": "2027-01-01T00:00:00.500Z",
        "selector": "zone in (eu,us),!spot",
        "shards": 3,
        "limits": {"cpu": 5, "memory_mb": 64, "output_kb": 8},
        "labels": {"team": "a"},
    }
    body = world.post_job(**given)
    assert {key: body[key] for key in given} == given
    assert set(world.coordinator.task_names()) == {TaskId(1, shard) for shard in range(3)}


def test_at_most_once_holds_a_lost_run_without_being_told(world: World) -> None:
    assert world.post_job()["on_worker_loss"] == "rerun"
    assert world.post_job(delivery="at_most_once")["on_worker_loss"] == "hold"


def test_at_most_once_is_not_run_again_though_somebody_asks_for_it(world: World) -> None:
    answer = world.call("POST", "/jobs", json={**JOB, "delivery": "at_most_once", "on_worker_loss": "rerun"})
    assert (answer.status_code, fields_of(answer)) == (422, {"on_worker_loss"})
    world.post_job()
    # Nor by a change of the delivery alone.
    answer = world.call("PATCH", "/jobs/1", json={"delivery": "at_most_once"})
    assert (answer.status_code, fields_of(answer)) == (422, {"on_worker_loss"})
    changed = world.call("PATCH", "/jobs/1", json={"delivery": "at_most_once", "on_worker_loss": "hold"})
    assert changed.get_json()["delivery"] == "at_most_once"


def test_a_selector_may_be_an_object_of_equalities(world: World) -> None:
    assert world.post_job(selector={"zone": "eu", "disk": "ssd"})["selector"] == "disk=ssd,zone=eu"


def test_the_first_wait_of_a_retry_may_be_longer_than_the_usual_longest(world: World) -> None:
    assert world.post_job(retry={"limit": 1, "backoff_s": 7200})["retry"]["max_backoff_s"] == 7200


def test_mysql_away_means_503_and_nothing_half_saved(world: World) -> None:
    world.call("GET", "/jobs")  # the token is known for 3 seconds: the store fails at the job, not at the door
    world.store.fail_next("jobs.create")
    answer = world.call("POST", "/jobs", json=JOB)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.get_json()["type"] == "/problems/unavailable"
    assert world.call("GET", "/jobs").get_json() == []
    assert world.coordinator.task_names() == set()


def test_zookeeper_away_means_201(world: World) -> None:
    world.coordinator.cut()
    assert world.post_job()["id"] == "1"
    world.coordinator.heal()
    assert world.coordinator.task_names() == set()  # the leader will heal it


def test_the_object_store_away_means_503_and_no_job(world: World) -> None:
    world.blobs.away = True
    script = {**JOB, "type": "script", "executable": base64.b64encode(SCRIPT).decode(), "filename": "a.sh"}
    assert world.call("POST", "/jobs", json=script).status_code == 503
    assert world.call("GET", "/jobs").get_json() == []


def test_a_script_in_base64_becomes_an_object(world: World) -> None:
    body = world.post_job(type="script", executable=base64.b64encode(SCRIPT).decode(), filename="a.sh")
    artifact = body["artifact"]
    assert body["executable"] == artifact["url"] == world.blobs.url_of(artifact["key"])
    assert artifact["key"] == f"artifacts/{artifact['sha256']}/a.sh"
    assert (artifact["size"], body["filename"]) == (len(SCRIPT), "a.sh")
    assert b"".join(world.blobs.read(artifact["key"])) == SCRIPT


def test_a_binary_may_be_a_url_of_our_own_store(world: World) -> None:
    url = world.blobs.put("tools/prog", b"\x7fELF").url
    body = world.post_job(type="binary", executable=url)
    assert (body["executable"], body["filename"], body["artifact"]["size"]) == (url, "prog", 4)


def test_a_url_of_our_store_without_an_object_is_refused(world: World) -> None:
    url = world.blobs.url_of("tools/missing")
    answer = world.call("POST", "/jobs", json={**JOB, "type": "binary", "executable": url})
    assert (answer.status_code, fields_of(answer)) == (422, {"executable"})


def test_a_script_may_come_as_a_form(world: World) -> None:
    fields = json.dumps({"schedule": "5 * * * *", "type": "script"})
    answer = world.call("POST", "/jobs", data={"job": fields, "executable": (io.BytesIO(SCRIPT), "/tmp/run.sh")})
    assert answer.status_code == 201, answer.get_data(as_text=True)
    assert answer.get_json()["filename"] == "run.sh"


def test_a_form_may_replace_a_job_s_file(world: World) -> None:
    world.post_job(type="script", executable=base64.b64encode(SCRIPT).decode(), filename="a.sh")
    parts = {"job": json.dumps({"description": "new"}), "executable": (io.BytesIO(b"echo 2"), "b.sh")}
    body = world.call("PATCH", "/jobs/1", data=parts).get_json()
    assert (body["filename"], body["artifact"]["size"], body["description"]) == ("b.sh", 6, "new")


def test_a_file_that_is_too_large_is_413() -> None:
    world = World(max_artifact_bytes=1000, max_body_bytes=2000)
    try:
        data = base64.b64encode(b"x" * 1001).decode()
        answer = world.call("POST", "/jobs", json={**JOB, "type": "script", "executable": data, "filename": "a"})
        assert (answer.status_code, answer.get_json()["type"]) == (413, "/problems/too-large")
        answer = world.call("POST", "/jobs", data=b"x" * 3000, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.content_type) == (413, "application/problem+json")
    finally:
        world.close()


def test_a_name_is_taken_once_in_a_namespace(world: World) -> None:
    world.post_job(name="backup")
    answer = world.call("POST", "/jobs", json={**JOB, "name": "backup"})
    assert (answer.status_code, answer.get_json()["type"], fields_of(answer)) == (409, "/problems/name-taken", {"name"})
    assert world.post_job(name="backup", namespace="other")["id"] == "2"


def test_pages_are_chained_by_links(world: World) -> None:
    for number in range(5):
        world.post_job(name=f"job-{number}", labels={"team": "a" if number % 2 else "b"})
    seen, path = [], "/jobs?limit=2"
    while path:
        answer = world.call("GET", path, role=Role.VIEWER)
        seen += [job["name"] for job in answer.get_json()]
        path = answer.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert seen == [f"job-{number}" for number in range(5)]
    filtered = world.call("GET", "/jobs?label=team=a&limit=1")
    assert [job["name"] for job in filtered.get_json()] == ["job-1"]
    assert "label=team%3Da" in filtered.headers["Link"]


def test_jobs_are_found_by_text_namespace_and_status(world: World) -> None:
    world.post_job(name="one", executable="rsync /a /b")
    world.post_job(name="two", namespace="other")
    world.call("POST", "/jobs/2/pause")

    def names(query: str) -> list[str]:
        return [job["name"] for job in world.call("GET", f"/jobs?{query}").get_json()]

    assert (names("q=rsync"), names("namespace=other"), names("status=paused")) == (["one"], ["two"], ["two"])


def test_a_patch_changes_what_it_names_and_nothing_else(world: World) -> None:
    world.post_job(env={"A": "1", "B": "2"}, timeout_s=60, retry={"limit": 3})
    world.clock.advance_ms(1500)
    answer = world.call(
        "PATCH", "/jobs/1", json={"env": {"B": None, "C": "3"}, "timeout_s": None, "retry": {"limit": 1}}
    )
    body = answer.get_json()
    assert (body["env"], body["timeout_s"], body["retry"]["limit"]) == ({"A": "1", "C": "3"}, None, 1)
    assert (body["generation"], answer.headers["ETag"]) == (2, '"job-1-2"')
    task = world.verifier.open(_envelope(world), job_id=1)
    assert (task.generation, task.effective_from_ms) == (2, NOON_MS + 1500)


def test_a_patch_that_changes_nothing_makes_no_generation(world: World) -> None:
    world.post_job()
    assert world.call("PATCH", "/jobs/1", json={"schedule": "5 * * * *"}).get_json()["generation"] == 1


def test_a_replacement_resets_what_it_does_not_name(world: World) -> None:
    world.post_job(timeout_s=60)
    body = world.call("PUT", "/jobs/1", json={**JOB, "schedule": "@daily"}).get_json()
    assert (body["schedule"], body["timeout_s"], body["generation"]) == ("@daily", None, 2)


def test_a_patch_keeps_the_file_and_its_pin(world: World) -> None:
    first = world.post_job(type="script", executable=base64.b64encode(SCRIPT).decode(), filename="a.sh")
    world.blobs.away = True  # not even asked
    body = world.call("PATCH", "/jobs/1", json={"description": "new"}).get_json()
    assert body["artifact"] == first["artifact"]
    same = {key: first[key] for key in ("executable", "schedule", "type", "filename")}
    assert world.call("PUT", "/jobs/1", json=same).get_json()["artifact"] == first["artifact"]


def test_a_patch_may_turn_a_script_into_a_command(world: World) -> None:
    world.post_job(type="script", executable=base64.b64encode(SCRIPT).decode(), filename="a.sh")
    body = world.call("PATCH", "/jobs/1", json={"type": "command", "executable": "ls"}).get_json()
    assert (body["type"], body["artifact"], body["filename"]) == ("command", None, None)


def test_fewer_shards_take_their_tasks_away(world: World) -> None:
    world.post_job(shards=3)
    world.call("PATCH", "/jobs/1", json={"shards": 1})
    assert world.coordinator.task_names() == {TASK}


def test_if_match_guards_every_change(world: World) -> None:
    world.post_job()
    world.call("PATCH", "/jobs/1", json={"description": "second"})
    for method, path, body in (
        ("PATCH", "/jobs/1", {"description": "x"}),
        ("PUT", "/jobs/1", JOB),
        ("DELETE", "/jobs/1", None),
        ("DELETE", "/jobs/1?purge=true", None),
        ("POST", "/jobs/1/pause", None),
        ("POST", "/jobs/1/resume", None),
    ):
        answer = world.call(method, path, json=body, headers={"If-Match": '"job-1-1"'})
        assert (answer.status_code, answer.get_json()["generation"]) == (412, 2), method
        assert answer.headers["ETag"] == '"job-1-2"'
    good = world.call("PATCH", "/jobs/1", json={"description": "x"}, headers={"If-Match": '"job-1-1", "job-1-2"'})
    assert (good.status_code, good.get_json()["generation"]) == (200, 3)
    assert world.call("PATCH", "/jobs/1", json={"owner": "y"}, headers={"If-Match": "*"}).status_code == 200


def test_a_read_can_be_conditional(world: World) -> None:
    world.post_job()
    assert world.call("GET", "/jobs/1", headers={"If-None-Match": '"job-1-1"'}).status_code == 304
    assert world.call("GET", "/jobs/1", headers={"If-None-Match": '"job-1-7"'}).status_code == 200


def test_a_deleted_job_is_finished_and_its_node_is_told(world: World) -> None:
    world.post_job(name="x")
    answer = world.call("DELETE", "/jobs/1")
    assert (answer.status_code, answer.get_json()["status"], answer.get_json()["next_fire"]) == (200, "finished", None)
    assert world.verifier.open(_envelope(world), job_id=1).state is JobState.FINISHED
    again = world.call("DELETE", "/jobs/1")
    assert (again.status_code, again.get_json()["generation"]) == (200, 2)


def test_a_purged_job_is_gone(world: World) -> None:
    world.post_job(shards=2)
    answer = world.call("DELETE", "/jobs/1?purge=true")
    assert (answer.status_code, answer.data) == (204, b"")
    assert world.call("GET", "/jobs/1").status_code == 404
    assert world.coordinator.task_names() == set()
    assert world.call("DELETE", "/jobs/1?purge=true").status_code == 404


def test_pause_and_resume(world: World) -> None:
    world.post_job()
    paused = world.call("POST", "/jobs/1/pause").get_json()
    assert (paused["status"], paused["next_fire"], paused["generation"]) == ("paused", None, 2)
    assert world.call("POST", "/jobs/1/pause").get_json()["generation"] == 2
    world.clock.advance_ms(3_600_000)
    resumed = world.call("POST", "/jobs/1/resume").get_json()
    assert (resumed["status"], resumed["next_fire"]) == ("scheduled", "2026-03-01T13:05:00Z")
    task = world.verifier.open(_envelope(world), job_id=1)
    assert (task.state, task.effective_from_ms) == (JobState.ACTIVE, NOON_MS + 3_600_000)


def test_a_finished_job_can_be_taken_up_again_but_not_paused(world: World) -> None:
    world.post_job()
    world.call("DELETE", "/jobs/1")
    assert world.call("POST", "/jobs/1/pause").status_code == 409
    assert world.call("POST", "/jobs/1/run").status_code == 409
    assert world.call("POST", "/jobs/1/resume").get_json()["status"] == "scheduled"


def test_a_job_without_a_fire_left_cannot_be_taken_up(world: World) -> None:
    world.post_job(schedule="@at 2026-03-01T12:00:30Z")
    world.call("DELETE", "/jobs/1")
    world.clock.advance_ms(60_000)
    assert world.call("POST", "/jobs/1/resume").status_code == 409
    # its other fields can still be changed
    assert world.call("PATCH", "/jobs/1", json={"description": "was once"}).status_code == 200


def test_a_failed_last_run_makes_the_status_error(world: World) -> None:
    world.post_job()
    key = RunKey(TASK, NOON_MS + 300_000, 1)
    run = Run(key, Trigger.TIMER, RunState.FAILED, worker="w", nonce="n", ended_ms=NOON_MS + 301_000, exit_code=3)
    world.store.runs.record([run])
    body = world.call("GET", "/jobs/1").get_json()
    assert body["status"] == "error"
    assert body["last_run"] == {
        "id": str(key),
        "fire_time": "2026-03-01T12:05:00Z",
        "state": "failed",
        "ended_at": "2026-03-01T12:05:01Z",
    }


def test_next_and_preview_say_the_same(world: World) -> None:
    job = {**JOB, "timezone": "Europe/Berlin", "schedule": "30 2 * * *"}
    world.call("POST", "/jobs", json=job)
    query = {"count": "2", "after": "2026-03-28T00:00:00Z"}
    after = world.call("GET", "/jobs/1/next", role=Role.VIEWER, query_string=query).get_json()
    assert after == world.call("POST", "/preview", role=Role.VIEWER, query_string=query, json=job).get_json()
    # 02:30 does not exist on the 29th: Debian cron's way is to run when the gap ends
    assert after["next"] == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"]
    assert "Europe/Berlin" in after["words"]
    assert any("forward by 1 hour" in note for note in after["notes"])


def test_a_paused_job_has_no_next_fire(world: World) -> None:
    world.post_job()
    world.call("POST", "/jobs/1/pause")
    found = world.call("GET", "/jobs/1/next").get_json()
    assert found["next"] == []
    assert any("paused" in note for note in found["notes"])


def test_the_next_fires_end_with_the_job(world: World) -> None:
    world.post_job(ends_at="2026-03-01T13:06:00Z")
    assert world.call("GET", "/jobs/1/next").get_json()["next"] == ["2026-03-01T12:05:00Z", "2026-03-01T13:05:00Z"]


def test_root_takes_an_admin(world: World) -> None:
    answer = world.call("POST", "/jobs", json={**JOB, "run_as": "root"})
    assert (answer.status_code, fields_of(answer)) == (403, {"run_as"})
    assert world.call("POST", "/jobs", role=Role.ADMIN, json={**JOB, "run_as": "root"}).status_code == 201
    # an operator may stop and start it, but not change what runs as root
    assert world.call("POST", "/jobs/1/pause").status_code == 200
    assert world.call("PATCH", "/jobs/1", json={"executable": "sh -c evil"}).status_code == 403


def test_a_user_s_text_is_never_a_template(world: World) -> None:
    text = "{{7*7}} %s%n {0.__class__} <script>alert(1)</script>"
    answer = world.call("POST", "/jobs", json={**JOB, "name": text})
    assert answer.content_type == "application/problem+json"
    assert "{{7*7}} %s%n {0.__class__}" in answer.get_json()["errors"][0]["message"]
    assert world.post_job(description=text)["description"] == text
