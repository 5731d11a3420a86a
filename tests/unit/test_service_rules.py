"""The rules of jobs, one by one. The table of bad requests (test_api_bad_input) goes through all of them over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.ports import Role
from cronkeeper_manager.service import rules

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
    spec = SPEC.evolve(run_as="root")
    assert [rules.needs_admin(spec, role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)] == [True, True, False]
    assert not rules.needs_admin(SPEC.evolve(run_as="nobody"), Role.OPERATOR)


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
