"""Large bodies and answers share a few places of a server, so that slow clients leave threads for others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from werkzeug.test import TestResponse

from cronkeeper_api.slow_clients import SMALL_ANSWER_BYTES, SMALL_BODY_BYTES
from tests.harness.api import JOB, World


@pytest.fixture
def world() -> Iterator[World]:
    """Four threads: one place."""
    found = World(threads=4)
    yield found
    found.close()


def _is_sent_away(answer: TestResponse) -> bool:
    return (answer.status_code, answer.headers.get("Retry-After")) == (429, "1")


def _large() -> dict[str, object]:
    return {**JOB, "args": ["x" * 4000] * (SMALL_BODY_BYTES // 4000 + 1)}


def test_a_large_body_waits_for_a_place_and_is_then_sent_away(world: World) -> None:
    world.services.slow.take()
    assert _is_sent_away(world.call("POST", "/jobs", json=_large()))
    assert world.call("POST", "/jobs", json=JOB).status_code == 201
    assert world.call("GET", "/jobs").status_code == 200
    world.services.slow.release()
    assert world.call("POST", "/jobs", json=_large()).status_code == 201
    # And gave its place back, also when it was refused.
    refused = world.call("POST", "/jobs", data=b"[" * 20_000, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400
    assert world.call("POST", "/jobs", json=_large()).status_code == 201


def test_a_large_answer_has_a_place_until_it_is_sent(world: World) -> None:
    for _ in range(SMALL_ANSWER_BYTES // 4000 + 1):
        world.post_job(description="x" * 4000)
    first = world.call("GET", "/jobs")
    assert first.status_code == 200
    assert len(first.data) > SMALL_ANSWER_BYTES
    assert _is_sent_away(world.call("GET", "/jobs"))
    assert world.call("GET", "/jobs?limit=1").status_code == 200
    # What was saved is answered, however large.
    assert world.call("PATCH", "/jobs/1", json={"description": ""}).status_code == 200
    first.close()
    assert world.call("GET", "/jobs").status_code == 200
