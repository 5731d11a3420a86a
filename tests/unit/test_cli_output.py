"""What the command prints, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from cronkeeper_cli.client import next_link, segment
from cronkeeper_cli.failures import ProblemError, exit_status, problem_lines
from cronkeeper_cli.jobs import JOBS
from cronkeeper_cli.output import cell_text, plain_table, render, render_fields, yaml_text
from cronkeeper_cli.runs import RUNS, duration_text, exit_text

JOB: dict[str, Any] = {
    "id": "17",
    "name": "listing",
    "status": "scheduled",
    "executable": "ls -la",
    "schedule": "5 * * * *",
    "timezone": "Europe/Berlin",
    "type": "command",
    "next_fire": "2027-01-01T00:05:00Z",
    "last_run": {"id": "17-0-1-1", "fire_time": "2026-12-31T23:05:00Z", "state": "failed", "ended_at": None},
    "workers": ["node-1"],
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, 0),
        (201, 0),
        (400, 2),
        (401, 1),
        (403, 1),
        (404, 3),
        (409, 4),
        (412, 4),
        (413, 1),
        (422, 2),
        (429, 1),
        (500, 1),
        (503, 1),
        (504, 5),
    ],
)
def test_every_http_status_has_its_exit_status(status: int, expected: int) -> None:
    assert exit_status(status) == expected


def test_a_problem_is_told_with_every_field_and_its_mend() -> None:
    problem = {
        "title": "The job is invalid",
        "detail": "2 fields are wrong",
        "errors": [
            {"field": "schedule", "message": "61 is not in 0-59", "hint": "write 0 to 59"},
            {"field": "timezone", "message": "no such zone", "hint": ""},
        ],
    }
    assert problem_lines(422, problem) == [
        "The job is invalid: 2 fields are wrong",
        "  schedule: 61 is not in 0-59",
        "    hint: write 0 to 59",
        "  timezone: no such zone",
    ]


@pytest.mark.parametrize("problem", [{}, {"errors": "x"}, {"errors": [5, None]}, {"title": None, "errors": {}}])
def test_an_answer_that_is_no_problem_still_gets_its_line(problem: dict[str, Any]) -> None:
    assert problem_lines(502, problem) == ["the API answered with status 502"]
    assert ProblemError(502, problem).exit_code == 1


def test_without_a_token_the_mend_is_named() -> None:
    assert "CRONKEEPER_TOKEN" in "\n".join(problem_lines(401, {"title": "Who are you?"}))


def test_a_table_is_aligned_and_has_no_blanks_at_line_ends() -> None:
    text = plain_table(["ID", "NAME"], [["1", "a"], ["1000", "bc"]])
    assert text == "ID    NAME\n1     a\n1000  bc"


def test_a_job_as_a_table_row() -> None:
    lines = render([JOB], JOBS, "table").splitlines()
    titles = ["ID", "NAME", "STATUS", "SCHEDULE", "NEXT", "FIRE", "LAST", "RUN", "WORKERS", "EXECUTABLE"]
    assert lines[0].split() == titles
    assert "5 * * * * (Europe/Berlin)" in lines[1]
    assert "failed 2026-12-31T23:05:00Z" in lines[1]
    assert lines[1].endswith("ls -la")


def test_json_and_yaml_say_the_same_as_the_api() -> None:
    assert json.loads(render([JOB], JOBS, "json")) == [JOB]
    assert yaml.safe_load(render([JOB], JOBS, "yaml")) == [JOB]


def test_names_are_what_other_commands_take() -> None:
    assert render([JOB, {**JOB, "id": "18"}], JOBS, "name") == "17\n18"
    assert render([{"id": "17-0-1-1"}], RUNS, "name") == "17-0-1-1"


def test_no_cell_can_drive_the_terminal() -> None:
    assert cell_text("a\x1b[2Jb\nc\x9b1m") == "a\\x1b[2Jb\\x0ac\\x9b1m"
    # Written from right to left, the name of a program would read as a picture's.
    assert cell_text("a\u202egnp.sh\u2066\u2028") == "a\\u202egnp.sh\\u2066\\u2028"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "-"), ("", "-"), ([], "-"), ({}, "-"), (0, "0"), (False, "no"), ({"a": "b"}, "a=b"), (["a", "b"], "a,b")],
)
def test_cells(value: Any, expected: str) -> None:
    assert cell_text(value) == expected


def test_one_thing_is_shown_with_what_is_set() -> None:
    assert render_fields({"id": "1", "name": None, "schedule": "5 * * * *"}) == "id        1\nschedule  5 * * * *"


def test_yaml_keeps_texts_that_look_like_something_else() -> None:
    values = {"schedule": "@hourly", "description": "a\nb\n", "name": "on", "zone": "null", "starts_at": "2027-01-01"}
    assert yaml.safe_load(yaml_text(values)) == values


def test_how_long_a_run_took_and_how_it_ended() -> None:
    run = {"started_at": "2027-01-01T00:00:00Z", "ended_at": "2027-01-01T00:00:01.500Z", "exit_code": 0}
    assert (duration_text(run), exit_text(run)) == ("1.5s", "0")
    assert (duration_text({"started_at": None}), exit_text({"exit_code": None})) == ("-", "-")
    assert exit_text({"exit_code": None, "signal": 9}) == "signal 9"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('</jobs?after=5>; rel="next"', "/jobs?after=5"),
        ('<http://x/jobs>; rel="prev", <http://x/jobs?after=5>; rel="next"', "http://x/jobs?after=5"),
        ("", None),
        ('</jobs>; rel="prev"', None),
        ("nonsense", None),
    ],
)
def test_the_next_page_is_found(header: str, expected: str | None) -> None:
    assert next_link(header) == expected


def test_nothing_typed_leads_to_another_path() -> None:
    assert segment("../jobs/1?x=#") == "..%2Fjobs%2F1%3Fx%3D%23"
