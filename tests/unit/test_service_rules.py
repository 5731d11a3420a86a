"""The rules of jobs, one by one. The table of bad requests (test_api_bad_input) goes through all of them over HTTP."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.domain.scope import EVERYWHERE, Scope, scope_of
from cronkeeper.ports import Role
from cronkeeper_manager.service import Caller, rules
from cronkeeper_manager.service.namespaces import check_interval, root_fault

NOW = parse_rfc3339("2026-03-01T12:00:00Z")
SPEC = JobSpec("ls -la", "5 * * * *", JobType.COMMAND)


def _fields(spec: JobSpec, before: JobSpec | None = None) -> list[str]:
    return [fault.field for fault in rules.check_spec(spec, now_ms=NOW, run_as_allowed=["nobody"], before=before)]


def test_the_job_of_the_contract_is_sound() -> None:
    assert _fields(SPEC) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"executable": "grep -P '\t' file"},
        {"executable": "x" * 8192},
        {"description": "two\nlines\tand a tab"},
        {"description": "日本語 ✓"},
        {"name": "a"},
        {"name": "backup.db_2-x"},
        {"args": ("", "-", "ü")},
        {"env": {"_A1": ""}},
        {"labels": {"example.org/team": ""}},
        {"run_as": "nobody"},
        {"run_as": "root"},
        {"schedule": "*/5 0-6,22 * jan-mar mon"},
        {"schedule": "@every 90s"},
        {"schedule": "30 */2 * * * *"},
        {"selector": "zone in (eu,us),!spot"},
    ],
    ids=str,
)
def test_what_is_sound_is_let_through(changes: dict[str, Any]) -> None:
    assert _fields(SPEC.evolve(**changes)) == []


def test_a_job_whose_last_fire_has_passed_can_be_edited_but_not_made() -> None:
    past = SPEC.evolve(schedule="@at 2026-03-01T11:00:00Z")
    assert _fields(past) == ["schedule"]
    assert _fields(past.evolve(description="it was once"), before=past) == []
    assert _fields(past.evolve(schedule="@at 2026-03-01T11:30:00Z"), before=past) == ["schedule"]


def test_a_whole_that_is_too_large_for_a_znode_is_refused() -> None:
    wide = SPEC.evolve(args=tuple("\\" * 4000 for _ in range(15)), env={f"V{n}": "\\" * 4000 for n in range(8)})
    assert _fields(wide) == ["env"]


def test_only_an_admin_may_ask_for_root() -> None:
    def allowed(role: Role, scope: Scope, own: tuple[str, ...] | None) -> bool:
        return root_fault(Caller("1", "x", role, scope), own) == ""

    scopes = (EVERYWHERE, scope_of(["team-a"]))
    for scope, own in product(scopes, (None, (), ("nobody",), ("nobody", "root"))):
        assert not allowed(Role.VIEWER, scope, own)
        assert not allowed(Role.OPERATOR, scope, own)
    answers = [allowed(Role.ADMIN, scope, own) for own, scope in product((None, ("nobody",), ("root",)), scopes)]
    assert answers == [True, False, False, False, True, True]


def test_without_allowed_accounts_every_account_is_refused() -> None:
    found = rules.check_fields({"run_as": "nobody"}, run_as_allowed=[])
    assert [(fault.field, fault.hint) for fault in found] == [("run_as", "no account is allowed; leave it out")]


@pytest.mark.parametrize("value", [None, 5, True, [], {}, [[]], {"a": None}, {"a": ["b"]}])
@pytest.mark.parametrize(
    "field", ["executable", "schedule", "type", "env", "args", "labels", "selector", "run_as", "name"]
)
def test_a_value_of_any_shape_raises_nothing(field: str, value: Any) -> None:
    rules.check_fields({"type": "command", field: value}, run_as_allowed=["nobody"])


@pytest.mark.parametrize("text", ["a\x00", "a\x1b", "a\x7f", "a\x85", "a\u2028", "a\ud800", "a\n", "a\t"])
def test_no_control_character_gets_into_a_plain_text(text: str) -> None:
    assert "position 2" in rules.text_fault(text)


@pytest.mark.parametrize(
    ("schedule", "shortest_s"),
    [
        ("* * * * *", 60),
        ("*/5 * * * *", 300),
        ("0,1 3 * * *", 60),
        ("59 23 * * *; 0 0 * * *", 60),
        ("*/10 * * * * *", 10),
        ("@every 90s", 90),
        ("0 0 29 2 *", 86_400),
    ],
)
def test_the_shortest_time_between_two_fires_is_found(schedule: str, shortest_s: int) -> None:
    spec = SPEC.evolve(schedule=schedule)
    assert check_interval(spec, shortest_s, NOW, None) == []
    faults = [fault.field for fault in check_interval(spec, 5 * 366 * 86_400, NOW, None)]
    assert faults == ([] if "29 2" in schedule else ["schedule"])
    if "29 2" not in schedule:
        assert [fault.field for fault in check_interval(spec, shortest_s + 1, NOW, None)] == ["schedule"]
        assert check_interval(spec.evolve(description="x"), shortest_s + 1, NOW, spec) == []
    assert check_interval(spec, None, NOW, None) == []


def test_a_job_that_fires_once_has_no_interval() -> None:
    assert check_interval(SPEC.evolve(schedule="@at 2026-06-01T00:00:00Z"), 86_400, NOW, None) == []
