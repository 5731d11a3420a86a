"""Names that users give are texts: znodes and labels of metrics are those that plain names leave."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cronkeeper.ports import Role
from tests.harness.api import JOB, World

SCRIPT = base64.b64encode(b"#!/bin/sh\ntrue\n").decode()
HOSTILE = [
    "../", "../../../etc/cron.d/x", "/", "/etc/passwd", ".", "..", "zookeeper", "cronkeeper", "jobs", "\x00", "a\x00b",
    "x" * 300, "a", "A", "a ", " a", "\u00e4", "a\u0308", "\u0430", "\u202e", "\ud800", "\uff0e\uff0e\uff0f", "a\nb",
    'a"} 1\nb{c="', "%2e%2e%2f", "-rf", "CON", "*", "", "{0}", "a=b,c", "NULL", "\U0001f600",
]  # fmt: skip
_NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=()), max_size=30))


_KEY = re.compile(r"artifacts/[0-9a-f]{64}/(?!\.\.?$)[A-Za-z0-9._][A-Za-z0-9._-]*", re.ASCII)


def requests(name: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every place where a user gives a name."""
    part = quote(name.encode("utf-8", "replace"), safe="") or "%20"
    script = {**JOB, "type": "script", "executable": SCRIPT}
    return [
        ("PUT", f"/namespaces/{part}", {}),
        ("PUT", f"/secrets/{part}", {"value": "correct horse battery staple"}),
        ("PUT", f"/calendars/{part}", {"exclude": ["2027-01-01"]}),
        ("POST", "/jobs", {**JOB, "name": name}),
        ("POST", "/jobs", {**JOB, "namespace": name}),
        ("POST", "/jobs", {**JOB, "labels": {name: "x"}}),
        ("POST", "/jobs", {**JOB, "labels": {"x": name}}),
        ("POST", "/jobs", {**JOB, "owner": name}),
        ("POST", "/jobs", {**JOB, "env": {"A": {"secret": name}}}),
        ("POST", "/jobs", {**JOB, "calendar": {"named": [name]}}),
        ("POST", "/jobs", {**script, "filename": name}),
        ("POST", "/tokens", {"name": name, "role": "viewer", "namespaces": ["*"]}),
        ("POST", "/denials", {"subject": name}),
        ("POST", f"/workers/{part}/cordon", {}),
        ("POST", "/jobs/1/reassign", {"worker": name, "dry_run": False}),
        ("POST", "/apply", {"jobs": [{**JOB, "name": name}], "namespace": name}),
    ]


def traces(world: World, name: str) -> set[str]:
    """Whatever has a name of its own outside the database; numbers and hashes are as good as one another."""
    for method, path, body in requests(name):
        answer = world.call(method, path, role=Role.ADMIN, json=body)
        assert answer.status_code < 500, (method, path, name, answer.get_data(as_text=True))
    metrics = world.call("GET", "/metrics", role=Role.ADMIN).get_data(as_text=True)
    labels = [line.rpartition(" ")[0] for line in metrics.splitlines() if not line.startswith("#")]
    # An object's key ends in the file's name, if that is plain: the folder before it is the hash's, and nobody else's.
    keys = list(world.blobs.objects)
    assert all(_KEY.fullmatch(key) for key in keys), keys
    # Which answers were given is counted by their status, and that is a number.
    found = [*world.ensemble.snapshot(), *labels]
    return {re.sub(r"[0-9a-f]{64}|\d+", "N", text) for text in found}


@pytest.fixture(scope="module")
def plain() -> Iterator[set[str]]:
    world = World()
    world.post_job()
    # Whatever is taken, refused, or no path of ours at all: each leaves its labels.
    world.call("POST", "/no/such/path")
    yield traces(world, "plain") | traces(world, "?\n")
    world.close()


@settings(max_examples=15, deadline=None)
@given(_NAMES)
@example("../")
@example("zookeeper")
@example("-rf")
@example(".hidden")
@example("a ")
@example("x" * 300)
def test_no_name_of_a_user_names_a_znode_an_object_or_a_label(plain: set[str], name: str) -> None:
    world = World()
    try:
        world.post_job()
        assert traces(world, name) <= plain
    finally:
        world.close()


def test_the_names_reach_the_places_that_are_looked_at(plain: set[str]) -> None:
    assert any(text.startswith("/tasks/") for text in plain), sorted(plain)[:20]
    assert len(plain) > 30


def test_names_that_differ_a_little_are_names_of_their_own_or_refused() -> None:
    world = World()
    try:
        saved = {
            name: answer.get_json()["id"]
            for name in ("a", "A", "a ", " a", "\u0430", "a\u0308", "\u00e4")
            if (answer := world.call("POST", "/jobs", json={**JOB, "name": name})).status_code == 201
        }
        assert "a" in saved
        assert len(set(saved.values())) == len(saved)
        for name, job_id in saved.items():
            assert world.call("GET", f"/jobs/{job_id}").get_json()["name"] == name
    finally:
        world.close()
