"""The fleet over HTTP on the doubles: shapes and refusals. What moves is the planner's business, tested there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.placement import Assignment, MoveReason, WorkerInfo
from cronkeeper.ports import Role
from cronkeeper.testing.memory_coordinator import MemoryCoordinator
from cronkeeper.wire.znodes import LeaderNote
from tests.harness.api import NOON_MS, World


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    found.post_job(name="listing")
    sessions = []
    for name, zone in (("node-1", "eu"), ("node-2", "us")):
        info = WorkerInfo(name, f"{name}.example.net", {"zone": zone}, 100, "1.0", f"epoch-{name}", 7, NOON_MS)
        session = MemoryCoordinator(found.ensemble, name, clock=found.clock)
        session.start(1.0)
        session.announce(info)
        found.store.leases.beat(info, local_ms=NOON_MS)
        sessions.append(session)
    found.coordinator.campaign(LeaderNote("m1", "", 1))
    leadership = found.coordinator.leadership()
    assert leadership is not None
    found.coordinator.mark_ready(leadership)
    given = Assignment(TaskId(1, 0), "node-1", 1, 1, MoveReason.NEW, NOON_MS)
    found.coordinator.move([given], [], leadership)
    term = found.store.terms.take("m1")
    found.store.assignments.save([given], term=term)
    yield found
    for session in sessions:
        session.stop()
    found.close()


def test_workers_are_listed_by_id_in_pages(world: World) -> None:
    first = world.call("GET", "/workers?limit=1", role=Role.VIEWER)
    assert first.get_json() == [
        {
            "id": "node-1",
            "host": "node-1.example.net",
            "state": "up",
            "labels": {"zone": "eu"},
            "capacity": 100,
            "tasks": 1,
            "version": "1.0",
            "last_seen": "2026-03-01T12:00:00Z",
            "clock_offset_ms": 0,
        }
    ]
    path = first.headers["Link"].partition(">")[0].lstrip("<")
    second = world.call("GET", path, role=Role.VIEWER)
    assert [worker["id"] for worker in second.get_json()] == ["node-2"]
    assert "Link" not in second.headers


def test_a_job_says_who_has_it(world: World) -> None:
    assert world.call("GET", "/jobs/1").get_json()["workers"] == ["node-1"]
    assert world.call("GET", "/jobs").get_json()[0]["workers"] == ["node-1"]


def test_a_worker_is_cordoned_and_uncordoned(world: World) -> None:
    assert world.call("POST", "/workers/node-2/cordon", role=Role.ADMIN).get_json()["state"] == "cordoned"
    assert world.call("GET", "/workers/node-2").get_json()["state"] == "cordoned"
    assert world.call("POST", "/workers/node-2/uncordon", role=Role.ADMIN).get_json()["state"] == "up"


def test_a_dry_run_of_a_move_moves_nothing(world: World) -> None:
    asked = {"worker": "node-2", "dry_run": True}
    answer = world.call("POST", "/jobs/1/reassign", role=Role.ADMIN, json=asked)
    expected = {"moves": [{"task": "1/0", "from": "node-1", "to": "node-2", "reason": "reassign"}]}
    assert (answer.status_code, answer.get_json()) == (200, expected)
    assert world.store.move_requests.all() == {}
    world.call("POST", "/jobs/1/reassign", role=Role.ADMIN, json={"worker": "node-2"})
    assert [request.worker for request in world.store.move_requests.all().values()] == ["node-2"]


def test_a_drain_shows_its_moves(world: World) -> None:
    answer = world.call("POST", "/workers/node-1/drain", role=Role.ADMIN, json={"dry_run": True})
    assert [(move["task"], move["from"], move["to"]) for move in answer.get_json()["moves"]] == [
        ("1/0", "node-1", "node-2")
    ]
    assert world.call("GET", "/workers/node-1").get_json()["state"] == "up"
    assert world.call("POST", "/workers/node-1/drain", role=Role.ADMIN).status_code == 200
    assert world.call("GET", "/workers/node-1").get_json()["state"] == "draining"


def test_a_plan_answers_what_if(world: World) -> None:
    question = {"lose": ["node-1"], "add": [{"labels": {"zone": "eu"}, "capacity": 50}]}
    answer = world.call("POST", "/plan", role=Role.ADMIN, json=question)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert set(answer.get_json()) >= {"moves", "unplaced", "load"}
    assert answer.get_json()["moves"][0]["task"] == "1/0"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/workers/nobody", None, 404),
        ("GET", "/workers/..", None, 404),
        ("POST", "/workers/nobody/drain", None, 404),
        ("POST", "/jobs/1/reassign", {"worker": "nobody"}, 404),
        ("POST", "/jobs/99/reassign", {"worker": "node-2"}, 404),
        ("POST", "/jobs/1/reassign", {"worker": "../node-2"}, 404),
        ("POST", "/jobs/1/reassign", {}, 422),
        ("POST", "/jobs/1/reassign", {"worker": "node-2", "dry_run": "yes"}, 422),
        ("POST", "/plan", {"lose": ["nobody"]}, 404),
        ("POST", "/plan", {"add": [{"capacity": 0}]}, 422),
    ],
)
def test_what_cannot_be_is_a_problem(method: str, path: str, body: object, status: int, world: World) -> None:
    answer = world.call(method, path, role=Role.ADMIN, json=body)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")


def test_zookeeper_away_means_503_here(world: World) -> None:
    world.coordinator.cut()
    for method, path in (("GET", "/workers"), ("POST", "/workers/node-1/cordon"), ("POST", "/plan")):
        answer = world.call(method, path, role=Role.ADMIN, json={} if path == "/plan" else None)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5"), path
