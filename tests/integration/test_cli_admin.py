"""The commands about workers, tokens, the database and its doctor, against the real API over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.store import open_store
from tests.harness.ports import free_port
from tests.integration.served_api import FIELDS, Api, serve


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


# ----------------------------------------------------------------------------------------------------------- admin


def test_workers_are_listed_cordoned_and_uncordoned(api: Api) -> None:
    api.join("node-1")
    assert [(worker["id"], worker["state"]) for worker in api.json("workers")] == [("node-1", "up")]
    assert api.json("cordon", "node-1")[0]["state"] == "cordoned"
    assert api.json("uncordon", "node-1")[0]["state"] == "up"
    assert "node-1" in api.ok("workers")


def test_a_drain_is_shown_before_it_is_done(api: Api) -> None:
    api.join("node-1")
    api.join("node-2")
    api.ok("create", *FIELDS, "--name", "a")
    api.give("node-1", "1")
    moves = api.json("drain", "node-1", "--dry-run")
    assert [(move["task"], move["from"], move["to"]) for move in moves] == [("1/0", "node-1", "node-2")]
    assert api.json("workers")[0]["state"] == "up"
    assert api.run("drain", "node-1", "--wait", "--timeout", "0.5s").exit_code == 5
    assert api.json("workers")[0]["state"] == "draining"


def test_one_job_and_all_jobs_of_a_worker_are_reassigned(api: Api) -> None:
    api.join("node-1")
    api.join("node-2")
    for name in ("a", "b"):
        api.ok("create", *FIELDS, "--name", name)
    api.give("node-1", "1")
    api.give("node-1", "2")
    one = api.json("reassign", "a", "--to", "node-2", "--dry-run")
    assert [(move["task"], move["to"]) for move in one] == [("1/0", "node-2")]
    both = api.json("reassign", "--from", "node-1", "--to", "node-2", "--dry-run")
    assert sorted(move["task"] for move in both) == ["1/0", "2/0"]
    assert api.store.move_requests.all() == {}
    api.ok("reassign", "--from", "node-1", "--to", "node-2")
    assert {str(task) for task in api.store.move_requests.all()} == {"1/0", "2/0"}


def test_tokens_are_made_listed_and_revoked(api: Api) -> None:
    made = json.loads(api.ok("token", "create", "--name", "ci", "--role", "viewer", "-o", "json"))
    viewer = {"CRONKEEPER_TOKEN": made["token"]}
    assert api.run("list", env=viewer).exit_code == 0
    refused = api.run("create", *FIELDS, env=viewer)
    assert refused.exit_code == 1
    assert made["token"] not in api.ok("token", "list", "-o", "json")
    assert api.run("token", "revoke", made["id"]).exit_code == 0
    assert api.run("list", env=viewer).exit_code == 1


def test_a_token_of_some_namespaces_ends_in_time(api: Api) -> None:
    asked = ("token", "create", "--name", "ci", "--role", "operator")
    made = api.json(*asked, "--namespace", "team-a", "-n", "team-b", "--expires", "30d")
    assert made["namespaces"] == ["team-a", "team-b"]
    assert 29 < (parse_rfc3339(made["expires_at"]) - parse_rfc3339(made["created_at"])) / 86_400_000 <= 30.1
    own = {"CRONKEEPER_TOKEN": made["token"]}
    assert api.run("create", *FIELDS, "-n", "team-a", env=own).exit_code == 0
    refused = api.run("create", *FIELDS, "-n", "team-c", env=own)
    assert (refused.exit_code, "namespace" in refused.output) == (2, True)
    assert api.run("drain", "node-1", "--dry-run", env=own).exit_code == 1
    for wrong in ("30", "0d", "-1d", "30x", "1000000d", "d"):
        assert api.run(*asked, f"--expires={wrong}").exit_code == 2, wrong
    assert api.run(*asked, "--expires", "1d", "--expires-at", "2030-01-01T00:00:00Z").exit_code == 2


def test_namespaces_are_listed_shown_and_set(api: Api) -> None:
    assert "no namespaces" in api.run("namespaces", "list").output
    api.ok("create", *FIELDS, "-n", "team-a")
    made = api.json("namespaces", "set", "team-a", "--run-as", "nobody", "--max-jobs", "1", "--max-fires", "2.5")
    assert (made["run_as"], made["quotas"]["max_jobs"], made["usage"]["jobs"]) == (["nobody"], 1, 1)
    refused = api.run("create", *FIELDS, "-n", "team-a")
    assert (refused.exit_code, "max_jobs" in refused.output) == (2, True)
    changed = api.json("namespaces", "set", "team-a", "--max-jobs", "none", "--min-interval", "60")
    assert (changed["quotas"]["max_jobs"], changed["quotas"]["max_fires_per_minute"]) == (None, 2.5)
    assert changed["run_as"] == ["nobody"]
    assert api.json("namespaces", "set", "team-a", "--run-as", "none")["run_as"] is None
    assert api.ok("namespaces", "list", "-o", "name").split() == ["team-a"]
    assert "team-a" in api.ok("namespaces", "show", "team-a")
    for wrong in ((), ("--max-jobs", "x"), ("--run-as", "none", "--run-as", "a"), ("--max-jobs", "-1")):
        assert api.run("namespaces", "set", "team-a", *wrong).exit_code == 2, wrong
    assert api.run("namespaces", "show", "No").exit_code == 3


# ------------------------------------------------------------------------------------------------- database, doctor


def test_the_first_token_comes_straight_from_the_database(api: Api) -> None:
    env = {"CRONKEEPER_DATABASE_URL": api.database_url}
    made = api.run("db", "token", "--role", "operator", "--name", "first", env=env)
    assert made.exit_code == 0, made.output
    assert api.run("list", env={"CRONKEEPER_TOKEN": made.output.strip()}).exit_code == 0


def test_a_token_from_the_database_is_bound_to_its_namespaces_and_stands_in_the_trail(api: Api) -> None:
    env = {"CRONKEEPER_DATABASE_URL": api.database_url}
    made = api.run("db", "token", "--role", "operator", "--name", "of-team-b", "--namespace", "team-b", env=env)
    assert made.exit_code == 0, made.output
    theirs = {"CRONKEEPER_TOKEN": made.output.strip()}
    assert api.run("create", *FIELDS, "--namespace", "team-b", env=theirs).exit_code == 0
    assert api.run("create", *FIELDS, "--namespace", "other", env=theirs).exit_code != 0
    store = open_store(api.database_url)
    try:
        told = [entry for entry in store.trail.waiting(limit=1000) if "of-team-b" in entry.new]
    finally:
        store.close()
    assert [(entry.action, entry.actor.name) for entry in told] == [("token.created", "database")]
    assert '"team-b"' in told[0].new
    for wrong in ("", "No such", "*,team-a"):
        refused = api.run("db", "token", "--role", "viewer", "--name", "x", "--namespace", wrong, env=env)
        assert refused.exit_code == 2, wrong


def test_the_schema_is_made_and_judged(api: Api, tmp_path: Path) -> None:
    env = {"CRONKEEPER_DATABASE_URL": f"sqlite:///{tmp_path / 'other'}"}
    assert api.run("db", "current", env=env).exit_code == 1
    assert api.run("db", "upgrade", env=env).exit_code == 0
    assert api.run("db", "upgrade", env=env).exit_code == 0
    assert api.run("db", "current", env=env).exit_code == 0
    assert api.run("db", "current", env={"CRONKEEPER_DATABASE_URL": ""}).exit_code == 2


def test_the_doctor_names_every_fault_and_its_mend(api: Api, tmp_path: Path) -> None:
    env = {
        "CRONKEEPER_DATABASE_URL": f"sqlite:///{tmp_path / 'empty'}",
        "CRONKEEPER_ZOOKEEPER": f"127.0.0.1:{free_port()}/cronkeeper",
        "CRONKEEPER_BLOB_URL": f"file://{tmp_path / 'objects'}",
    }
    result = api.run("doctor", env=env)
    assert result.exit_code == 1
    words = {line.split()[1]: line.split()[0] for line in result.output.splitlines()}
    assert (words["config"], words["database"], words["zookeeper"]) == ("ok", "FAULT", "FAULT")
    assert "cronkeeper db upgrade" in result.output
    assert "clock" in words


def test_the_doctor_is_content_with_what_works(api: Api, tmp_path: Path, zookeeper_chroot: str) -> None:
    env = {
        "CRONKEEPER_DATABASE_URL": api.database_url,
        "CRONKEEPER_ZOOKEEPER": zookeeper_chroot,
        "CRONKEEPER_BLOB_URL": f"file://{tmp_path / 'objects'}",
    }
    result = api.run("doctor", env=env)
    assert result.exit_code == 0, result.output
    assert "FAULT" not in result.output
