"""Whatever stands in whichever text of whichever request: no fault of ours, and it stays a text wherever it goes."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from cronkeeper.domain.schedule import parse_schedule
from cronkeeper.ports import JobQuery, Role
from cronkeeper.runtime.logs import JsonFormatter, TextFormatter
from cronkeeper_api.models import ApplyInput, JobInput
from cronkeeper_api.params import Type
from cronkeeper_api.routing import Access, Route
from cronkeeper_api.views import all_routes
from cronkeeper_worker.crontab_file import SystemCrontab
from cronkeeper_worker.crontab_render import render
from tests.harness.api import JOB, World
from tests.harness.injections import KEY, MARK, TEXTS, places, put

ROUTES = all_routes(metrics=Access.VIEWER)
WITH_BODY = [route for route in ROUTES if route.body is not None]
#: The fixed form of a file in /etc/cron.d, written down again by hand: what cron may read, and nothing else.
_CRON_FILE = re.compile(
    r"# Written by Cronkeeper, which overwrites every change\.\n"
    r"(?:# no task: the sign that cron lives and reads this file\n"
    r"|# tasks [0-9]+/[0-9]+(?: [0-9]+/[0-9]+){0,39}(?: and [0-9]+ more)?\n"
    r"|[0-9*,/-]+(?: [0-9*,/-]+){4} root /opt/fire [0-9]+\n)+"
)
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
#: What drives a terminal, ends a line or turns the direction of writing.
_DRIVES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ZNODE = re.compile(r"[A-Za-z0-9/@._-]*", re.ASCII)


class Town:
    """A world with something of everything, and all that it says in its logs."""

    def __init__(self) -> None:
        self.world = World(threads=64, follow_limit_s=0.01)
        self.world.post_job(name="bystander")
        assert self.world.call("POST", "/jobs/1/run").status_code == 202
        self.said = {form: io.StringIO() for form in (JsonFormatter, TextFormatter)}
        self._handlers = []
        for form, stream in self.said.items():
            handler = logging.StreamHandler(stream)
            handler.setFormatter(form({"service": "api"}))
            logging.getLogger().addHandler(handler)
            self._handlers.append(handler)
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.DEBUG)

    def close(self) -> None:
        logging.getLogger().setLevel(self._level)
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
        self.world.close()

    def check_answer(self, answer: TestResponse, told: object) -> None:
        text = answer.get_data(as_text=True)
        assert answer.status_code < 500, (told, text)
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) is None, (told, text)
        for name, value in answer.headers.items():
            # A request's id is the caller's own, if it is made of letters, digits, '.', '_' and '-'.
            assert MARK not in name + value or name == "X-Request-Id", told
            assert _PRINTABLE.fullmatch(name + value), (told, name, value)
        if answer.status_code >= 400:
            assert answer.content_type == "application/problem+json", told
            assert "Traceback" not in text, told
        assert "1787569" not in text, told  # which is 1337 * 1337

    def check_traces(self) -> None:
        """Look wherever a text of a user might have gone."""
        for path in self.world.ensemble.snapshot():
            assert _ZNODE.fullmatch(path), path
            assert MARK not in path, path
        for key in self.world.blobs.objects:
            assert MARK not in key, key
        metrics = self.world.call("GET", "/metrics", role=Role.VIEWER).get_data(as_text=True)
        assert MARK not in metrics
        said = {form: stream.getvalue() for form, stream in self.said.items()}
        for stream in self.said.values():
            stream.seek(0)
            stream.truncate()
        for line in said[JsonFormatter].splitlines():
            assert _PRINTABLE.fullmatch(line), line
            assert _DRIVES.search(json.loads(line)["message"]) is None, line
        for line in said[TextFormatter].split("\n"):
            assert _DRIVES.search(line) is None, line
            assert line == "" or re.match(r"\d{4}-\d\d-\d\dT", line), line

    def crontab(self) -> tuple[str, ...]:
        tasks = [
            (task, parse_schedule(job.spec.schedule, job.spec.timezone))
            for job in self.world.store.jobs.page(JobQuery(limit=10_000))
            for task in job.tasks()
        ]
        return render(tasks, fire="/opt/fire", node_timezone="UTC", now_ms=self.world.clock.now_ms(), user="root")


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    found = Town()
    yield found
    found.close()


def _base(route: Route) -> dict[str, Any]:
    return dict(route.example or {}) | (JOB if route.body is JobInput else {})


def _places(route: Route) -> list[tuple[str | int, ...]]:
    assert route.body is not None
    found = places(route.body)
    if route.body is ApplyInput:
        found += [("jobs", 0, *path) for path in places(JobInput)]
    return found


def _path(route: Route, text: str = "") -> str:
    fill = {"job_id": "1", "name": "x", "namespace": "default", "worker_id": "w", "token_id": "99", "run_id": "1-0-1-1"}
    return re.sub(r"\{(\w+)\}", lambda match: quote(text, safe="") if text else fill.get(match[1], "x"), route.path)


def _sendable(text: str) -> str:
    """A text without halves of characters: a URL has no way to write them."""
    return text.encode(errors="replace").decode()


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.endpoint)
def test_a_text_in_any_place_of_a_body_is_a_text_or_refused(route: Route, town: Town) -> None:
    assert _places(route) or route.body is not None
    # Everything in one route for each model; in the others each place gets some of them.
    first = next(other for other in WITH_BODY if other.body is route.body) is route
    texts = list(TEXTS.values())
    for number, path in enumerate(_places(route)):
        some = texts if first and route.body is not ApplyInput else texts[number % 6 :: 6]
        for text in some:
            base = _base(route)
            if route.body is ApplyInput and path[:1] == ("jobs",):
                base = {"jobs": [put({**JOB, "name": "a"}, path[2:], text)]}
            else:
                base = put(base, path, text)
            answer = town.world.call(route.method, _path(route), role=Role.ADMIN, json=base)
            town.check_answer(answer, (path, text))
    town.check_traces()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.endpoint)
def test_a_text_in_a_path_a_parameter_or_a_header_is_refused_or_nothing(route: Route, town: Town) -> None:
    for text in map(_sendable, TEXTS.values()):
        if "{" in route.path:
            answer = town.world.call(route.method, _path(route, text), role=Role.ADMIN, json=_base(route))
            town.check_answer(answer, (route.path, text))
        for param in route.params:
            answer = town.world.call(
                route.method, _path(route), role=Role.ADMIN, query_string={param.name: text}, json=_base(route)
            )
            town.check_answer(answer, (param.name, text))
            assert answer.status_code >= 400 or param.type is Type.TEXT, (param.name, text)
    town.check_traces()


@pytest.mark.parametrize(
    "name", ["If-Match", "If-None-Match", "Idempotency-Key", "Content-Type", "X-Request-Id", "Accept"]
)
def test_a_text_in_a_header_is_refused_or_nothing(name: str, town: Town) -> None:
    for text in TEXTS.values():
        value = re.sub(r"[\r\n]", "", text.encode("utf-8", "replace").decode("latin-1"))
        for method, path in (("POST", "/jobs"), ("PATCH", "/jobs/1"), ("GET", "/jobs/1")):
            body = None if method == "GET" else JOB
            answer = town.world.call(method, path, headers={name: value}, data=json.dumps(body) if body else None)
            if name != "Content-Type":
                town.check_answer(answer, (name, text))
            assert answer.status_code < 500
    town.check_traces()


def test_every_text_of_a_job_is_a_place() -> None:
    found = {path[0] for path in places(JobInput)}
    for name, field in JobInput.model_json_schema()["properties"].items():
        if "string" in json.dumps(field):
            assert name in found, name
    assert {("env", KEY), ("labels", KEY), ("args", 0), ("blackouts", 0, "from"), ("calendar", "named", 0)} <= set(
        places(JobInput)
    )


def _is_of_the_fixed_form(files: tuple[str, ...]) -> None:
    assert files
    for file in files:
        assert file.isascii()
        assert _CRON_FILE.fullmatch(file), file


def test_the_crontab_of_all_jobs_that_were_accepted_has_the_fixed_form(town: Town) -> None:
    # Those that were accepted with such texts in them.
    for place in ("executable", "description", "owner", "args"):
        for text in TEXTS.values():
            town.world.call("POST", "/jobs", json={**JOB, place: [text] if place == "args" else text})
    jobs = town.world.store.jobs.page(JobQuery(limit=10_000))
    assert sum(MARK in job.spec.executable + job.spec.description + "".join(job.spec.args) for job in jobs) >= 30
    _is_of_the_fixed_form(town.crontab())


_ANY = st.text(st.characters(exclude_categories=()), max_size=40)
_MAP = st.dictionaries(_ANY, _ANY, max_size=3)
_JOBS = st.fixed_dictionaries(
    {"executable": _ANY, "schedule": st.one_of(_ANY, st.sampled_from(["5 * * * *", "@daily", "@every 30s"]))},
    optional={
        **dict.fromkeys(("name", "description", "owner", "selector", "run_as", "namespace"), _ANY),
        **dict.fromkeys(("env", "labels"), _MAP),
        "args": st.lists(_ANY, max_size=3),
        "timezone": st.one_of(_ANY, st.just("Asia/Tokyo")),
    },
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_from_any_job_to_the_bytes_of_the_file(data: st.DataObject, tmp_path: Path) -> None:
    world = World()
    try:
        fields = data.draw(_JOBS)
        # One that is always accepted stands beside it.
        world.post_job(description="plain")
        answer = world.call("POST", "/jobs", json={"type": "command", **fields})
        assert answer.status_code in (201, 400, 403, 422)
        town = Town.__new__(Town)
        town.world = world
        files = town.crontab()
        _is_of_the_fixed_form(files)
        folder = tmp_path / "cron.d"
        folder.mkdir(exist_ok=True)
        SystemCrontab(folder).install(files)
        on_disk = {path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
        assert on_disk == {file.encode("ascii") for file in files}
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", path.name) for path in folder.iterdir())
    finally:
        world.close()
