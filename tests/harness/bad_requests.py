"""Requests that must be refused: one table, used on the doubles and on real servers alike."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JOB: dict[str, Any] = {"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}
SCRIPT = base64.b64encode(b"#!/bin/sh\necho hello\n").decode()
_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


@dataclass(frozen=True)
class Bad:
    """A request, the status it gets, and the field that its problem names (none: nothing but the whole is wrong).

    `{job}` in a path stands for a job that exists.
    """

    id: str
    status: int
    body: bytes = b""
    names: str | None = None
    method: str = "POST"
    path: str = "/jobs"
    headers: Mapping[str, str] = field(default_factory=lambda: dict(_JSON))


def _job(id_: str, names: str, /, *, drop: str = "", status: int = 422, **fields: Any) -> Bad:
    body = {**JOB, **fields}
    body.pop(drop, None)
    return Bad(id_, status, json.dumps(body).encode(), names)


def _raw(id_: str, body: bytes, *, names: str | None = None, status: int = 400, **rest: Any) -> Bad:
    return Bad(id_, status, body, names, **rest)


def _form(id_: str, parts: list[tuple[str, str]], *, names: str, status: int = 400) -> Bad:
    """Each part is its Content-Disposition after `form-data; ` and its content."""
    text = "".join(f"--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n" for head, content in parts)
    return Bad(id_, status, f"{text}--xyz--\r\n".encode(), names, headers=_FORM)


_SHAPE = [
    _job("an executable is required", "executable", drop="executable"),
    _job("a schedule is required", "schedule", drop="schedule"),
    _job("a type is required", "type", drop="type"),
    _job("an executable is no number", "executable", executable=5),
    _job("an executable is no list", "executable", executable=["ls", "-la"]),
    _job("an executable is not null", "executable", executable=None),
    _job("an executable is not empty", "executable", executable=""),
    _job("an executable is not made of blanks", "executable", executable="   "),
    _job("an executable has at most 8 kB", "executable", executable="x" * 8193),
    _job("a type is one of three", "type", type="comand"),
    _job("a type is written in lower case", "type", type="COMMAND"),
    _job("a type is no boolean", "type", type=True),
    _job("an unknown field is refused", "shedule", shedule="5 * * * *"),
    _job("notify is not a field", "notify", notify={"email": "a@b.c"}),
    _job("the id is not the caller's to give", "id", id="7"),
    _job("the generation is not the caller's to give", "generation", generation=4),
    _job("the artifact is not the caller's to give", "artifact", artifact={"key": "artifacts/x/y"}),
]
_SCHEDULE = [
    _job("a minute beyond 59", "schedule", schedule="60 * * * *"),
    _job("an hour beyond 23", "schedule", schedule="0 24 * * *"),
    _job("a day of zero", "schedule", schedule="0 0 0 * *"),
    _job("a thirteenth month", "schedule", schedule="0 0 1 13 *"),
    _job("four fields", "schedule", schedule="* * * *"),
    _job("seven fields", "schedule", schedule="* * * * * * *"),
    _job("a range that runs backwards", "schedule", schedule="5-1 * * * *"),
    _job("a step beyond the range", "schedule", schedule="*/99 * * * *"),
    _job("what cron would silently cut off", "schedule", schedule="1#2 * * * *"),
    _job("a list with a hole", "schedule", schedule="1,,2 * * * *"),
    _job("a thirtieth of February", "schedule", schedule="0 0 30 2 *"),
    _job("a nickname that does not exist", "schedule", schedule="@hourli"),
    _job("a reboot at a time", "schedule", schedule="@reboot; 5 * * * *"),
    _job("shards of a node's start", "shards", schedule="@reboot", shards=2),
    _job("an interval without a unit", "schedule", schedule="@every 30"),
    _job("an interval of nothing", "schedule", schedule="@every 0s"),
    _job("an instant without a zone", "schedule", schedule="@at 2027-01-01T00:00:00"),
    _job("an instant in the past", "schedule", schedule="@at 2001-01-01T00:00:00Z"),
    _job("a schedule with a second line", "schedule", schedule="5 * * * *\n* * * * *"),
    _job("a schedule longer than any sense", "schedule", schedule="1," * 200 + "1 * * * *"),
    _job("a schedule that is a number", "schedule", schedule=5),
    _job("no fire before the end", "schedule", ends_at="2001-01-01T00:00:00Z"),
]
_PLACE_AND_TIME = [
    _job("a zone that does not exist", "timezone", timezone="Europe/Berlni"),
    _job("a path for a zone", "timezone", timezone="../../etc/passwd"),
    _job("an offset for a zone", "timezone", timezone="+01:00"),
    _job("a start that is no instant", "starts_at", starts_at="tomorrow"),
    _job("a start without a zone", "starts_at", starts_at="2027-01-01T00:00:00"),
    _job("a start that is a number", "starts_at", starts_at=1772366700),
    _job("an end before the start", "ends_at", starts_at="2031-01-01T00:00:00Z", ends_at="2030-01-01T00:00:00Z"),
    _job("an empty selector", "selector", selector=""),
    _job("an empty selector object", "selector", selector={}),
    _job("a selector that cannot be read", "selector", selector="zone=eu=us"),
    _job("a selector with a comma in a value", "selector", selector={"zone": "eu,!spot"}),
    _job("a selector that is a list", "selector", selector=["zone=eu"]),
    _job("a gap that nobody knows", "dst.gap", dst={"gap": "leap"}),
    _job("a fold that nobody knows", "dst.fold", dst={"fold": "twice"}),
]
_NUMBERS = [
    _job("a timeout in quotes", "timeout_s", timeout_s="5"),
    _job("a timeout that is true", "timeout_s", timeout_s=True),
    _job("a timeout with a fraction", "timeout_s", timeout_s=1.5),
    _job("a timeout of nothing", "timeout_s", timeout_s=0),
    _job("a timeout before it began", "timeout_s", timeout_s=-1),
    _job("a timeout of a year", "timeout_s", timeout_s=31_536_000),
    _job("no shard", "shards", shards=0),
    _job("too many shards", "shards", shards=1001),
    _job("a negative grace", "grace_s", grace_s=-5),
    _job("a jitter of a week", "jitter_s", jitter_s=604_800),
    _job("a negative number of retries", "retry.limit", retry={"limit": -1}),
    _job("a retry field that does not exist", "retry.limt", retry={"limt": 3}),
    _job("a longest wait below the first", "retry.max_backoff_s", retry={"backoff_s": 60, "max_backoff_s": 5}),
    _job("a retry with a negative jitter", "retry.jitter_s", retry={"jitter_s": -1}),
    _job("a retry that is a number", "retry", retry=3),
    _job("memory in words", "limits.memory_mb", limits={"memory_mb": "1G"}),
    _job("no processor time", "limits.cpu", limits={"cpu": 0}),
]
_CHOICES = [
    _job("a concurrency that nobody knows", "concurrency", concurrency="maybe"),
    _job("a misfire that nobody knows", "misfire", misfire="last"),
    _job("a delivery that nobody can keep", "delivery", delivery="exactly_once"),
    _job("a loss that nobody knows", "on_worker_loss", on_worker_loss="retry"),
    _job("a rerun that at_most_once forbids", "on_worker_loss", delivery="at_most_once", on_worker_loss="rerun"),
]
_TEXTS = [
    _job("a command with a second line", "executable", executable="ls\nrm -rf /"),
    _job("a command with a NUL", "executable", executable="ls\u0000"),
    _job("a command with half a character", "executable", executable="ls \ud800"),
    _job("a command with a Unicode line end", "executable", executable="ls\u2028rm"),
    _job("a name with a slash", "name", name="../job"),
    _job("a name with a line end", "name", name="job\n* * * * * root sh"),
    _job("a name of digits", "name", name="12345"),
    _job("an empty name", "name", name=""),
    _job("a name of 300 letters", "name", name="a" * 300),
    _job("a namespace with capitals", "namespace", namespace="Team"),
    _job("a namespace that climbs", "namespace", namespace=".."),
    _job("an owner with an escape", "owner", owner="\u001b[31mred"),
    _job("a description with a bell", "description", description="ring\u0007"),
    _job("a description of 5 kB", "description", description="x" * 5000),
    _job("a description of 4 kB of wide letters", "description", description="\u00e9" * 4000),
]
_MAPS = [
    _job("args that are a text", "args", args="-la"),
    _job("an argument that is a number", "args[1]", args=["-l", 5]),
    _job("an argument with a line end", "args[0]", args=["a\nb"]),
    _job("too many arguments", "args", args=["x"] * 257),
    _job("arguments of more than 64 kB", "args", args=["x" * 4000] * 20),
    _job("a variable that is a number", "env.A", env={"A": 1}),
    _job("a variable with a blank in its name", "env.A B", env={"A B": "x"}),
    _job("a variable of ours", "env.CRONKEEPER_RUN_ID", env={"CRONKEEPER_RUN_ID": "1"}),
    _job("a variable with a NUL", "env.A", env={"A": "x\u0000y"}),
    _job("too many variables", "env", env={f"V{number}": "x" for number in range(65)}),
    _job("variables of more than 32 kB", "env", env={f"V{number}": "x" * 4000 for number in range(9)}),
    _job("a label with a blank", "labels.team", labels={"team": "a b"}),
    _job("a label's key with a blank", "labels.a b", labels={"a b": "x"}),
    _job("labels that are a list", "labels", labels=["team=ops"]),
    _job("too many labels", "labels", labels={f"l{number}": "x" for number in range(65)}),
]
_ACCOUNTS = [
    _job("an account that is not allowed", "run_as", run_as="postgres"),
    _job("an account by number", "run_as", run_as="#0"),
    _job("an account by a signed number", "run_as", run_as="+0"),
    _job("the account of nobody by number", "run_as", run_as="4294967295"),
    _job("an account with an option in it", "run_as", run_as="-u root"),
    _job("root without an admin's token", "run_as", run_as="root", status=403),
]
_FILES = [
    _job("a script that is no BASE64", "executable", type="script", executable="#!/bin/sh", filename="a.sh"),
    _job(
        "BASE64 with a line end",
        "executable",
        type="script",
        executable=SCRIPT[:8] + "\n" + SCRIPT[8:],
        filename="a.sh",
    ),
    _job("BASE64 without its padding", "executable", type="script", executable="YQ", filename="a.sh"),
    _job("BASE64 that means another", "executable", type="script", executable="YR==", filename="a.sh"),
    _job("a script without a name", "filename", type="script", executable=SCRIPT),
    _job("a script whose name climbs", "filename", type="script", executable=SCRIPT, filename="../a.sh"),
    _job("a script named as an option", "filename", type="script", executable=SCRIPT, filename="-rf"),
    _job("a script named by dots", "filename", type="script", executable=SCRIPT, filename=".."),
    _job("a command with a file's name", "filename", filename="a.sh"),
    _job(
        "a binary from anywhere", "executable", type="binary", executable="http://169.254.169.254/latest", filename="x"
    ),
    _job("a binary from the disk", "executable", type="binary", executable="file:///etc/passwd", filename="x"),
    _form(
        "a form without its file",
        [('name="job"', json.dumps({"schedule": "5 * * * *", "type": "script"}))],
        names="executable",
    ),
    _form("a form without its job", [('name="executable"; filename="a.sh"', "#!/bin/sh")], names="job"),
    _form(
        "a form with a part that nobody knows",
        [('name="job"', "{}"), ('name="executable"; filename="a"', "x"), ('name="more"', "x")],
        names="more",
    ),
    _form("a form with a part that has no name", [('filename="a"', "x")], names=""),
    Bad(
        "a form with a part that has no name, and a key",
        400,
        b'--xyz\r\nContent-Disposition: form-data; filename="a"\r\n\r\nx\r\n--xyz--\r\n',
        "",
        headers={**_FORM, "Idempotency-Key": "k"},
    ),
    _form(
        "a form whose type is command",
        [
            ('name="job"', json.dumps({"schedule": "5 * * * *", "type": "command"})),
            ('name="executable"; filename="a.sh"', "x"),
        ],
        names="executable",
        status=422,
    ),
    _form(
        "a form with an empty file",
        [
            ('name="job"', json.dumps({"schedule": "5 * * * *", "type": "script"})),
            ('name="executable"; filename="a.sh"', ""),
        ],
        names="executable",
        status=422,
    ),
]
_BODIES = [
    _raw("no body at all", b""),
    _raw("half an object", b'{"executable": "ls"'),
    _raw("a text that is not JSON", b"executable=ls"),
    _raw("a number that is none", b'{"executable": "ls", "timeout_s": NaN}'),
    _raw("a number without end", b'{"timeout_s": 1e999}'),
    _raw("a number of 5,000 digits", b'{"timeout_s": ' + b"9" * 5000 + b"}"),
    _raw("a field given twice", b'{"type": "command", "type": "script"}', names="type"),
    _raw("a variable given twice", b'{"env": {"A": "1", "A": "2"}}', names="A"),
    _raw("bytes that are not UTF-8", b'{"executable": "\xff"}'),
    _raw("nested a hundred thousand times", b"[" * 100_000),
    _raw("nested 21 times", b'{"env": ' + b'{"a": ' * 21 + b"1" + b"}" * 22),
    _raw("a list for a job", b"[]", names="", status=422),
    _raw("a text for a job", b'"job"', names="", status=422),
    _raw("null for a job", b"null", names="", status=422),
    _raw(
        "a form from a web page",
        b"executable=ls",
        status=415,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    _raw("JSON that calls itself text", json.dumps(JOB).encode(), status=415, headers={"Content-Type": "text/plain"}),
    _raw("JSON without a content type", json.dumps(JOB).encode(), status=415, headers={}),
    _raw(
        "an Idempotency-Key of 300 characters",
        json.dumps(JOB).encode(),
        names="Idempotency-Key",
        status=422,
        headers={**_JSON, "Idempotency-Key": "k" * 300},
    ),
]
_ELSEWHERE = [
    Bad("a patch with a wrong schedule", 422, b'{"schedule": "61 * * * *"}', "schedule", "PATCH", "/jobs/{job}"),
    Bad("a patch that takes the executable away", 422, b'{"executable": null}', "executable", "PATCH", "/jobs/{job}"),
    Bad("a patch with an unknown field", 422, b'{"colour": "red"}', "colour", "PATCH", "/jobs/{job}"),
    Bad(
        "a replacement without its schedule",
        422,
        b'{"executable": "ls", "type": "command"}',
        "schedule",
        "PUT",
        "/jobs/{job}",
    ),
    Bad(
        "a stale patch",
        412,
        b'{"description": "x"}',
        None,
        "PATCH",
        "/jobs/{job}",
        {**_JSON, "If-Match": '"job-1-999"'},
    ),
    Bad("a stale delete", 412, b"", None, "DELETE", "/jobs/{job}", {"If-Match": 'W/"job-1-1"'}),
    Bad("a query parameter that nobody knows", 422, b"", "purg", "DELETE", "/jobs/{job}?purg=true", {}),
    Bad("a boolean that is none", 422, b"", "purge", "DELETE", "/jobs/{job}?purge=ture", {}),
    Bad("a shard that the job has not", 422, b'{"shard": 7}', "shard", "POST", "/jobs/{job}/run"),
    Bad("a shard that is a text", 422, b'{"shard": "0"}', "shard", "POST", "/jobs/{job}/run"),
    Bad("a page of none", 422, b"", "limit", "GET", "/jobs?limit=0", {}),
    Bad("a page of a million", 422, b"", "limit", "GET", "/jobs?limit=1000000", {}),
    Bad("a status that no job has", 422, b"", "status", "GET", "/jobs?status=sleeping", {}),
    Bad("a label without its value", 422, b"", "label", "GET", "/jobs?label=team", {}),
    Bad("a count of none", 422, b"", "count", "GET", "/jobs/{job}/next?count=0", {}),
    Bad("an instant that is none", 422, b"", "after", "GET", "/jobs/{job}/next?after=soon", {}),
    Bad("a run that cannot be", 422, b"", "before", "GET", "/jobs/{job}/runs?before=5", {}),
    Bad("a job that is no number", 404, b"", None, "GET", "/jobs/one", {}),
    Bad("a job that does not exist", 404, b"", None, "GET", "/jobs/999999", {}),
    Bad("a run that does not exist", 404, b"", None, "GET", "/runs/1-0-1772366700000-1/log", {}),
    Bad("a method that nobody knows", 405, b"", None, "PUT", "/jobs", {}),
    Bad(
        "a preview of a wrong job",
        422,
        b'{"executable": "ls", "schedule": "x", "type": "command"}',
        "schedule",
        "POST",
        "/preview",
    ),
    Bad("an apply of a nameless job", 422, json.dumps({"jobs": [JOB]}).encode(), "jobs[0].name", "POST", "/apply"),
    Bad(
        "an apply with a wrong job in it",
        422,
        json.dumps({"jobs": [{**JOB, "name": "a"}, {**JOB, "name": "b", "schedule": "61 * * * *"}]}).encode(),
        "jobs[1].schedule",
        "POST",
        "/apply",
    ),
    Bad(
        "an apply that names a job twice",
        422,
        json.dumps({"jobs": [{**JOB, "name": "a"}, {**JOB, "name": "a"}]}).encode(),
        "jobs[1].name",
        "POST",
        "/apply",
    ),
    Bad(
        "an apply that would prune all", 422, json.dumps({"jobs": [], "prune": ""}).encode(), "prune", "POST", "/apply"
    ),
]


def _calendar(id_: str, names: str | None, /, path: str = "/calendars/x", status: int = 422, **fields: Any) -> Bad:
    return Bad(id_, status, json.dumps(fields).encode(), names, "PUT", path)


_CALENDARS = [
    _calendar("a day that does not exist", "exclude[1]", exclude=["2026-02-28", "2026-02-30"]),
    _calendar("a range that runs backwards through the year", "include[0]", include=["2027-01-02/2026-12-24"]),
    _calendar("a range without its end", "exclude[0]", exclude=["2026-12-24/"]),
    _calendar("a year that nobody plans for", "exclude[0]", exclude=["2200-01-01"]),
    _calendar("a day before there were any", "exclude[0]", exclude=["1969-12-31"]),
    _calendar("a day with a time", "exclude[0]", exclude=["2026-12-24T00:00:00Z"]),
    _calendar("a day that is a number", "exclude[0]", exclude=[20261224]),
    _calendar("days that are no list", "exclude", exclude="2026-12-24"),
    _calendar("more than 4,000 days", "exclude", exclude=["2000-01-01/2020-12-31"]),
    _calendar(
        "more than 1,000 days apart",
        "exclude",
        exclude=[
            f"{year}-{month:02}-0{day}" for year in range(2000, 2030) for month in range(1, 13) for day in (1, 3, 5)
        ],
    ),
    _calendar("a calendar with an unknown field", "excluded", excluded=[]),
    _calendar("a calendar's name that is no name", "name", "/calendars/a%20b"),
    _calendar("a calendar's name of digits", "name", "/calendars/7"),
    _calendar("a calendar in no namespace", "namespace", "/calendars/x?namespace=A"),
    _calendar("a calendar whose description rings", "description", description="\a"),
    Bad("a calendar that is no JSON", 400, b"exclude: []", None, "PUT", "/calendars/x"),
    Bad("a calendar that is a list", 422, b"[]", "", "PUT", "/calendars/x"),
    Bad("a calendar that is not there", 404, b"", None, "DELETE", "/calendars/x", {}),
    Bad("a page of no calendars", 422, b"", "limit", "GET", "/calendars?limit=0", {}),
    Bad("a refresh of too many jobs", 422, b"", "limit", "POST", "/calendars/refresh?limit=5001", {}),
    _job("a calendar that nobody made", "calendar.named[0]", calendar={"named": ["nowhere"]}),
    _job("more calendars than a job may name", "calendar.named", calendar={"named": ["a", "b", "c", "d"]}),
    _job("days that only the server copies", "named_dates", named_dates={}),
]

BAD_REQUESTS: list[Bad] = [
    *_SHAPE,
    *_SCHEDULE,
    *_PLACE_AND_TIME,
    *_NUMBERS,
    *_CHOICES,
    *_TEXTS,
    *_MAPS,
    *_ACCOUNTS,
    *_FILES,
    *_BODIES,
    *_ELSEWHERE,
    *_CALENDARS,
]
